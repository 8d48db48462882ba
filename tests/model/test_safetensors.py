"""Reading safetensors: good files as the package `safetensors` reads them, bad ones with a typed error."""

from __future__ import annotations

import contextlib
import json
import struct
import tempfile
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tests.model.tiny import write_tiny
from tests.model.tiny_families import write_family

from plait_model.errors import (
    MalformedFolderError,
    MalformedGgufError,
    ModelError,
    ModelNotFoundError,
    UnsupportedModelError,
)
from plait_model.gguf import GgufFile
from plait_model.safetensors_folder import INDEX, SINGLE, SafetensorsFolder
from plait_model.source import open_weights


def raw(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype: str = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@cache
def good() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.safetensors"
        save_file({"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}, path)
        return path.read_bytes()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_read_gives_what_safetensors_gives(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "one.safetensors"
    given_tensors = {
        "w": torch.randn(7, 5).to(dtype),
        "n": torch.randn(3).to(dtype),
        "empty": torch.zeros(0, 4).to(dtype),
    }
    save_file(given_tensors, path)

    with SafetensorsFolder.open(path) as file:
        for name, tensor in given_tensors.items():
            assert np.array_equal(file.read(name), tensor.float().numpy())
            for wanted in (dtype, torch.float32, torch.bfloat16):
                assert torch.equal(file.read_torch(name, wanted), tensor.to(wanted))
            assert file.shape(name) == tuple(tensor.shape)
            described = file.describe(name)
            assert described.sha256 == sha256(tensor.contiguous().view(torch.uint8).numpy().tobytes()).digest()
            assert described.dtype == {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}[str(dtype)[6:]]
        assert [tensor.name for tensor in file.list_tensors()] == ["empty", "n", "w"]
        assert file.naming == "transformers"


def test_shards_are_one_model_and_hash_like_one_file(tmp_path: Path) -> None:
    one = write_family(tmp_path / "one", "qwen3")
    many = write_family(tmp_path / "many", "qwen3", shard="100KB")
    assert len(list(many.glob("*.safetensors"))) > 2

    with open_weights(one) as whole, open_weights(many) as sharded:
        assert whole.list_tensors() == sharded.list_tensors()
        for name, tensor in load_file(one / SINGLE).items():
            assert torch.equal(sharded.read_torch(name, torch.float32), tensor)


def test_gguf_gives_tensors_in_a_type_without_a_whole_fp32_copy(tmp_path: Path) -> None:
    with open_weights(write_tiny(tmp_path / "tiny.gguf")) as file:
        assert isinstance(file, GgufFile)
        for name in ("token_embd.weight", "output_norm.weight", "blk.1.ffn_down.weight"):
            expected = torch.as_tensor(file.read(name)).to(torch.bfloat16)
            assert torch.equal(file.read_torch(name, torch.bfloat16), expected)
            assert file.shape(name) == tuple(expected.shape)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"1234567", "first 8 bytes"),
        (raw({}, length=2**63), "header"),
        (raw({}, length=3), "header"),
        (raw(b"{"), "no JSON"),
        (raw(b"[]"), "no JSON object"),
        (raw(b"\xff\xff"), "no JSON"),
        (raw(b"[" * 100_000), "no JSON"),
        (raw(b'{"a":{},"a":{}}'), "twice"),
        (raw({"a": 3}), "tensor a"),
        (raw({"a": entry(shape=[-2])}, bytes(8)), "tensor a"),
        (raw({"a": entry(shape=[True, 2])}, bytes(8)), "tensor a"),
        (raw({"a": entry(shape=[1] * 9)}, bytes(8)), "tensor a"),
        (raw({"a": entry(offsets=[0])}, bytes(8)), "tensor a"),
        (raw({"a": entry(offsets=[8, 0])}, bytes(8)), "outside"),
        (raw({"a": entry(offsets=[0, 2**62])}, bytes(8)), "outside"),
        (raw({"a": entry(shape=[3])}, bytes(8)), "does not have 8 bytes"),
        (raw({"a": entry(shape=[2**62, 2**62])}, bytes(8)), "does not have 8 bytes"),
        (raw({"a": entry(), "b": entry()}, bytes(8)), "does not begin"),
        (raw({"a": entry(offsets=[4, 12])}, bytes(12)), "does not begin"),
        (raw({"a": entry()}, bytes(9)), "belong to no tensor"),
    ],
)
def test_open_of_a_hostile_file_says_what_is_wrong(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)

    with pytest.raises(MalformedFolderError, match=said):
        open_weights(path)


@given(st.data())
def test_open_of_a_damaged_file_raises_only_our_error(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(good())))
    piece = data.draw(st.binary(min_size=1, max_size=8))
    bad = good()[:at] + piece + good()[at + len(piece) :]

    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        file.write(bad[: data.draw(st.integers(0, len(bad)))])
        file.flush()
        with contextlib.suppress(ModelError):
            SafetensorsFolder.open(Path(file.name)).close()


def test_types_that_are_no_weights_can_be_listed_but_not_read(tmp_path: Path) -> None:
    path = tmp_path / "odd.safetensors"
    path.write_bytes(raw({"a": entry("I64", [1])}, bytes(8)))

    with open_weights(path) as file:
        assert file.list_tensors()[0].dtype == "I64"
        with pytest.raises(UnsupportedModelError, match=r"tensor a.*I64.*convert"):
            file.read("a")
    path.write_bytes(raw({"a": entry("F4")}, bytes(8)))
    with pytest.raises(UnsupportedModelError, match="F4"):
        open_weights(path)


@pytest.mark.parametrize(
    "name", ["../model.safetensors", "/etc/x.safetensors", "a/b.safetensors", "..", "a\\b.safetensors", "x.bin", 3, ""]
)
def test_index_that_leaves_the_folder_is_refused(tmp_path: Path, name: object) -> None:
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": name}}))
    (tmp_path.parent / SINGLE).write_bytes(good())

    with pytest.raises(MalformedFolderError, match="no file of the folder"):
        open_weights(tmp_path)


@pytest.mark.parametrize("index", ["[]", "{", "{}", '{"weight_map": []}', '{"weight_map": {}}'])
def test_index_without_a_map_is_refused(tmp_path: Path, index: str) -> None:
    (tmp_path / INDEX).write_text(index)

    with pytest.raises(MalformedFolderError, match="index"):
        open_weights(tmp_path)


def test_index_that_contradicts_its_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "one.safetensors").write_bytes(good())
    for listed in ({"a": "one.safetensors"}, {"a": "one.safetensors", "b": "one.safetensors", "c": "one.safetensors"}):
        (tmp_path / INDEX).write_text(json.dumps({"weight_map": listed}))
        with pytest.raises(MalformedFolderError, match="does not list"):
            open_weights(tmp_path)
    (tmp_path / "two.safetensors").write_bytes(good())
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}))
    with pytest.raises(MalformedFolderError, match="in two files"):
        open_weights(tmp_path)
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": "gone.safetensors"}}))
    with pytest.raises(ModelNotFoundError, match="gone"):
        open_weights(tmp_path)


def test_folder_without_weights_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"\.gguf"):
        open_weights(tmp_path)
    with pytest.raises(ModelNotFoundError, match="cannot open"):
        open_weights(tmp_path / "none.safetensors")
    (tmp_path / "x.gguf").touch()
    with pytest.raises(MalformedGgufError):
        open_weights(tmp_path / "x.gguf")


def test_closed_file_reads_no_more(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(good())
    with SafetensorsFolder.open(path) as file:
        kept = file.read("a")

    assert kept.sum() == 15
    with pytest.raises(ValueError, match="closed"):
        file.read("a")
