"""A file of weights without weights: what it is made of is checked, and the readers take it for what it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from plait.protocol.manifest import Tensor
from plait_model.blank import blank, block_of, needed
from plait_model.errors import UnsupportedModelError
from plait_model.source import open_weights

HASH = bytes(32)


def tensor(name: str, dtype: str, *shape: int) -> Tensor:
    return Tensor(name=name, dtype=dtype, shape=shape, sha256=HASH)


GGUF = [tensor("blk.0.attn_q.weight", "Q4_1", 3, 64), tensor("output_norm.weight", "F32", 5), tensor("x", "F16", 2, 32)]
SAFETENSORS = [tensor("model.layers.0.mlp.weight", "BF16", 3, 7), tensor("lm_head.weight", "F32", 2, 2)]


@pytest.mark.parametrize("tensors", [GGUF, SAFETENSORS])
def test_blank_file_has_a_place_for_every_tensor(tmp_path: Path, tensors: list[Tensor]) -> None:
    made = blank(tensors)
    path = tmp_path / f"weights{made.kind}"
    with path.open("wb") as file:
        file.write(made.head)
        file.truncate(made.size)
    with path.open("r+b") as file:
        for number, (offset, size) in enumerate(made.places.values(), 1):
            file.seek(offset)
            file.write(bytes([number]) * size)
    with open_weights(path) as weights:
        assert set(weights.tensors) == {each.name for each in tensors}
        for number, each in enumerate(tensors, 1):
            described = weights.describe(each.name)
            assert (described.dtype, described.shape) == (each.dtype, each.shape)
            size = made.places[each.name][1]
            assert weights.size(each.name) == size
            assert weights.piece(each.name, 0, 1 << 30) == bytes([number]) * size
            assert weights.piece(each.name, 1, 3) == bytes([number]) * 2


@pytest.mark.parametrize(
    "bad",
    [
        tensor("x", "Q4_1", 3, 63),
        tensor("x", "F99", 1),
        tensor("x", "F32"),
        tensor("x", "F32", -1),
        tensor("x", "F32", 1 << 62),
        tensor("x", "F32", 1 << 30, 1 << 30),
        tensor("model.x", "F99", 1),
    ],
)
def test_blank_of_what_no_file_can_have_is_refused(bad: Tensor) -> None:
    with pytest.raises(UnsupportedModelError):
        blank([bad])


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("blk.12.ffn.weight", 12),
        ("model.layers.3.x", 3),
        ("output.weight", None),
        ("blk.x.y", None),
        ("blk.\u0663.y", None),
    ],
)
def test_block_is_read_from_the_name(name: str, block: int | None) -> None:
    assert block_of(name) == block


def test_needed_of_a_model_with_a_head_of_its_own_leaves_the_embedding_to_the_first_stage() -> None:
    names = ("token_embd.weight", "output.weight", "output_norm.weight", "blk.0.a", "blk.1.a")
    tensors = [tensor(name, "F32", 1) for name in names]
    first, last = [[each.name for each in needed(tensors, first=at, last=at + 1, blocks=2)] for at in (0, 1)]
    assert first == ["token_embd.weight", "blk.0.a"]
    assert last == ["output.weight", "output_norm.weight", "blk.1.a"]
