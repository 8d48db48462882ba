"""Reading GGUF files, good ones as the package `gguf` reads them, bad ones with a typed error."""

from __future__ import annotations

import contextlib
import tempfile
from functools import cache
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf.quants import dequantize
from hypothesis import given
from hypothesis import strategies as st
from tests.model.smollm2 import PATH
from tests.model.tiny import VOCABULARY, write_tiny

from plait_model.errors import GgufError, MalformedGgufError, ModelNotFoundError, UnsupportedModelError
from plait_model.gguf import GgufFile, find_embedded_model


@cache
def tiny_bytes() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return write_tiny(Path(folder) / "tiny.gguf").read_bytes()


def test_read_gives_what_the_gguf_package_gives(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf")
    reader = gguf.GGUFReader(path)

    with GgufFile.open(path) as file:
        assert {tensor.name for tensor in reader.tensors} == set(file.tensors)
        for tensor in reader.tensors:
            ours = file.read(tensor.name)
            theirs = dequantize(tensor.data, tensor.tensor_type).reshape(ours.shape)
            assert np.array_equal(ours, theirs)
        assert file.scalar("llama.block_count") == 2
        assert file.scalar("tokenizer.ggml.tokens") is None
        assert file.array("tokenizer.ggml.tokens") == VOCABULARY
        assert file.array("llama.block_count") is None


def test_open_of_the_embedded_model_reads_its_header() -> None:
    with GgufFile.open(PATH) as file:
        assert len(file.tensors) == 272
        assert file.tensors["blk.29.attn_k.weight"].dtype == "Q4_1"
        assert file.tensors["token_embd.weight"].shape == (49_152, 576)


def test_read_of_a_missing_tensor_raises() -> None:
    with GgufFile.open(PATH) as file, pytest.raises(UnsupportedModelError, match=r"blk\.30"):
        file.read("blk.30.attn_k.weight")


@given(st.data())
def test_open_of_a_damaged_header_raises_only_our_error(data: st.DataObject) -> None:
    good = tiny_bytes()
    at = data.draw(st.integers(0, 3_500))
    piece = data.draw(st.binary(min_size=1, max_size=8))
    bad = good[:at] + piece + good[at + len(piece) :]

    with tempfile.NamedTemporaryFile() as file:
        file.write(bad[: data.draw(st.integers(0, len(bad)))])
        file.flush()
        with contextlib.suppress(GgufError):
            GgufFile.open(Path(file.name)).close()


def test_open_of_a_file_without_its_last_byte_raises(tmp_path: Path) -> None:
    path = tmp_path / "short.gguf"
    path.write_bytes(tiny_bytes()[:-32])

    with pytest.raises(MalformedGgufError, match="fetch"):
        GgufFile.open(path)


def test_open_of_an_empty_file_raises(tmp_path: Path) -> None:
    path = tmp_path / "empty.gguf"
    path.touch()

    with pytest.raises(MalformedGgufError):
        GgufFile.open(path)


def test_open_of_no_file_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"give the path of a \.gguf file"):
        GgufFile.open(tmp_path / "none.gguf")


def test_find_embedded_model_of_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(ModelNotFoundError, match="smollm2-135m"):
        find_embedded_model("gpt-9")
