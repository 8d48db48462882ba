"""Our selector: the predictor of the package, fitted on the training cells' rows, as a selector of the comparison.

Two ways to choose by it: `ours` takes the least predicted seconds; `ours, cautious` keeps the cell's default where the
live policy would (`plait_node.selector.policy`): the question lies outside what was measured, or the best should save
less than its bound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.selector.baselines.face import choose
from bench.selector.cells import REGIMES, Cell, Question, Regime
from bench.selector.evaluate import Run, allowed_cells

from plait_node.selector.embeddings import Embeddings
from plait_node.selector.estimates import Estimate
from plait_node.selector.facts import CellKey
from plait_node.selector.policy import Options as PolicyOptions
from plait_node.selector.predictor import Options, Predictor
from plait_node.selector.rows import Rows

__all__ = ["Forecasts", "Ours", "cautious"]

Estimates = Mapping[str, Estimate]  # by candidate


class Ours:
    """The predictor behind the face of a selector."""

    name = "ours"

    def __init__(self, embeddings: Embeddings | None, options: Options | None = None) -> None:
        self._embeddings = embeddings
        self._options = options or Options()
        self._predictor: Predictor | None = None

    def fit(self, cells: Sequence[Cell], seed: int) -> None:
        """Fit on the rows of the training cells."""
        rows = Rows(row for cell in cells for row in cell.rows)
        self._predictor = Predictor.fit(rows, embeddings=self._embeddings, options=self._options, seed=seed)

    def rank(self, question: Question) -> Mapping[str, float]:
        """Return the predicted seconds."""
        return {name: estimate.seconds for name, estimate in self.forecast(question).items()}

    def forecast(self, question: Question) -> Estimates:
        """Return what is predicted for each candidate, with intervals."""
        if self._predictor is None:
            return {}
        found = self._predictor.predict(question.task, question.model, question.hardware, question.candidates)
        return {forecast.candidate.name: Estimate.of(forecast) for forecast in found}


class Forecasts:
    """What was forecast for each held-out cell, by seed; `asked` is the hook of `evaluate`."""

    def __init__(self) -> None:
        self.parts: dict[CellKey, str] = {}  # what was held out with the cell, in the last seed
        self.by_seed: dict[int, dict[CellKey, Estimates]] = {}

    def asked(self, part: str, seed: int, selector: object, cell: Cell) -> None:
        """Keep what our selector says of a cell; others have no forecasts."""
        if isinstance(selector, Ours):
            self.parts[cell.key] = part
            self.by_seed.setdefault(seed, {})[cell.key] = selector.forecast(cell.question)


def cautious(forecasts: Forecasts, cells: Sequence[Cell]) -> Run:
    """Return the choices of the live policy's rule, from forecasts that were made already."""
    chosen: dict[Regime, list[list[str]]] = {}
    for regime in REGIMES:
        allowed = allowed_cells(cells, regime)
        chosen[regime] = [[_kept(cell, found[cell.key]) for cell in allowed] for found in forecasts.by_seed.values()]
    return Run(chosen=chosen)


def _kept(cell: Cell, found: Estimates) -> str:
    names = list(cell.timings)
    best = choose({name: estimate.seconds for name, estimate in found.items()}, names)
    first, usual = found[best], found[cell.default]
    saved = 1 - first.seconds / usual.seconds
    sure = first.inside and usual.inside and saved >= PolicyOptions().least_gain
    return best if sure or best == cell.default else cell.default
