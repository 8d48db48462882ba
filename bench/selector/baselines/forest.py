"""Random forest on the numbers of cell and candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from bench.selector.cells import Cell, Question
from bench.selector.features import pairs, targets
from bench.selector.inner import best_setting
from bench.selector.matrix import scores
from sklearn.ensemble import RandomForestRegressor

__all__ = ["Forest"]

_TREES: Final = 40
_LEAVES: Final = (1, 3)


class Forest:
    """Predicts log seconds over those of the cell's default; rows of a leaf are chosen within the training cells."""

    name = "random forest"

    def __init__(self, leaf: int | None = None) -> None:
        self._given = leaf
        self._forest = RandomForestRegressor()

    def fit(self, cells: Sequence[Cell], seed: int) -> None:
        """Fit on all pairs of the training cells."""
        leaf = self._given or best_setting(_LEAVES, Forest, cells, seed)
        self._forest = RandomForestRegressor(
            _TREES, min_samples_leaf=leaf, max_features=0.5, random_state=seed, n_jobs=1
        )
        self._forest.fit(np.concatenate([pairs(cell.question) for cell in cells]), targets(cells))

    def rank(self, question: Question) -> Mapping[str, float]:
        """Return the predictions."""
        return scores([each.name for each in question.candidates], self._forest.predict(pairs(question)))
