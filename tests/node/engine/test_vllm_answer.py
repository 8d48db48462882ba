"""Whatever a server sends, reading it ends in ids or in an error of ours."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator

from hypothesis import given
from hypothesis import strategies as st

from plait_node.engine.errors import EngineError
from plait_node.engine.vllm.answer import Answer, events

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
KEYS = st.sampled_from(["index", "token_ids", "logprobs", "finish_reason", "prompt_token_ids"])
CHOICE = st.dictionaries(KEYS, JSON | st.just(0) | st.lists(st.integers(-1, 12), max_size=3)) | JSON


def answer() -> Answer:
    return Answer(prompt=[1], max_tokens=4, vocabulary=10, end_tokens=frozenset({9}))


@given(st.lists(CHOICE, max_size=2) | JSON)
def test_take_gives_ids_of_the_vocabulary_or_an_engine_error(choices: object) -> None:
    made = answer()
    with contextlib.suppress(EngineError):
        ids = made.take(json.dumps({"choices": choices}).encode())
        assert all(0 <= one < 10 for one in ids)
        assert made.tokens == len(ids) <= 4


@given(st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode()))
def test_take_of_anything_raises_nothing_but_engine_errors(data: bytes) -> None:
    with contextlib.suppress(EngineError):
        assert answer().take(data) == []


@given(st.lists(st.binary(max_size=20), max_size=10))
async def test_events_are_the_same_however_the_bytes_are_cut(pieces: list[bytes]) -> None:
    async def whole() -> AsyncIterator[bytes]:
        yield b"".join(pieces)

    async def cut() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    assert [one async for one in events(cut(), limit=1_000)] == [one async for one in events(whole(), limit=1_000)]
