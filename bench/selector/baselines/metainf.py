"""MetaInf as far as it is described (facts 1.2 to 1.4): boosted trees on embeddings, zero-shot.

A row is the embedding of the data's description, of the model's and of the hardware's, and the method's code: one-hot
(what the paper uses, one-hot or a text's embedding, is not known to us). No numeric features, nothing learnt online.
Where the paper is silent the choice favours it: the target is the log of seconds over those of the cell's default, of
which only the order within a cell counts; hyperparameters are those that the code of its relative MetaOOD settled on,
with as many trees, and without its early stopping on the test fold. Embeddings are reduced by an SVD fitted on the
training cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import lightgbm
import numpy as np
from bench.selector.baselines.boosting import boosted
from bench.selector.cells import Cell, Question
from bench.selector.features import Floats, targets
from bench.selector.matrix import scores

from plait_node.selector.describe import describe_hardware, describe_model, describe_task
from plait_node.selector.embeddings import Embeddings, Projection, fit_projection
from plait_node.selector.errors import HistoryError

__all__ = ["MetaInf", "texts_of"]

_TREES: Final = 100
_OPTIONS: Final = {
    "learning_rate": 0.4734,
    "bagging_fraction": 0.8093,
    "bagging_freq": 1,
    "lambda_l2": 14.52,
    "lambda_l1": 0.000977,
    "min_sum_hessian_in_leaf": 0.002,
    "min_data_in_leaf": 1,
    "num_leaves": 21,
}
_DIMS: Final = 16  # of each of the three texts


class MetaInf:
    """Texts in, trees out."""

    name = "MetaInf as described"

    def __init__(self, embeddings: Embeddings) -> None:
        self._embeddings = embeddings
        self._names: tuple[str, ...] = ()
        self._projections: tuple[Projection, ...] = ()
        self._model: lightgbm.Booster | None = None

    def fit(self, cells: Sequence[Cell], seed: int) -> None:
        """Reduce the training cells' texts, fit the trees."""
        texts = [self._vectors(cell.question) for cell in cells]
        columns = [np.stack(column) for column in zip(*texts, strict=True)]
        self._projections = tuple(fit_projection(column, _DIMS) for column in columns)
        self._names = tuple(dict.fromkeys(name for cell in cells for name in cell.timings))
        features = np.concatenate([self._pairs(cell.question) for cell in cells])
        self._model = boosted(features, targets(cells), _TREES, {**_OPTIONS, "seed": seed})

    def rank(self, question: Question) -> Mapping[str, float]:
        """Return the predictions."""
        if self._model is None:
            return {}
        found = np.asarray(self._model.predict(self._pairs(question), num_threads=1))
        return scores([each.name for each in question.candidates], found)

    def _pairs(self, question: Question) -> Floats:
        """Return [candidates, reduced texts and one column per known candidate]."""
        reduced = [
            projection.apply(vector)
            for projection, vector in zip(self._projections, self._vectors(question), strict=True)
        ]
        cell = np.concatenate(reduced)
        codes = [[float(each.name == name) for name in self._names] for each in question.candidates]
        return np.hstack([np.tile(cell, (len(codes), 1)), np.array(codes)])

    def _vectors(self, question: Question) -> list[Floats]:
        return [_vector(self._embeddings, text) for text in texts_of(question)]


def texts_of(question: Question) -> tuple[str, str, str]:
    """Return the descriptions of data, model and hardware."""
    return describe_task(question.task), describe_model(question.model), describe_hardware(question.hardware)


def _vector(embeddings: Embeddings, text: str) -> Floats:
    found = embeddings.vector(text)
    if found is None:
        raise HistoryError(f"{embeddings.name} is not here to embed a text; install it, or leave MetaInf out")
    return found.astype(np.float64)
