"""Choose a hyperparameter inside the training side: folds over its cells, never a look at what is held out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from bench.selector.baselines.face import Selector, choose
from bench.selector.cells import REGIMES, Cell
from bench.selector.splits import random_folds

__all__ = ["best_setting", "regret"]

_Setting = TypeVar("_Setting")
_FOLDS = 2


def best_setting(
    settings: Sequence[_Setting], make: Callable[[_Setting], Selector], cells: Sequence[Cell], seed: int
) -> _Setting:
    """Return the setting with the least mean regret over two folds of the training cells."""
    folds = random_folds(cells, seed, folds=_FOLDS)
    if len(cells) < 2 * _FOLDS:
        return settings[0]
    found: list[float] = []
    for setting in settings:
        lost: list[float] = []
        for fold in folds:
            selector = make(setting)
            selector.fit([cells[index] for index in fold.train], seed)
            lost += [regret(selector, cells[index]) for index in fold.test]
        found.append(float(np.mean(lost)))
    return settings[int(np.argmin(found))]


def regret(selector: Selector, cell: Cell) -> float:
    """Return the chosen candidate's seconds over the best's, less 1; mean of both regimes."""
    scores = selector.rank(cell.question)
    lost: list[float] = []
    for regime in REGIMES:
        allowed = cell.allowed(regime)
        if allowed is not None:
            chosen = allowed.timings[choose(scores, list(allowed.timings))]
            lost.append(chosen.seconds / allowed.timings[allowed.ranked[0]].seconds - 1)
    return float(np.mean(lost)) if lost else 0.0
