"""The best id of a row is where its logits are greatest, and a NaN is one job's fault."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.node.engine.family import JOB, PROMPT, family

from plait.protocol.ids import Hash, keccak
from plait_node.engine import EngineError, Lane, StageEngine, StepInput, StepOutput
from plait_node.engine.errors import NumericsError
from plait_node.engine.faces import Span
from plait_node.engine.room import KvShape

FAMILY = family("llama")
SIZE = FAMILY.built.manifest.vocabulary
HIDDEN = FAMILY.built.manifest.hidden


class Table:
    """Blocks whose rows say which line of a table their logits are."""

    def __init__(self, logits: NDArray[np.float32]) -> None:
        self.kv = KvShape(layers=1, heads=1, head_dim=2)
        self._logits = torch.as_tensor(logits)

    def forward(self, given: torch.Tensor, spans: Sequence[Span]) -> torch.Tensor:
        return given

    def logits(self, rows: torch.Tensor) -> torch.Tensor:
        return self._logits[rows[:, 0].long()]


def engine(logits: NDArray[np.float32]) -> StageEngine:
    made = StageEngine.over(
        Table(logits),
        FAMILY.built.manifest,
        first=FAMILY.blocks - 1,
        last=FAMILY.blocks,
        kv_steps=256,
        lane=Lane(),
    )
    for number in range(4):
        made.open(name(number), 32)
    return made


def name(number: int) -> Hash:
    return keccak(bytes([number]))


def given(job: int, lines: Sequence[int], *, logits: int = 1, best: bool = True, start: int = 0) -> StepInput:
    rows = np.zeros((len(lines), HIDDEN), dtype=np.float32)
    rows[:, 0] = lines
    return StepInput(job=name(job), start=start, rows=rows, logits=logits, best=best)


def tied(lines: int) -> NDArray[np.float32]:
    """Return logits of which many in each line are the greatest."""
    return np.random.default_rng(0).integers(-2, 3, (lines, SIZE)).astype(np.float32)


def good(answer: StepOutput | EngineError) -> StepOutput:
    assert isinstance(answer, StepOutput)
    return answer


@pytest.mark.parametrize("mixed", [False, True], ids=["only best", "beside logits"])
def test_best_of_equal_logits_is_the_lowest_id(mixed: bool) -> None:
    table = tied(12)
    stage = engine(table)

    answers = stage.step([given(0, range(12), logits=12), given(1, [3], best=not mixed)])

    assert good(answers[0]).best is not None
    assert good(answers[0]).best.tolist() == table.argmax(axis=1).tolist()
    assert (np.count_nonzero(table == table.max(axis=1, keepdims=True), axis=1) > 1).all()


def test_best_is_int64_and_of_the_last_rows_asked_for() -> None:
    table = tied(5)

    (answer,) = engine(table).step([given(0, [4, 2, 0, 1], logits=2)])

    assert good(answer).best.dtype == np.int64
    assert good(answer).best.tolist() == table[[0, 1]].argmax(axis=1).tolist()


@pytest.mark.parametrize("value", [-np.inf, -0.0])
def test_best_of_extreme_logits_is_that_of_numpy(value: float) -> None:
    table = np.zeros((1, SIZE), dtype=np.float32)
    table[0, 7:9] = value

    (answer,) = engine(table).step([given(0, [0])])

    assert good(answer).best.tolist() == [int(table[0].argmax())]


def test_batch_of_best_logits_and_neither_gives_each_its_own() -> None:
    table = tied(6)

    best, logits, neither, two = map(
        good,
        engine(table).step(
            [
                given(0, [0, 1]),
                given(1, [2, 3], best=False),
                given(2, [4], logits=0),
                given(3, [4, 5], logits=2, best=False),
            ]
        ),
    )

    assert best.logits is None
    assert best.best.tolist() == [table[1].argmax()]
    assert logits.best is None
    assert np.array_equal(logits.logits, table[3:4])
    assert neither.best is None
    assert neither.logits is None
    assert two.best is None
    assert np.array_equal(two.logits, table[4:6])


@pytest.mark.parametrize("asked", ["best", "logits"])
@pytest.mark.parametrize("mixed", [False, True], ids=["only best", "beside logits"])
@pytest.mark.parametrize("where", [0, SIZE - 1, slice(None)], ids=["first", "last", "all"])
def test_nan_among_logits_is_that_jobs_error_only(asked: str, mixed: bool, where: int | slice) -> None:
    table = tied(3)
    table[1, where] = np.nan
    stage = engine(table)

    before, broken, after = stage.step(
        [given(0, [0]), given(1, [2, 1], best=asked == "best"), given(2, [2], best=not mixed)]
    )

    assert isinstance(broken, NumericsError)
    assert good(before).best.tolist() == [table[0].argmax()]
    assert (good(after).logits if mixed else good(after).best) is not None
    # The job is left as it was, the others moved on.
    again = stage.step([given(0, [1], logits=0, start=1), given(1, [2, 2]), given(2, [0], start=1)])
    assert all(isinstance(answer, StepOutput) for answer in again)


@pytest.mark.parametrize("weights", ["fp32", "bf16", "int8"])
def test_best_of_a_model_is_the_argmax_of_its_logits(weights: str) -> None:
    stage = FAMILY.engine(Lane(weights=weights, compiled=False))
    stage.open(JOB, 32)
    logits = stage.step_one(JOB, 0, np.array(PROMPT), logits=5).logits
    stage.rollback(JOB, 0)

    best = stage.step_one(JOB, 0, np.array(PROMPT), logits=5, best=True)

    assert best.logits is None
    assert best.best.tolist() == logits.argmax(axis=1).tolist()
