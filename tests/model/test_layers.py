"""Ranges of blocks of every family, from every kind of file, against transformers' whole model."""

from __future__ import annotations

import atexit
import shutil
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from tests.folders import session_folder
from tests.model import tiny_families, tiny_gguf
from tests.model.tiny_families import PROMPT, write_family
from tests.model.tiny_gguf import CHANGED, write_gguf
from transformers import AutoModelForCausalLM

from plait_model.errors import BlockRangeError, UnsupportedModelError, WeightsMismatchError
from plait_model.layers import BlockRange, range_tensors
from plait_model.manifest_build import BuiltModel, build_manifest
from plait_model.reference import load_reference
from plait_model.source import open_weights

NEW = 20
FOLDERS = (*tiny_families.FAMILIES, *tiny_families.OTHERS)
CASES = [*((family, "folder") for family in FOLDERS), *((family, "gguf") for family in tiny_gguf.FAMILIES)]


class Kept:
    """A cache that grows: rows of each layer of a range, one behind the other."""

    def __init__(self) -> None:
        self.rows: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if layer_idx in self.rows:
            keys, values = self.rows[layer_idx]
            key_states, value_states = torch.cat((keys, key_states), 2), torch.cat((values, value_states), 2)
        self.rows[layer_idx] = key_states, value_states
        return key_states, value_states


@cache
def written(family: str, kind: str) -> tuple[Path, Path]:
    """Return the weights to load and the folder that transformers loads the same model from."""
    place = session_folder()
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    folder = write_family(place / "folder", family, changed=CHANGED.get(family) if kind == "gguf" else None)
    return (write_gguf(place / "tiny.gguf", folder, family) if kind == "gguf" else folder), folder


@cache
def built(family: str, kind: str) -> BuiltModel:
    return build_manifest(written(family, kind)[0])


@cache
def expected(family: str, kind: str) -> tuple[list[int], torch.Tensor]:
    """Return the greedy answer of transformers' whole model, loaded by transformers, and the prompt's logits."""
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(written(family, kind)[1], attn_implementation="sdpa").eval()
    prompt = torch.arange(5, 5 + PROMPT)[None]
    with torch.inference_mode():
        done = model.generate(prompt, do_sample=False, max_new_tokens=NEW, min_new_tokens=NEW, pad_token_id=0)
        return done[0, PROMPT:].tolist(), model(prompt).logits[0]


def ranges(family: str, kind: str, cuts: list[int]) -> list[BlockRange]:
    path, manifest = written(family, kind)[0], built(family, kind).manifest
    ends = [0, *cuts, manifest.blocks]
    with open_weights(path) as file:
        return [BlockRange(file, manifest, first=a, last=b) for a, b in pairwise(ends)]


def run(split: list[BlockRange], caches: list[Kept], ids: list[int], start: int) -> torch.Tensor:
    rows = split[0].embed(torch.tensor(ids))
    for blocks, kept in zip(split, caches, strict=True):
        rows = blocks.forward(rows, start=start, cache=kept)
    return split[-1].logits(rows)


@pytest.mark.parametrize("cuts", [[], [1], [1, 2], [3]], ids=str)
@pytest.mark.parametrize(("family", "kind"), CASES)
def test_splits_answer_as_transformers_whole_model(family: str, kind: str, cuts: list[int]) -> None:
    answer, logits = expected(family, kind)
    split = ranges(family, kind, cuts)
    caches = [Kept() for _ in split]
    prompt = list(range(5, 5 + PROMPT))

    with torch.inference_mode():
        # The prompt comes in two pieces, the second longer than one row.
        ours = [run(split, caches, prompt[:7], 0), run(split, caches, prompt[7:], 7)]
        assert torch.allclose(torch.cat(ours), logits, atol=2e-5)
        token = int(ours[1][-1].argmax())
        given = [token]
        for step in range(PROMPT, PROMPT + NEW - 1):
            token = int(run(split, caches, [token], step)[-1].argmax())
            given.append(token)

    # `generate` forbids the end token before NEW tokens; stop comparing where the model wanted it.
    end = given.index(2) if 2 in given else NEW
    assert end > 3
    assert given[:end] == answer[:end]


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_reference_is_transformers_whole_model(family: str, kind: str) -> None:
    _, logits = expected(family, kind)
    model = load_reference(written(family, kind)[0], built(family, kind).manifest)

    with torch.inference_mode():
        ours = model(torch.arange(5, 5 + PROMPT)[None]).logits[0]

    assert torch.allclose(ours, logits, atol=2e-5)


@pytest.mark.parametrize("family", FOLDERS)
def test_range_tensors_are_all_that_a_range_reads(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path, manifest = written(family, "folder")[0], built(family, "folder").manifest
    touched: set[str] = set()
    with open_weights(path) as file:
        kind = type(file)
        plain = kind._stored
        monkeypatch.setattr(kind, "_stored", lambda self, name: touched.add(name) or plain(self, name))
        for first, last in ((0, 1), (1, 3), (3, manifest.blocks)):
            touched.clear()
            BlockRange(file, manifest, first=first, last=last)
            assert touched == set(range_tensors(file, manifest, first=first, last=last))
    assert not any(name.startswith("model.layers.0.") for name in touched)


@pytest.mark.parametrize(("first", "last"), [(-1, 2), (2, 2), (3, 2), (0, 5)])
def test_block_range_that_does_not_exist_raises(first: int, last: int) -> None:
    manifest = built("llama", "folder").manifest

    with open_weights(written("llama", "folder")[0]) as file, pytest.raises(BlockRangeError, match=r"\[0, 4\)"):
        BlockRange(file, manifest, first=first, last=last)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ({"embedding_multiplier": 2.0}, "embeddings"),
        ({"logits_scaling": 8.0}, "logits"),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, "dynamic"),
    ],
)
def test_build_manifest_of_granite_with_more_than_layers_is_refused(
    tmp_path: Path, words: dict[str, object], named: str
) -> None:
    folder = write_family(tmp_path / "granite", "granite", changed=words)

    with pytest.raises(UnsupportedModelError, match=f"granite.*{named}"):
        build_manifest(folder)


def test_granite_multipliers_within_layers_run(tmp_path: Path) -> None:
    words = {"residual_multiplier": 0.5, "attention_multiplier": 0.3}
    folder = write_family(tmp_path / "granite", "granite", changed=words)
    manifest = build_manifest(folder).manifest
    whole = AutoModelForCausalLM.from_pretrained(folder).eval()

    with open_weights(folder) as file, torch.inference_mode():
        blocks = BlockRange(file, manifest, first=0, last=4)
        ours = run([blocks], [Kept()], [5, 6, 7], 0)
        assert torch.allclose(ours, whole(torch.tensor([[5, 6, 7]])).logits[0], atol=2e-5)


def test_manifest_whose_whole_config_contradicts_it_is_refused() -> None:
    manifest = built("olmo2", "folder").manifest
    with open_weights(written("olmo2", "folder")[0]) as file:
        for changed in ({"blocks": 3}, {"context": 64}, {"architecture": "phi3"}):
            with pytest.raises(UnsupportedModelError, match="contradicts"):
                BlockRange(file, replace(manifest, **changed), first=0, last=1)


def test_mis_shaped_tensor_is_named(tmp_path: Path) -> None:
    manifest = built("llama", "folder").manifest
    wider = write_family(tmp_path / "wider", "llama", changed={"intermediate_size": 128})

    with (
        open_weights(wider) as file,
        pytest.raises(WeightsMismatchError, match=r"mlp.*block 1.*\(128, 64\).*\(96, 64\)"),
    ):
        BlockRange(file, manifest, first=1, last=2)


def test_missing_tensor_is_named() -> None:
    path, manifest = written("qwen3", "folder")[0], built("llama", "folder").manifest

    with open_weights(written("phi3", "folder")[0]) as file, pytest.raises(UnsupportedModelError, match=r"q_proj"):
        BlockRange(file, manifest, first=1, last=2)
    with open_weights(path) as file, pytest.raises(UnsupportedModelError, match="mamba"):
        BlockRange(file, replace(manifest, architecture="mamba"), first=0, last=1)
