"""A call's body: what is read, what is refused, and by which name."""

from __future__ import annotations

import pytest

from plait.proxy.asked import Asked, read_chat, read_completion
from plait.proxy.errors import BodyError, ParameterError
from plait.proxy.fields import read_json

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Why?"}]}
RAW = {"model": "tiny", "prompt": "Why?"}


def refused(body: object, read: object = read_chat) -> ParameterError:
    with pytest.raises(ParameterError) as refusal:
        read(body)
    assert refusal.value.param in refusal.value.text or refusal.value.reason == "unknown_parameter"
    return refusal.value


def test_chat_reads_every_parameter_that_plait_serves() -> None:
    asked = read_chat(
        {
            **CHAT,
            "max_completion_tokens": 7,
            "temperature": 0.5,
            "top_p": 0.9,
            "top_k": 40,
            "seed": 5,
            "stop": ["a", "b"],
            "stream": True,
            "stream_options": {"include_usage": True, "include_obfuscation": False},
        }
    )

    assert asked == Asked(
        model="tiny",
        messages=({"role": "user", "content": "Why?"},),
        max_tokens=7,
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        seed=5,
        stop=("a", "b"),
        stream=True,
        include_usage=True,
    )


def test_chat_joins_text_parts_and_takes_developers_for_the_system() -> None:
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    messages = [{"role": "developer", "content": parts}, {"role": "user", "content": "x", "name": "ada"}]

    asked = read_chat({**CHAT, "messages": messages})

    assert asked.messages == (
        {"role": "system", "content": "one two"},
        {"role": "user", "content": "x", "name": "ada"},
    )


def test_chat_takes_an_answer_of_its_own_back() -> None:
    said = {"role": "assistant", "content": "hi", "refusal": None, "annotations": [], "tool_calls": None, "audio": None}

    assert read_chat({**CHAT, "messages": [said]}).messages == ({"role": "assistant", "content": "hi"},)


@pytest.mark.parametrize(
    "harmless",
    [
        {"user": "ada", "metadata": {"a": "b"}, "store": True, "safety_identifier": "x", "service_tier": "auto"},
        {"n": 1, "logprobs": False, "top_logprobs": 0, "logit_bias": {}, "tools": [], "tool_choice": "auto"},
        {"presence_penalty": 0, "frequency_penalty": 0.0, "response_format": {"type": "text"}, "modalities": ["text"]},
        {"n": None, "tools": None, "response_format": None, "stop": None, "seed": None, "anything_else": None},
        {"reasoning_effort": "none", "verbosity": "medium", "prompt_cache_key": "k", "parallel_tool_calls": True},
    ],
)
def test_chat_accepts_what_changes_no_answer(harmless: dict[str, object]) -> None:
    assert read_chat({**CHAT, **harmless}) == read_chat(CHAT)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 2),
        ("n", True),
        ("logprobs", True),
        ("top_logprobs", 3),
        ("logit_bias", {"5": 1}),
        ("tools", [{"type": "function"}]),
        ("tool_choice", "required"),
        ("functions", [{}]),
        ("presence_penalty", 0.5),
        ("frequency_penalty", -1),
        ("response_format", {"type": "json_object"}),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "alloy"}),
        ("reasoning_effort", "high"),
        ("web_search_options", {}),
    ],
)
def test_chat_refuses_what_it_cannot_do_by_its_name(field: str, value: object) -> None:
    refusal = refused({**CHAT, field: value})

    assert (refusal.param, refusal.reason) == (field, "unsupported_parameter")


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"model": ""}, "model"),
        ({"model": None}, "model"),
        ({"model": 5}, "model"),
        ({"model": "x" * 300}, "model"),
        ({"model": "0x" + "zz" * 32}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": ["hello"]}, "messages[0]"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": "x", "weight": 1}]}, "messages[0].weight"),
        ({"messages": [{"role": "assistant", "content": "x", "tool_calls": [{}]}]}, "messages[0].tool_calls"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": 1 << 40}, "max_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 1e999}, "temperature"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"seed": 1 << 64}, "seed"),
        ({"seed": 0.5}, "seed"),
        ({"stop": 5}, "stop"),
        ({"stop": [5]}, "stop"),
        ({"stop": ""}, "stop"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": []}, "stream_options"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"stream_options": {"pace": 1}}, "stream_options.pace"),
        ({"max_token": 5}, "max_token"),
    ],
)
def test_chat_names_the_field_that_is_wrong(change: dict[str, object], param: str) -> None:
    assert refused({**CHAT, **change}).param == param


def test_chat_of_no_object_is_refused() -> None:
    assert refused([]).param == ""


def test_chat_seed_below_zero_is_one_of_its_own_and_top_p_of_zero_is_the_least() -> None:
    asked = read_chat({**CHAT, "seed": -1, "top_p": 0})

    assert asked.seed == (1 << 64) - 1
    assert asked.top_p == 1e-6


@pytest.mark.parametrize(
    ("prompt", "read"),
    [("Why?", "Why?"), (["Why?"], "Why?"), ([1, 2], (1, 2)), ([[1, 2]], (1, 2)), ("", "")],
)
def test_completion_reads_one_prompt_as_text_or_ids(prompt: object, read: object) -> None:
    asked = read_completion({**RAW, "prompt": prompt})

    assert (asked.prompt, asked.chat, asked.max_tokens) == (read, False, 16)


@pytest.mark.parametrize("prompt", [None, [], 5, {}, ["a", "b"], [[1], [2]], [[]], [1, "a"], [True], [1.5]])
def test_completion_of_no_prompt_or_several_is_refused(prompt: object) -> None:
    assert refused({**RAW, "prompt": prompt}, read_completion).param == "prompt"


@pytest.mark.parametrize(("field", "value"), [("echo", True), ("best_of", 2), ("suffix", "."), ("logprobs", 0)])
def test_completion_refuses_what_it_cannot_do_by_its_name(field: str, value: object) -> None:
    assert refused({**RAW, field: value}, read_completion).param == field


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff",
        b'{"a": NaN}',
        b'{"a": "\\ud800"}',
        b"[" * 200_000,
        b'{"a":' * 50_000,
        b"1" * 5_000,
        b'{"a": 1}\x00',
    ],
)
def test_json_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(BodyError):
        read_json(data)


def test_json_in_any_unicode_encoding_is_read() -> None:
    assert read_json('{"a": "ä"}'.encode("utf-16")) == {"a": "ä"}
