"""Gemma 3 270M as its GGUF file has it: tokenizer, text, and ranges against the whole model."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.model.test_layers import Kept, run
from tokenizers import Tokenizer

from plait.protocol.tokens import ChatTokenizer
from plait_model.errors import MalformedGgufError
from plait_model.gguf import EMBEDDED_MODELS, _joined, find_embedded_model
from plait_model.layers import BlockRange
from plait_model.manifest_build import BuiltModel, build_manifest
from plait_model.reference import load_reference
from plait_model.source import open_weights

NAME = "gemma3-270m"
# Ends with what the model is sure of.
PROMPT = "Water boils at a temperature of"
ANSWER = " 100 degrees Celsius."


@cache
def built() -> BuiltModel:
    return build_manifest(find_embedded_model(NAME), name=NAME, chat_template=EMBEDDED_MODELS[NAME].chat_template)


@cache
def tokenizer() -> Tokenizer:
    return Tokenizer.from_str(built().tokenizer_json.decode())


@cache
def chat() -> ChatTokenizer:
    model = built()
    return ChatTokenizer.of(
        model.manifest, tokenizer_json=model.tokenizer_json, chat_template=model.chat_template.encode()
    )


def test_manifest_of_gemma_names_its_facts() -> None:
    manifest = built().manifest

    assert (manifest.architecture, manifest.licence, manifest.name) == ("gemma3", "gemma", NAME)
    assert (manifest.blocks, manifest.hidden, manifest.vocabulary, manifest.context) == (18, 640, 262_144, 32_768)
    assert (manifest.bos_token, manifest.eos_token, manifest.end_tokens) == ("<bos>", "<eos>", (1,))
    assert manifest.config["layer_types"] == "sssssf" * 3
    assert len(built().tensors) == 236


# Known ids of Gemma 3's tokenizer.
@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("Hello world", [9259, 1902]),
        ("The quick brown fox", [818, 3823, 8864, 37423]),
        ("<start_of_turn>user\nHi<end_of_turn>", [105, 2364, 107, 10979, 106]),
        ("a\n\nb", [236746, 108, 236763]),
        ("  two", [138, 13498]),
        ("123", [236770, 236778, 236800]),
    ],
)
def test_tokenizer_gives_known_ids(text: str, ids: list[int]) -> None:
    assert tokenizer().encode(text, add_special_tokens=False).ids == ids


# The file's decoder writes every lower block as a space: that character does not survive.
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\u2581"), max_size=60))
def test_tokenizer_gives_back_any_text(text: str) -> None:
    ids = tokenizer().encode(text, add_special_tokens=False).ids

    assert tokenizer().decode(ids, skip_special_tokens=False) == text


def test_tokenizer_knows_the_whole_vocabulary() -> None:
    assert tokenizer().get_vocab_size() == built().manifest.vocabulary


def test_template_of_a_base_model_is_its_messages() -> None:
    assert chat().render_text([{"role": "user", "content": PROMPT}]) == f"<bos>{PROMPT}"


def test_ranges_say_what_the_whole_model_says() -> None:
    torch.set_num_threads(1)
    path, manifest = find_embedded_model(NAME), built().manifest
    prompt = chat().render([{"role": "user", "content": PROMPT}])
    assert prompt[0] == 2
    wanted = chat().encode(ANSWER)
    with torch.inference_mode():
        whole = load_reference(path, manifest)
        expected = whole(torch.tensor([prompt + wanted])).logits[0, len(prompt) - 1 :]
        del whole
        with open_weights(path) as file:
            split = [BlockRange(file, manifest, first=a, last=b) for a, b in ((0, 7), (7, 18))]
        caches = [Kept(), Kept()]
        rows = [run(split, caches, prompt, 0)[-1]]
        rows += [run(split, caches, [token], len(prompt) + index)[0] for index, token in enumerate(wanted)]

    given_tokens = [int(row.argmax()) for row in rows]
    assert chat().decode(given_tokens[: len(wanted)]) == ANSWER
    assert given_tokens == expected.argmax(-1).tolist()
    assert torch.allclose(torch.stack(rows), expected, atol=2e-3)


def test_parts_are_joined_once_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    parts = [tmp_path / "a.part0", tmp_path / "a.part1"]
    parts[0].write_bytes(b"one ")
    parts[1].write_bytes(b"two")

    made = _joined("a", parts, hashlib.sha256(b"one two").hexdigest())

    assert made.read_bytes() == b"one two"
    before = made.stat().st_mtime_ns
    assert _joined("a", parts, hashlib.sha256(b"one two").hexdigest()) == made
    assert made.stat().st_mtime_ns == before
    with pytest.raises(MalformedGgufError, match="install"):
        _joined("a", parts, "00" * 32)
    assert [path.name for path in made.parent.iterdir()] == [made.name]
