"""ARGOSMART (Nikolic and others, 2013): do what was best in the most similar training cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from bench.selector.cells import Cell, Question
from bench.selector.features import Floats, Scaler, cell_features, stacked
from bench.selector.matrix import grid, means, scores

__all__ = ["Argosmart"]


class Argosmart:
    """The nearest neighbour on standardised features; what it never ran counts with its mean over all."""

    name = "ARGOSMART"

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._scaler = Scaler(mean=np.zeros(0), spread=np.ones(0))
        self._features: Floats = np.zeros((0, 0))
        self._values: Floats = np.zeros((0, 0))

    def fit(self, cells: Sequence[Cell], seed: int) -> None:
        """Keep the features and P."""
        del seed
        known = grid(cells)
        features = stacked([cell.question for cell in cells])
        self._names, self._scaler = known.names, Scaler.fit(features)
        self._features = self._scaler.apply(features)
        self._values = np.where(np.isnan(known.values), means(known.values), known.values)

    def rank(self, question: Question) -> Mapping[str, float]:
        """Return the neighbour's row of P."""
        at = self._scaler.apply(cell_features(question))
        nearest = int(np.argmin(((self._features - at) ** 2).sum(axis=1)))
        return scores(self._names, self._values[nearest])
