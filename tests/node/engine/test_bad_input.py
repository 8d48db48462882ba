"""What a stage answers to models, ranges, prompts and memory that are not as they should be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.model.tiny_families import FAMILIES, write_family

from plait.protocol.ids import Hash, keccak
from plait.protocol.manifest import weights_root
from plait_model.errors import BlockRangeError, ModelError, UnsupportedModelError, WeightsMismatchError
from plait_model.families import family_of
from plait_model.manifest_build import BuiltModel, build_manifest
from plait_model.source import open_weights
from plait_node.engine import Lane, StageEngine, StepInput, StepOutput
from plait_node.engine.errors import NoMemoryError, NoRoomError, NumericsError
from plait_node.engine.evidence import Evidence, EvidenceLog
from plait_node.engine.faces import Blocks, Span
from plait_node.engine.passes import Piece, run_pass

A, B, C = (keccak(bytes([number])) for number in range(3))
NAME = "model.layers.2.mlp.up_proj.weight"


def made(path: Path, family: str = "llama") -> tuple[Path, BuiltModel]:
    folder = write_family(path / family, family)
    return folder, build_manifest(folder)


def change(folder: Path, name: str, tensor: torch.Tensor | None) -> None:
    """Put another tensor into the file, or none."""
    file = folder / "model.safetensors"
    held = load_file(file)
    held.pop(name)
    save_file(held if tensor is None else {**held, name: tensor.contiguous()}, file, metadata={"format": "pt"})


def load(folder: Path, built: BuiltModel, first: int = 0, last: int = 4, *, listed: bool = True) -> StageEngine:
    tensors = built.tensors if listed else None
    lane = Lane(compiled=False)
    return StageEngine(folder, built.manifest, first=first, last=last, kv_steps=256, tensors=tensors, lane=lane)


def ids(job: Hash, *tokens: int, start: int = 0, logits: int = 1) -> StepInput:
    return StepInput(job=job, start=start, rows=np.array(tokens, dtype=np.int64), logits=logits)


def test_architecture_that_is_not_supported_is_named_with_those_that_are() -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        family_of("rwkv9")

    assert "rwkv9" in str(caught.value)
    assert all(family in str(caught.value) for family in FAMILIES)


@pytest.mark.parametrize("architecture", ["rwkv9", "mamba2"])
def test_stage_of_an_unknown_architecture_is_refused_by_name(tmp_path: Path, architecture: str) -> None:
    folder, built = made(tmp_path)
    built = replace(built, manifest=replace(built.manifest, architecture=architecture))

    with pytest.raises(ModelError, match=architecture) as caught:
        load(folder, built)

    assert all(family in str(caught.value) for family in FAMILIES)


def test_missing_tensor_is_named(tmp_path: Path) -> None:
    folder, built = made(tmp_path)
    change(folder, NAME, None)

    with pytest.raises(ModelError, match=NAME):
        load(folder, built)
    load(folder, built, 0, 2)  # of which it is no part


def test_corrupt_tensor_is_named(tmp_path: Path) -> None:
    folder, built = made(tmp_path)
    file = folder / "model.safetensors"
    tensor = load_file(file)[NAME].clone()
    tensor[0, 0] += 1e-3
    change(folder, NAME, tensor)

    with pytest.raises(WeightsMismatchError, match=NAME):
        load(folder, built)


def test_mis_shaped_tensor_is_named(tmp_path: Path) -> None:
    folder, built = made(tmp_path)
    change(folder, NAME, load_file(folder / "model.safetensors")[NAME].T)

    with pytest.raises(WeightsMismatchError, match=NAME):
        load(folder, built)


@pytest.mark.parametrize("name", [NAME, "model.layers.1.self_attn.k_proj.weight", "model.embed_tokens.weight"])
@pytest.mark.parametrize("word", ["cut", "turned"])
def test_tensor_that_the_publisher_mis_shaped_is_named(tmp_path: Path, name: str, word: str) -> None:
    """Hash and list are right, for the publisher made them: the config alone shows what is wrong."""
    folder, built = made(tmp_path)
    tensor = load_file(folder / "model.safetensors")[name]
    change(folder, name, tensor[:-1] if word == "cut" else tensor.T)
    listed = build_list(folder)
    built = replace(built, manifest=replace(built.manifest, weights=listed))

    with pytest.raises(WeightsMismatchError, match=name):
        load(folder, built, listed=False)


def build_list(folder: Path) -> Hash:
    with open_weights(folder) as file:
        return weights_root(file.list_tensors())


@pytest.mark.parametrize(("first", "last"), [(-1, 2), (0, 5), (4, 5), (2, 2), (3, 1)])
def test_range_that_the_model_does_not_have_is_refused(tmp_path: Path, first: int, last: int) -> None:
    folder, built = made(tmp_path)

    with pytest.raises(BlockRangeError, match=r"\[0, 4\)"):
        load(folder, built, first, last)


def test_prompt_beyond_the_context_is_refused_with_the_limit(tmp_path: Path) -> None:
    engine = load(*made(tmp_path))

    with pytest.raises(NoRoomError, match="128 fit") as caught:
        engine.open(A, 129)
    assert caught.value.limit == engine.manifest.context == 128

    engine.open(A, 8)
    (answer,) = engine.step([ids(A, *range(9))])
    assert isinstance(answer, NoRoomError)
    assert answer.limit == 8


class Scarce:
    """Blocks with memory for passes of a few rows."""

    def __init__(self, blocks: Blocks, most: int) -> None:
        self._blocks, self._most, self.kv = blocks, most, blocks.kv

    def forward(self, given: torch.Tensor, spans: Sequence[Span]) -> torch.Tensor:
        if len(given) > self._most:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: 9 GB")
        return self._blocks.forward(given, spans)

    def logits(self, rows: torch.Tensor) -> torch.Tensor:
        return self._blocks.logits(rows)


class Rows:
    """Ids of one job that must be computed in one pass, or may wait."""

    def __init__(self, job: Hash, tokens: Sequence[int], *, whole: bool) -> None:
        self.job, self.tokens, self.whole = job, tokens, whole
        self.step, self.count = 0, len(tokens)

    def given(self, first: int, last: int) -> StepInput:
        return ids(self.job, *self.tokens[first:last], start=first)

    def made(self, given: StepInput, output: StepOutput) -> int:
        assert output.logits is not None
        return len(given.rows)


def passed(engine: StageEngine, *works: Rows) -> list[Piece]:
    for work in works:
        engine.open(work.job, 64)
    pieces = [Piece(work=work, first=0, last=work.count) for work in works]
    run_pass(engine, pieces)
    return pieces


def test_pass_without_memory_refuses_that_job_alone(tmp_path: Path) -> None:
    whole = load(*made(tmp_path))
    engine = StageEngine.over(
        Scarce(whole.blocks, 16), whole.manifest, first=0, last=4, kv_steps=256, lane=Lane(compiled=False)
    )

    small, large, prompt = passed(
        engine,
        Rows(A, range(5), whole=True),
        Rows(B, range(20), whole=True),
        Rows(C, range(64), whole=False),
    )

    assert small.made == 5
    assert isinstance(large.error, NoMemoryError)
    assert "kv_steps" in str(large.error)
    assert (prompt.error, prompt.made) == (None, 16)  # half of half its rows; the others wait
    assert [len(engine.export_inputs(job)) for job in (A, C)] == [5, 16]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("best", [False, True])
def test_nan_made_of_one_jobs_rows_fails_it_alone_and_leaves_evidence(
    tmp_path: Path, *, compiled: bool, best: bool
) -> None:
    folder, built = made(tmp_path)
    lane = Lane(compiled=compiled)
    engine = StageEngine(folder, built.manifest, first=0, last=4, kv_steps=256, tensors=built.tensors, lane=lane)
    if (wait := getattr(engine.blocks, "wait", None)) is not None:
        wait()
    for job in (A, B, C):
        engine.open(job, 16)
    engine.step([ids(B, 5, 6, 7)])
    _spoil(engine, 9)

    answers = engine.step(
        [
            replace(ids(A, 3, 4), best=best),
            replace(ids(B, 9, start=3), best=best),
            replace(ids(C, 5, 6), best=best),
        ]
    )

    right, wrong, other = answers
    assert isinstance(wrong, NumericsError)
    for answer in (right, other):
        assert isinstance(answer, StepOutput)
        assert np.isfinite(answer.rows).all()
    (kept,) = engine.evidence
    assert (kept.job, kept.start, kept.first, kept.last, kept.lane) == (B, 3, 0, 4, lane)
    assert kept.rows.tolist() == [5, 6, 7, 9]
    assert isinstance(engine.step([ids(B, 8, start=3)])[0], StepOutput)  # the failed row was never taken


def _spoil(engine: StageEngine, token: int) -> None:
    """Break the embedding of one id, as a fault of memory would."""
    blocks = getattr(engine.blocks, "_lean", engine.blocks)
    blocks.weights.embedding.weight[token] = torch.nan


def test_nan_or_infinity_in_the_head_alone_fails_the_job(tmp_path: Path) -> None:
    for value in (torch.nan, torch.inf):
        engine = load(*made(tmp_path, "qwen3"))
        engine.blocks.weights.head.weight[17] = value  # pyright: ignore[reportAttributeAccessIssue]  the lean decoder
        engine.open(A, 16)

        (answer,) = engine.step([ids(A, 3, 4)])

        assert isinstance(answer, NumericsError)
        assert engine.evidence.of(A) is not None


def test_evidence_is_bounded_and_can_be_written(tmp_path: Path) -> None:
    log = EvidenceLog()
    for number in range(40):
        log.add(_evidence(number, np.arange(number, dtype=np.int64)))
    assert [kept.start for kept in log] == list(range(24, 40))
    assert log.of(_job(39)) is not None
    assert log.of(_job(3)) is None

    for number in range(3):
        log.add(_evidence(number, np.zeros((1_024, 10_240), dtype=np.float32)))  # 42 MB
    assert [kept.start for kept in log] == [2]

    path = _evidence(7, np.arange(7, dtype=np.int64)).write(tmp_path / "evidence")
    held = np.load(path)
    assert held["job"].tobytes() == _job(7)
    assert (held["start"], held["rows"].tolist(), held["blocks"].tolist()) == (7, list(range(7)), [1, 3])


def _job(number: int) -> Hash:
    return keccak(bytes([number]))


def _evidence(number: int, rows: np.ndarray) -> Evidence:
    return Evidence(job=_job(number), start=number, rows=rows, first=1, last=3, lane=Lane())
