"""Gradient boosting on the numbers of cell and candidate, without embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import lightgbm
import numpy as np
from bench.selector.cells import Cell, Question
from bench.selector.features import Floats, pairs, targets
from bench.selector.inner import best_setting
from bench.selector.matrix import scores

__all__ = ["Boosting", "boosted"]

_SETTINGS: Final = ((100, 0.1), (300, 0.05))  # trees and learning rate


class Boosting:
    """Predicts log seconds over those of the cell's default; trees and rate are chosen within the training cells."""

    name = "gradient boosting"

    def __init__(self, setting: tuple[int, float] | None = None) -> None:
        self._given = setting
        self._model: lightgbm.Booster | None = None

    def fit(self, cells: Sequence[Cell], seed: int) -> None:
        """Fit on all pairs of the training cells; nothing stops early, so nothing watches a fold."""
        trees, rate = self._given or best_setting(_SETTINGS, Boosting, cells, seed)
        features = np.concatenate([pairs(cell.question) for cell in cells])
        options = {"learning_rate": rate, "num_leaves": 15, "min_data_in_leaf": 5, "feature_fraction": 0.7}
        self._model = boosted(features, targets(cells), trees, {**options, "seed": seed})

    def rank(self, question: Question) -> Mapping[str, float]:
        """Return the predictions."""
        if self._model is None:
            return {}
        found = np.asarray(self._model.predict(pairs(question), num_threads=1))
        return scores([each.name for each in question.candidates], found)


def boosted(features: Floats, wanted: Floats, trees: int, options: Mapping[str, Any]) -> lightgbm.Booster:
    """Fit trees to squared errors on one thread, the same for the same seed."""
    fixed = {"objective": "l2", "num_threads": 1, "deterministic": True, "force_col_wise": True, "verbosity": -1}
    data = lightgbm.Dataset(features, wanted, params={"min_data_in_bin": 1, "verbosity": -1})
    return lightgbm.train({**fixed, **options}, data, num_boost_round=trees)
