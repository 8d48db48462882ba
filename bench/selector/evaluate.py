"""Ask every selector about every held-out cell: fit on the training side, then rank, in both regimes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter

from bench.selector.baselines.face import Selector, choose
from bench.selector.cells import REGIMES, Cell, Regime
from bench.selector.splits import Fold

__all__ = ["Run", "allowed_cells", "evaluate"]

Split = Callable[[Sequence[Cell], int], list[Fold]]
Asked = Callable[[str, int, Selector, Cell], None]  # what was held out, the seed, the fitted selector, the cell


@dataclass(slots=True, kw_only=True)
class Run:
    """What one selector chose on one split; `chosen[regime][seed][i]` belongs to `allowed_cells(...)[i]`."""

    chosen: dict[Regime, list[list[str]]] = field(default_factory=dict[Regime, list[list[str]]])
    fit_s: float = 0.0  # all fits together


def allowed_cells(cells: Sequence[Cell], regime: Regime) -> list[Cell]:
    """Return the cells, each with its allowed candidates, in which there is something to choose."""
    return [allowed for cell in cells if (allowed := cell.allowed(regime)) is not None]


def evaluate(
    makers: Mapping[str, Callable[[], Selector]],
    cells: Sequence[Cell],
    split: Split,
    *,
    seeds: int,
    asked: Asked | None = None,
) -> dict[str, Run]:
    """Return a run per selector; empty where the split has no folds. `asked` sees each question."""
    runs = {name: Run() for name in makers} if split(cells, 0) else {}
    for name, run in runs.items():
        began = perf_counter()
        for seed in range(seeds):
            _ask(run, makers[name], cells, split(cells, seed), seed=seed, asked=asked)
        sys.stderr.write(f"  {name}: {perf_counter() - began:.1f} s\n")
    return runs


def _ask(
    run: Run,
    make: Callable[[], Selector],
    cells: Sequence[Cell],
    folds: Sequence[Fold],
    *,
    seed: int,
    asked: Asked | None,
) -> None:
    """Add one seed's choices, in the cells' order."""
    picks: dict[int, Mapping[Regime, str]] = {}
    for fold in folds:
        selector = make()
        run.fit_s += _fitted(selector, [cells[index] for index in fold.train], seed)
        picks |= {index: _choices(selector, cells[index]) for index in fold.test}
        if asked is not None:
            _told(asked, fold, seed, selector, cells)
    ordered = [picks[index] for index in range(len(cells))]
    for regime in REGIMES:
        run.chosen.setdefault(regime, []).append([names[regime] for names in ordered if regime in names])


def _fitted(selector: Selector, train: Sequence[Cell], seed: int) -> float:
    """Fit, and return the seconds that it took."""
    began = perf_counter()
    selector.fit(train, seed)
    return perf_counter() - began


def _told(asked: Asked, fold: Fold, seed: int, selector: Selector, cells: Sequence[Cell]) -> None:
    for index in fold.test:
        asked(fold.name, seed, selector, cells[index])


def _choices(selector: Selector, cell: Cell) -> dict[Regime, str]:
    """Rank once; what the payer does not allow is left out afterwards. The selector sees the question only."""
    scores = selector.rank(cell.question)
    allowed = {regime: cell.allowed(regime) for regime in REGIMES}
    return {regime: choose(scores, list(each.timings)) for regime, each in allowed.items() if each is not None}
