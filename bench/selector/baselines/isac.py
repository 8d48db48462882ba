"""ISAC (Kadioglu and others, ECAI 2010): cluster the cells by their features, take the best mean of the cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from bench.selector.cells import Cell, Question
from bench.selector.features import Floats, Scaler, cell_features, stacked
from bench.selector.matrix import grid, means, scores
from sklearn.cluster import KMeans

__all__ = ["Isac"]

_CLUSTERS: Final = 5  # as in the code of MetaOOD (facts 1.4)


class Isac:
    """k-means on standardised features; a candidate that the cluster never ran counts with its mean over all."""

    name = "ISAC"

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._scaler = Scaler(mean=np.zeros(0), spread=np.ones(0))
        self._centres: Floats = np.zeros((0, 0))
        self._means: Floats = np.zeros((0, 0))

    def fit(self, cells: Sequence[Cell], seed: int) -> None:
        """Cluster, and take each cluster's column means of P."""
        known = grid(cells)
        features = stacked([cell.question for cell in cells])
        self._names, self._scaler = known.names, Scaler.fit(features)
        count = min(_CLUSTERS, len(np.unique(features, axis=0)))
        found = KMeans(count, n_init=4, random_state=seed).fit(self._scaler.apply(features))
        overall = means(known.values)
        self._centres = np.asarray(found.cluster_centers_)
        self._means = np.stack([means(known.values[found.labels_ == each], overall) for each in range(count)])

    def rank(self, question: Question) -> Mapping[str, float]:
        """Return the means of the nearest cluster."""
        at = self._scaler.apply(cell_features(question))
        nearest = int(np.argmin(((self._centres - at) ** 2).sum(axis=1)))
        return scores(self._names, self._means[nearest])
