"""ALORS (Misir and Sebag, 2017): factorise P, and learn from the features where a new cell lies among the factors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from bench.selector.cells import Cell, Question
from bench.selector.features import Floats, cell_features, stacked
from bench.selector.inner import best_setting
from bench.selector.matrix import grid, means, scores
from sklearn.ensemble import RandomForestRegressor

__all__ = ["Alors"]

_RANKS: Final = (1, 3, 6)
_TREES: Final = 10  # as in the code of MetaOOD (facts 1.4)
_ROUNDS: Final = 30


class Alors:
    """P = U V; a random forest reads U off the features. The rank is chosen within the training cells if not given."""

    name = "ALORS"

    def __init__(self, rank: int | None = None) -> None:
        self._given = rank
        self._names: tuple[str, ...] = ()
        self._means: Floats = np.zeros(0)
        self._factors: Floats = np.zeros((0, 0))
        self._forest = RandomForestRegressor()

    def fit(self, cells: Sequence[Cell], seed: int) -> None:
        """Fill P up, factorise it, fit the forest."""
        rank = self._given or best_setting(_RANKS, Alors, cells, seed)
        known = grid(cells)
        self._names, self._means = known.names, means(known.values)
        left, self._factors = _factorised(known.values - self._means, rank)
        self._forest = RandomForestRegressor(_TREES, random_state=seed, n_jobs=1)
        self._forest.fit(stacked([cell.question for cell in cells]), left[:, 0] if left.shape[1] == 1 else left)

    def rank(self, question: Question) -> Mapping[str, float]:
        """Return the predicted row of P."""
        left = self._forest.predict(cell_features(question)[None]).reshape(1, -1)
        return scores(self._names, self._means + (left @ self._factors)[0])


def _factorised(values: Floats, rank: int) -> tuple[Floats, Floats]:
    """Return [cells, rank] and [rank, candidates]; what is missing is filled with the factors' own guess, repeatedly.

    The forest needs at least one factor, and there are no more than P has rows or columns.
    """
    missing = np.isnan(values)
    filled = np.where(missing, 0.0, values)
    rank = min(rank, *values.shape)
    left, right = filled[:, :rank], np.eye(rank, values.shape[1])
    for _ in range(_ROUNDS if missing.any() else 1):
        u, s, v = np.linalg.svd(filled, full_matrices=False)
        left, right = u[:, :rank] * s[:rank], v[:rank]
        filled = np.where(missing, left @ right, values)
    return left, right
