"""What the predictor's trees see: columns of features, texts' vectors in few dimensions, and the range of both.

Fitted on training rows and on nothing else. What lies outside of their range is said to, and left to the caller.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from plait_node.selector.boosting import Growth
from plait_node.selector.describe import describe_candidate, describe_hardware, describe_model, describe_task
from plait_node.selector.embeddings import Embeddings, Projection, fit_projection
from plait_node.selector.errors import HistoryError
from plait_node.selector.facts import Candidate, HardwareFacts, ModelFacts, TaskFacts
from plait_node.selector.features import CODE, NAMES, NUMERIC, ROOFLINE, features
from plait_node.selector.rates import BY_HAND, Rates, fit_rates
from plait_node.selector.rates import NAMES as RATES
from plait_node.selector.roofline import Roofline, roofline
from plait_node.selector.rows import Row

__all__ = ["Inputs", "Options", "Seen"]

Matrix = NDArray[np.float64]
PARTS: Final = ("task", "model", "hardware", "candidate")
_MARGIN: Final = 0.1  # of what was seen of a column, beyond its ends
_LEAST_MARGIN: Final = 0.2  # for columns that hardly vary
# The roofline is in proportion to these: twice as much, or half, is not another kind of machine.
_PROPORTIONAL: Final = ("matmul_gflops", "copy_gbytes_s")
_TWICE: Final = 0.7
# Answers of any length have the same passes, only more of them; and no time depends on memory or cores that are not
# used: what is used is told by threads and by the measured rates.
_UNBOUNDED: Final = ("answer_tokens", "memory_gbytes", "cores")
_HIGHEST: Final = 1e3  # of any rate
_ROOM: Final = 4_096  # vectors of facts that are kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Which blocks the trees see, besides the candidate's code, and how they grow."""

    numeric: bool = True
    roofline: bool = True  # its columns, and as what the times are relative to
    fitted: bool = True  # its rates are fitted to the training rows first, else they are those by hand
    embeddings: bool = True  # where there are any
    dims: int = 6  # of each text's vector
    folds: int = 5  # inner ones, which the quantiles are corrected by
    averaged: int = 2  # forests of the median, and as many of the mean, each grown with a seed of its own
    growth: Growth = field(default_factory=Growth)

    @property
    def columns(self) -> list[int]:
        """Return which of the features are used."""
        used = {*(NUMERIC if self.numeric else ()), *CODE}
        used |= {f"roofline-{name}" for name in ROOFLINE} if self.roofline else set()
        return [index for index, name in enumerate(NAMES) if name in used]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the training rows held."""

    low: Matrix  # (numeric + code,), margin included
    high: Matrix
    families: frozenset[str]
    candidates: frozenset[str]  # weights' type and methods, without amounts

    @classmethod
    def of(cls, rows: Sequence[Row], matrix: Matrix) -> Seen:
        """Return what rows and their features, (rows, names), span."""
        ranged = matrix[:, _RANGED]
        low, high = ranged.min(axis=0), ranged.max(axis=0)
        margin = np.maximum(_MARGIN * (high - low), _LEAST)
        return cls(
            low=low - margin,
            high=high + margin,
            families=frozenset(row.model.family for row in rows),
            candidates=frozenset(_kind(row.candidate) for row in rows),
        )

    def holds(self, model: ModelFacts, candidates: Iterable[Candidate], matrix: Matrix) -> NDArray[np.bool_]:
        """Return for each candidate, (n,), whether its features, (n, names), lie within."""
        ranged = matrix[:, _RANGED]
        known = [model.family in self.families and _kind(each) in self.candidates for each in candidates]
        within = (ranged >= self.low).all(axis=1) & (ranged <= self.high).all(axis=1)
        return within & np.array(known, dtype=np.bool_)


_RANGED: Final = [
    index for index, name in enumerate(NAMES) if not name.startswith("roofline-") and name not in _UNBOUNDED
]
_LEAST: Final = np.array([_TWICE if NAMES[index] in _PROPORTIONAL else _LEAST_MARGIN for index in _RANGED])


def _kind(candidate: Candidate) -> str:
    return "+".join([candidate.weights, *sorted(candidate.methods)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A cell as the trees see it."""

    matrix: Matrix  # (candidates, columns)
    lines: list[Roofline]
    inside: NDArray[np.bool_]  # (candidates,)


class Inputs:
    """Makes matrices, always with the same columns; keeps the vectors of facts that came before. For one thread."""

    def __init__(
        self,
        options: Options,
        seen: Seen,
        projections: Mapping[str, Projection],
        embeddings: Embeddings | None,
        rates: Mapping[str, Rates] = BY_HAND,
    ) -> None:
        """Take over what was fitted; there are projections for all four texts, and embeddings, or neither."""
        self.rates = rates
        self.options, self.seen, self.projections = options, seen, projections
        self.encoder: Final = embeddings.name if embeddings is not None and projections else None
        self._embeddings = embeddings
        self._columns = options.columns
        self._vectors: dict[tuple[str, Hashable], Matrix | None] = {}

    @classmethod
    def fit(cls, rows: Sequence[Row], embeddings: Embeddings | None, options: Options) -> Inputs:
        """Fit on training rows; raise `HistoryError` if a text of theirs has no vector."""
        matrix = np.concatenate([features(row.task, row.model, row.hardware, [row.candidate])[0] for row in rows])
        projections: dict[str, Projection] = {}
        if embeddings is not None and options.embeddings:
            texts = [_texts(row.task, row.model, row.hardware, row.candidate) for row in rows]
            for part, told in zip(PARTS, zip(*texts, strict=True), strict=True):
                projections[part] = fit_projection(_known(embeddings, sorted(set(told))), options.dims)
        rates = fit_rates(rows, _line) if options.fitted and options.roofline else BY_HAND
        return cls(options, Seen.of(rows, matrix), projections, embeddings, rates)

    @property
    def width(self) -> int:
        """Return the number of columns."""
        return len(self._columns) + sum(each.dims for each in self.projections.values())

    def asked(
        self, task: TaskFacts, model: ModelFacts, hardware: HardwareFacts, candidates: Sequence[Candidate]
    ) -> Asked:
        """Return the matrix of one cell; a text without a vector counts as the mean one, outside of the range."""
        matrix, lines = features(task, model, hardware, candidates, self.rates[hardware.device])
        inside = self.seen.holds(model, candidates, matrix)
        parts = [matrix[:, self._columns]]
        if self.projections:
            shared = [self._vector("task", task), self._vector("model", model), self._vector("hardware", hardware)]
            own = [self._vector("candidate", each) for each in candidates]
            inside &= all(each is not None for each in shared)
            inside &= np.array([each is not None for each in own], dtype=np.bool_)
            for part, vector in zip(PARTS, shared, strict=False):
                parts.append(np.tile(self._or_mean(part, vector), (len(candidates), 1)))
            parts.append(np.array([self._or_mean("candidate", each) for each in own]))
        return Asked(matrix=np.concatenate(parts, axis=1), lines=lines, inside=inside)

    def to_lists(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {
            "low": self.seen.low.tolist(),
            "high": self.seen.high.tolist(),
            "families": sorted(self.seen.families),
            "candidates": sorted(self.seen.candidates),
            "encoder": self.encoder,
            "rates": {
                device: [each.draft_right, *(each.values[name] for name in RATES)]
                for device, each in self.rates.items()
            },
            "projections": {part: each.to_lists() for part, each in self.projections.items()},
        }

    @classmethod
    def from_lists(cls, value: Mapping[str, Any], options: Options, embeddings: Embeddings | None) -> Inputs:
        """Return what `to_lists` gave; raise `ValueError`, `TypeError`, `KeyError` or `HistoryError`."""
        low, high = (np.array(value[name], dtype=np.float64) for name in ("low", "high"))
        if low.shape != (len(_RANGED),) or high.shape != low.shape or not np.isfinite([low, high]).all():
            raise ValueError("ranges do not fit the features")
        projections = {str(part): Projection.from_lists(each) for part, each in dict(value["projections"]).items()}
        if projections and set(projections) != set(PARTS):
            raise ValueError("projections are not of the four texts")
        seen = Seen(
            low=low,
            high=high,
            families=frozenset(map(str, value["families"])),
            candidates=frozenset(map(str, value["candidates"])),
        )
        return cls(options, seen, projections, embeddings if projections else None, _rates(value["rates"]))

    def _vector(self, part: str, facts: TaskFacts | ModelFacts | HardwareFacts | Candidate) -> Matrix | None:
        key = (part, facts)
        if key in self._vectors:
            return self._vectors[key]
        vector = None if self._embeddings is None else self._embeddings.vector(_text(facts))
        if len(self._vectors) >= _ROOM:
            self._vectors.clear()
        made = None if vector is None else self.projections[part].apply(vector)
        if made is not None:  # an encoder may come later
            self._vectors[key] = made
        return made

    def _or_mean(self, part: str, vector: Matrix | None) -> Matrix:
        return np.zeros(self.projections[part].dims) if vector is None else vector


def _line(row: Row, rates: Rates) -> tuple[float, float]:
    found = roofline(row.task, row.model, row.hardware, row.candidate, rates)
    return found.seconds, found.ttft_s


def _rates(told: Mapping[str, Sequence[float]]) -> dict[str, Rates]:
    """Return what `to_lists` made of rates; raise `ValueError` for others."""
    made: dict[str, Rates] = {}
    for device, each in told.items():
        right, *values = map(float, each)
        if not (0 <= right < 1 and all(0 < value < _HIGHEST for value in values)):
            raise ValueError("a rate is none")
        made[device] = Rates(values=dict(zip(RATES, values, strict=True)), draft_right=right)
    if set(made) != set(BY_HAND):
        raise ValueError("rates are of other devices")
    return made


def _text(facts: TaskFacts | ModelFacts | HardwareFacts | Candidate) -> str:
    match facts:
        case TaskFacts():
            return describe_task(facts)
        case ModelFacts():
            return describe_model(facts)
        case HardwareFacts():
            return describe_hardware(facts)
        case Candidate():
            return describe_candidate(facts)


def _texts(
    task: TaskFacts, model: ModelFacts, hardware: HardwareFacts, candidate: Candidate
) -> tuple[str, str, str, str]:
    return _text(task), _text(model), _text(hardware), _text(candidate)


def _known(embeddings: Embeddings, texts: Sequence[str]) -> Matrix:
    vectors = [embeddings.vector(text) for text in texts]
    missing = [text for text, vector in zip(texts, vectors, strict=True) if vector is None]
    if missing:
        raise HistoryError(f"{len(missing)} texts have no vector, such as {missing[0][:80]!r}; embed them first")
    return np.array(vectors, dtype=np.float64)
