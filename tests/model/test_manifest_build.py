"""Manifest and tokenizer out of a GGUF file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.model.smollm2 import built, tokenizer
from tests.model.tiny import HIDDEN, write_tiny
from tokenizers import Tokenizer

from plait.protocol.ids import keccak
from plait.protocol.manifest import FP32_STRICT, Manifest, weights_root
from plait_model.errors import GgufError, MalformedGgufError, UnsupportedModelError
from plait_model.manifest_build import build_manifest


def test_build_manifest_of_the_embedded_model_names_its_facts() -> None:
    model = built()
    manifest = model.manifest

    assert (manifest.blocks, manifest.hidden, manifest.vocabulary, manifest.context) == (30, 576, 49_152, 8_192)
    assert (manifest.bos_token, manifest.eos_token, manifest.end_tokens) == ("<|im_start|>", "<|im_end|>", (2,))
    assert manifest.licence == "apache-2.0"
    assert manifest.profiles == (FP32_STRICT,)
    assert manifest.config["rms_norm_eps"] == 1e-5
    assert manifest.tokenizer == keccak(model.tokenizer_json)
    assert manifest.chat_template == keccak(model.chat_template.encode())
    assert manifest.weights == weights_root(model.tensors)
    assert len(model.tensors) == 272


def test_manifest_survives_its_own_json() -> None:
    manifest = built().manifest

    assert Manifest.from_json(manifest.to_json()).model_id == manifest.model_id


def test_build_manifest_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf")

    assert build_manifest(path) == build_manifest(path)


def test_build_manifest_of_other_weights_gives_another_id(tmp_path: Path) -> None:
    one = build_manifest(write_tiny(tmp_path / "one.gguf"))
    changed = {"blk.1.ffn_norm.weight": np.full(HIDDEN, 1.5, np.float32)}
    two = build_manifest(write_tiny(tmp_path / "two.gguf", changed=changed))

    assert one.manifest.name == "tiny-two"
    assert one.manifest.weights != two.manifest.weights
    assert one.manifest.model_id != two.manifest.model_id


def test_build_manifest_of_an_unknown_family_lists_the_known(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "mamba.gguf", architecture="mamba")

    with pytest.raises(UnsupportedModelError, match="llama"):
        build_manifest(path)


def test_build_manifest_without_a_template_raises(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf")
    path.write_bytes(path.read_bytes().replace(b"tokenizer.chat_template", b"tokenizer.chat_tempIate"))

    with pytest.raises(MalformedGgufError, match="chat_template"):
        build_manifest(path)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("<|im_start|>user\n", [1, 4093, 198]),
        ("a  123 b", [81, 256, 33, 34, 35, 278]),
        ("hello 9", [28120, 216, 41]),
        ("<|im_end|>\n", [2, 198]),
    ],
)
def test_tokenizer_splits_digits_and_keeps_specials_whole(text: str, ids: list[int]) -> None:
    assert tokenizer().encode(text).ids == ids


# The vocabulary has no token for some bytes that only rare planes of Unicode need (and for control characters).
@given(st.text(st.characters(exclude_categories=["Cc", "Cs"], max_codepoint=0x1FFFF)))
def test_tokenizer_gives_back_any_text(text: str) -> None:
    assert tokenizer().decode(tokenizer().encode(text).ids, skip_special_tokens=False) == text


def test_tokenizer_knows_the_whole_vocabulary() -> None:
    made = tokenizer()

    assert made.get_vocab_size() == built().manifest.vocabulary
    assert [made.token_to_id(token) for token in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")] == [0, 1, 2]
    assert isinstance(made, Tokenizer)


def test_errors_of_building_are_of_one_tree() -> None:
    assert issubclass(MalformedGgufError, GgufError)
    assert issubclass(UnsupportedModelError, GgufError)
