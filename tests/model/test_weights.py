"""Tensors of a range: restored as transformers restores them, checked against the manifest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf.quants import dequantize
from tests.model.smollm2 import PATH, built
from tests.model.tiny import HIDDEN, tensors, write_tiny
from transformers.modeling_gguf_pytorch_utils import LlamaTensorProcessor

from plait_model.errors import BlockRangeError, UnsupportedModelError, WeightsMismatchError
from plait_model.families import EMBEDDING, NORM, checked_config, family_of
from plait_model.gguf import GgufFile
from plait_model.layers import BlockRange
from plait_model.manifest_build import build_manifest
from plait_model.reference import load_reference
from plait_model.weights import block_tensors, check_tensors, range_names


def test_block_tensors_are_those_of_transformers_own_loader(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf")
    config = checked_config(build_manifest(path).manifest)
    theirs = LlamaTensorProcessor(config)

    with GgufFile.open(path) as file:
        ours = block_tensors(file, family_of("llama"), config, 1)
    raw = {tensor.name: dequantize(tensor.data, tensor.tensor_type) for tensor in gguf.GGUFReader(path).tensors}
    for name, word in family_of("llama").tensors.items():
        expected = theirs.process(raw[f"blk.1.{name}"], f"blk.1.{name}").weights
        assert np.array_equal(ours[word].numpy(), expected), name


def test_reference_of_a_range_is_the_whole_models(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = write_tiny(tmp_path / "tiny.gguf")
    model = build_manifest(path)
    whole = load_reference(path, model.manifest)
    ids = torch.randint(0, model.manifest.vocabulary, (1, 9))
    with GgufFile.open(path) as file:
        blocks = BlockRange(file, model.manifest, first=0, last=2)

    class Nothing:
        def update(
            self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int
        ) -> tuple[torch.Tensor, torch.Tensor]:
            return key_states, value_states

    with torch.inference_mode():
        rows = blocks.forward(blocks.embed(ids[0]), start=0, cache=Nothing())
        ours, theirs = blocks.logits(rows), whole(ids).logits[0]

    assert torch.allclose(ours, theirs, atol=1e-5)


def test_range_names_are_only_those_of_the_range() -> None:
    with GgufFile.open(PATH) as file:
        family = family_of("llama")
        middle = range_names(file, family, first=10, last=20, blocks=30)
        last = range_names(file, family, first=29, last=30, blocks=30)

    assert len(middle) == 90
    assert {name.split(".")[1] for name in middle} == {str(block) for block in range(10, 20)}
    assert set(last[-2:]) == {EMBEDDING, NORM}


@pytest.mark.parametrize(("first", "last"), [(-1, 3), (3, 3), (5, 4), (0, 31), (30, 31)])
def test_range_names_outside_the_model_raise(first: int, last: int) -> None:
    with GgufFile.open(PATH) as file, pytest.raises(BlockRangeError, match=r"\[0, 30\)"):
        range_names(file, family_of("llama"), first=first, last=last, blocks=30)


def test_check_tensors_of_the_right_file_passes() -> None:
    model = built()
    with GgufFile.open(PATH) as file:
        names = ["blk.3.attn_q.weight", NORM]
        check_tensors(file, names, tensors=model.tensors, root=model.manifest.weights)
        check_tensors(file, names, tensors=None, root=model.manifest.weights)


def test_check_tensors_of_a_file_with_one_bit_changed_raises(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf")
    model = build_manifest(path)
    with GgufFile.open(path) as file:
        at = file.tensors["blk.1.ffn_down.weight"].offset
    content = bytearray(path.read_bytes())
    content[at + 5] ^= 1
    path.write_bytes(content)

    with GgufFile.open(path) as file:
        for tensors_known in (model.tensors, None):
            with pytest.raises(WeightsMismatchError, match="fetch"):
                check_tensors(file, ["blk.1.ffn_down.weight"], tensors=tensors_known, root=model.manifest.weights)
        # The tensors of another range are still the manifest's.
        check_tensors(file, ["blk.0.ffn_down.weight"], tensors=model.tensors, root=model.manifest.weights)


def test_check_tensors_with_a_forged_list_raises() -> None:
    model = built()
    forged = (*model.tensors[:-1], replace(model.tensors[-1], sha256=bytes(32)))

    with GgufFile.open(PATH) as file, pytest.raises(WeightsMismatchError):
        check_tensors(file, [], tensors=forged, root=model.manifest.weights)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("blk.0.attn_q.weight", (HIDDEN, 32)), ("blk.0.ffn_up.weight", (32, HIDDEN)), (NORM, (32,))],
)
def test_block_range_of_tensors_that_do_not_fit_raises(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", changed={name: np.ones(shape, np.float32)})
    manifest = build_manifest(path).manifest

    with GgufFile.open(path) as file, pytest.raises(WeightsMismatchError):
        BlockRange(file, manifest, first=0, last=2)


@pytest.mark.parametrize("change", [{"blocks": 3}, {"hidden": 128}, {"config": {}}, {"architecture": "mamba"}])
def test_checked_config_of_a_manifest_that_contradicts_itself_raises(tmp_path: Path, change: dict[str, object]) -> None:
    manifest = build_manifest(write_tiny(tmp_path / "tiny.gguf")).manifest

    with pytest.raises(UnsupportedModelError):
        checked_config(replace(manifest, **change))


def test_tiny_model_has_its_own_head_when_the_file_has_one(tmp_path: Path) -> None:
    head = tensors(seed=7)[EMBEDDING]
    path = write_tiny(tmp_path / "tiny.gguf", changed={"output.weight": head})
    manifest = build_manifest(path).manifest

    assert manifest.config["tie_word_embeddings"] is False
    with GgufFile.open(path) as file:
        names = range_names(file, family_of("llama"), first=1, last=2, blocks=2)
        assert EMBEDDING not in names
        blocks = BlockRange(file, manifest, first=1, last=2)
        row = torch.randn(HIDDEN)
        expected = row / row.pow(2).mean().add(1e-5).sqrt() @ torch.as_tensor(file.read("output.weight")).T

    assert torch.allclose(blocks.logits(row), expected, atol=1e-5)
