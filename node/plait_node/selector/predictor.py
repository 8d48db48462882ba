"""Predict what candidates will take: the roofline, and what boosted trees learned that it gets wrong.

Times are learned as the logarithm of their ratio to the roofline's, whose rates are fitted to the same rows first.
Cells of seconds and of milliseconds then weigh the
same, candidates of a cell differ by little, and what is left carries over to models and machines that were not
measured. Held-out cells, models and settings of made-up histories (tests/node/selector/made_rows.py) say so: regret
about 1 %, against 1 to 4 % for times learned as they are, which are off two to three times as far. Cell means and
deviations from them, learned apart, rank as well, but their times are off by a quarter more. The seconds are half
trees of the median and half of the mean: on measured cells that were held out the two together missed the best less
often than either (one run of 63 cells: `python -m bench.selector` measures what came of it).

Quantiles are trees of their own, then moved by what held-out cells of the training rows say: a cell is never on both
sides.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from plait_node.selector.boosting import Forest
from plait_node.selector.embeddings import Embeddings
from plait_node.selector.errors import HistoryError
from plait_node.selector.facts import Candidate, HardwareFacts, ModelFacts, TaskFacts
from plait_node.selector.inputs import Inputs, Options
from plait_node.selector.roofline import Roofline
from plait_node.selector.rows import Row

__all__ = ["Forecast", "Options", "Predictor"]

Matrix = NDArray[np.float64]
FORESTS: Final = ("seconds", "low", "high", "ttft", "tpot")
LOW, HIGH = 0.1, 0.9
# A median gap of 0 says that most tokens came with another one in the same pass: 20 times faster or slower is enough.
_MOST_OFF: Final = 3.0
_LONGEST: Final = 50.0  # logarithm of seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What a candidate is expected to take."""

    candidate: Candidate
    seconds: float  # median, until the last token of all requests
    seconds_low: float  # 10th and 90th percentile
    seconds_high: float
    ttft_s: float  # medians; mean over the requests
    tpot_s: float
    inside: bool  # within the range of the training rows; if not, nobody knows how far off the rest is


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What is kept of a fit, besides the inputs."""

    forests: Mapping[str, Forest]  # by `FORESTS`
    widen: tuple[float, float]  # by how much low is lowered and high raised, as logarithms; may be below 0
    seed: int
    history: str  # SHA-256 of the training rows


class Predictor:
    """Forests over `Inputs`; for one thread, as its cache of vectors is."""

    def __init__(self, inputs: Inputs, learned: Learned, *, metrics: Mapping[str, float] | None = None) -> None:
        """Join parts; raise `ValueError` if they do not fit."""
        if set(learned.forests) != set(FORESTS) or any(each.width != inputs.width for each in learned.forests.values()):
            raise ValueError("forests do not fit the inputs")
        self.inputs, self.learned = inputs, learned
        self.metrics: Mapping[str, float] = dict(metrics or {})

    @classmethod
    def fit(
        cls,
        rows: Sequence[Row],
        *,
        embeddings: Embeddings | None = None,
        options: Options | None = None,
        seed: int = 0,
    ) -> Self:
        """Learn from measured rows; the same rows, options and seed give the same predictor.

        Raises:
            HistoryError: fewer than two cells, times that are none, or texts without a vector.
        """
        cells = [row.cell for row in rows]
        if len(set(cells)) < 2:
            raise HistoryError(f"{len(set(cells))} cells are too few to learn from; measure with bench-methods")
        if not all(row.outcome.seconds > 0 and row.outcome.ttft_s > 0 for row in rows):
            raise HistoryError("a row of the history took no time; measure it anew")
        chosen = options or Options()
        inputs = Inputs.fit(rows, embeddings, chosen)
        asked = [inputs.asked(row.task, row.model, row.hardware, [row.candidate]) for row in rows]
        matrix = np.concatenate([each.matrix for each in asked])
        targets = _targets(rows, [each.lines[0] for each in asked], chosen)
        trainer = _Trainer(chosen, seed)
        forests = {name: trainer.forest(name, matrix, target) for name, target in targets.items()}
        widen = trainer.widen(matrix, targets["seconds"], cells)
        return cls(inputs, Learned(forests=forests, widen=widen, seed=seed, history=_hash(rows)))

    def predict(
        self, task: TaskFacts, model: ModelFacts, hardware: HardwareFacts, candidates: Sequence[Candidate]
    ) -> list[Forecast]:
        """Return a forecast for each candidate, in their order."""
        if not candidates:
            return []
        asked = self.inputs.asked(task, model, hardware, candidates)
        found = {name: forest.predict(asked.matrix) for name, forest in self.learned.forests.items()}
        bases = np.log([_base(line, self.inputs.options) for line in asked.lines])
        down, up = self.learned.widen
        middle = found["seconds"]
        low, high = np.minimum(found["low"] - down, middle), np.maximum(found["high"] + up, middle)
        logs = np.stack([middle, low, high, found["ttft"], found["tpot"]])
        # Whatever a file's trees say, times are finite.
        times = np.exp(np.clip(logs + bases.T[[0, 0, 0, 1, 2]], -_LONGEST, _LONGEST)).T.tolist()
        return [
            Forecast(
                candidate=candidate,
                seconds=own[0],
                seconds_low=own[1],
                seconds_high=own[2],
                ttft_s=own[3],
                tpot_s=own[4],
                inside=inside,
            )
            for candidate, own, inside in zip(candidates, times, asked.inside.tolist(), strict=True)
        ]


def _base(line: Roofline, options: Options) -> tuple[float, float, float]:
    """Return what seconds, TTFT and TPOT are relative to."""
    return (line.seconds, line.ttft_s, line.tpot_s) if options.roofline else (1.0, 1.0, 1.0)


def _targets(rows: Sequence[Row], lines: Sequence[Roofline], options: Options) -> dict[str, Matrix]:
    """Return what each forest learns, (rows,)."""
    bases = np.array([_base(line, options) for line in lines]).T
    outcomes = [row.outcome for row in rows]
    seconds = np.log([each.seconds for each in outcomes]) - np.log(bases[0])
    ttft = np.log([each.ttft_s for each in outcomes]) - np.log(bases[1])
    gaps = np.array([each.tpot_p50_s for each in outcomes])
    near = np.exp(-_MOST_OFF) * np.array([line.tpot_s for line in lines])
    tpot = np.log(np.maximum(gaps, near)) - np.log(bases[2])
    return {"seconds": seconds, "low": seconds, "high": seconds, "ttft": ttft, "tpot": tpot}


@dataclass(frozen=True, slots=True)
class _Trainer:
    options: Options
    seed: int

    def forest(self, name: str, matrix: Matrix, target: Matrix) -> Forest:
        """Grow one forest; that of the seconds decides, so it alone is averaged."""
        quantile = {"low": LOW, "high": HIGH}.get(name, 0.5)
        seeds = range(self.seed, self.seed + (self.options.averaged if name == "seconds" else 1))
        growth = self.options.growth
        grown = Forest.grow(matrix, target, quantile=quantile, growth=growth, seeds=seeds)
        if name != "seconds":
            return grown
        return Forest.average([grown, Forest.grow(matrix, target, quantile=None, growth=growth, seeds=seeds)])

    def widen(self, matrix: Matrix, target: Matrix, cells: Sequence[object]) -> tuple[float, float]:
        """Return how far the quantiles must move for held-out cells to lie within as often as they should."""
        folds = self._folds(cells)
        below, above = np.empty(len(target)), np.empty(len(target))
        for fold in range(folds.max() + 1):
            held = folds == fold
            low, high = (self.forest(name, matrix[~held], target[~held]) for name in ("low", "high"))
            below[held] = low.predict(matrix[held]) - target[held]
            above[held] = target[held] - high.predict(matrix[held])
        # The level for one more row than was seen, as conformal prediction has it.
        level = min(1.0, HIGH * (1 + 1 / len(target)))
        return float(np.quantile(below, level, method="higher")), float(np.quantile(above, level, method="higher"))

    def _folds(self, cells: Sequence[object]) -> NDArray[np.int64]:
        """Return each row's fold; all rows of a cell are in one."""
        known = list(dict.fromkeys(cells))
        order = np.random.default_rng(self.seed).permutation(len(known))
        fold = {
            cell: int(place) % min(self.options.folds, len(known)) for cell, place in zip(known, order, strict=True)
        }
        return np.array([fold[cell] for cell in cells])


def _hash(rows: Sequence[Row]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        told: dict[str, Any] = asdict(row)
        digest.update(json.dumps(told, sort_keys=True).encode())
    return digest.hexdigest()
