from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.sdk.swarm import END, START, TEMPLATE, manifest, tokenizer, tokenizer_json
from transformers.utils.chat_template_utils import render_jinja_template

from plait.protocol.errors import ManifestError, TokenizerError
from plait.protocol.tokens import ChatTokenizer

SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
BLOCKS = """
{%- for message in messages %}
    {% if message.role == 'user' %}
        [{{ message.content | trim | tojson }}]
    {% else %}{% continue %}
    {% endif %}
{% endfor %}
{% set ns = namespace(found=false) %}{% if not ns.found %}{{ eos_token }}{% endif %}
"""
CHATS = [
    [{"role": "user", "content": "Hello <b>& é</b>"}],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": " a "},
        {"role": "assistant", "content": "b"},
    ],
]


@pytest.mark.parametrize("template", [SMOLLM2, BLOCKS, TEMPLATE])
@pytest.mark.parametrize("chat", CHATS)
def test_render_any_template_agrees_with_transformers(template: str, chat: list[dict[str, str]]) -> None:
    mine = ChatTokenizer(tokenizer_json(), template, bos_token="<s>", eos_token="</s>").render_text(chat)
    theirs, _ = render_jinja_template(
        [chat], chat_template=template, add_generation_prompt=True, bos_token="<s>", eos_token="</s>"
    )
    assert mine == theirs[0]


def test_render_strftime_now_uses_the_given_clock() -> None:
    words = ChatTokenizer(
        tokenizer_json(), "{{ strftime_now('%d %b %Y') }}", now=lambda: datetime(2026, 2, 3, tzinfo=UTC)
    )
    assert words.render_text([]) == "03 Feb 2026"


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('roles must alternate') }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ 'a' * 1000000000 }}",
        "{{ 9 ** 9 ** 9 }}",
        "{% for i in range(100001) %}x{% endfor %}",
        "{% for i in range(100000) %}{% for j in range(100) %}{{ messages[0].content }}{% endfor %}{% endfor %}",
        "{{ messages[9].content }}",
    ],
)
def test_render_hostile_template_raises_tokenizer_error(template: str) -> None:
    words = ChatTokenizer(tokenizer_json(), template)
    with pytest.raises(TokenizerError):
        words.render_text([{"role": "user", "content": "x" * 100}])


def test_tokenizer_garbage_or_oversized_files_refuse() -> None:
    for made in (
        lambda: ChatTokenizer(b"{}", TEMPLATE),
        lambda: ChatTokenizer(b"\xff", TEMPLATE),
        lambda: ChatTokenizer(tokenizer_json(), "{% if %}"),
        lambda: ChatTokenizer(tokenizer_json(), "x" * 70_000),
    ):
        with pytest.raises(TokenizerError):
            made()


def test_tokenizer_other_files_than_the_manifests_refuse() -> None:
    with pytest.raises(ManifestError):
        ChatTokenizer.of(manifest(), tokenizer_json=tokenizer_json(), chat_template=TEMPLATE.encode() + b" ")
    with pytest.raises(ManifestError):
        ChatTokenizer.of(manifest(), tokenizer_json=tokenizer_json() + b" ", chat_template=TEMPLATE.encode())


def test_render_special_words_become_special_tokens() -> None:
    ids = tokenizer().render([{"role": "user", "content": "hi"}])
    assert ids[0] == START
    assert ids.count(END) == 1
    assert tokenizer().decode(ids) == "user\nhi\nassistant\n"


def test_decode_id_outside_any_range_raises_or_skips() -> None:
    assert tokenizer().decode([70_000]) == ""
    with pytest.raises(TokenizerError):
        tokenizer().decode([-1])


@given(st.text(max_size=40), st.lists(st.integers(1, 5), max_size=60))
def test_incremental_any_cut_joins_to_the_whole(text: str, cuts: list[int]) -> None:
    words = tokenizer()
    ids = words.encode(text)
    stream, pieces, at = words.stream(), [], 0
    for cut in [*cuts, len(ids)]:
        pieces.append(stream.push(ids[at : at + cut]))
        at += cut
    pieces.append(stream.finish())
    assert "".join(pieces) == words.decode(ids) == text
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(pieces[:-1]) or "\N{REPLACEMENT CHARACTER}" in text


def test_incremental_half_a_letter_is_held_back() -> None:
    words = tokenizer()
    first, second = words.encode("é")
    stream = words.stream()
    assert stream.push([first]) == ""
    assert stream.push([second]) == "é"
    assert stream.finish() == ""
