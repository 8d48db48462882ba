"""Turn a history's rows into cells: what was asked, and what each candidate took there.

A selector is given a `Question`, which holds no outcome; only training cells and the oracle have them. So nothing that
is held out can leak into a choice by mistake.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from plait_node.selector.candidates import ALWAYS_ON, NONE
from plait_node.selector.facts import Candidate, CellKey, HardwareFacts, ModelFacts, TaskFacts
from plait_node.selector.rows import Row

__all__ = ["MOST_NOISE", "REGIMES", "Cell", "Question", "Regime", "Timing", "cells_of"]

Regime = Literal["exact", "any"]  # what the payer allows: the tokens of an fp32 run, or every profile
REGIMES: Final[tuple[Regime, ...]] = ("exact", "any")
MOST_NOISE: Final = 0.03  # a tie is never wider, and a cell whose two best candidates are noisier is dropped
_DEFAULTS: Final = (ALWAYS_ON.name, "combined", NONE.name)  # the first that was measured is what engines do there


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a selector may know: the facts, and the candidates that were measured, in the history's order."""

    key: CellKey
    task: TaskFacts
    model: ModelFacts
    hardware: HardwareFacts
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """What one candidate took; seconds, medians over repeats."""

    seconds: float
    low_s: float  # the middle half of the repeats lies between these
    high_s: float
    noise: float  # by which share the median may err by chance, see `Outcome.noise`
    ttft_s: float
    tpot_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A question with its answers; `rows` are the history's, one a candidate."""

    question: Question
    timings: Mapping[str, Timing]
    rows: tuple[Row, ...]

    @property
    def key(self) -> CellKey:
        """Return (task kind, model, hardware, batch)."""
        return self.question.key

    @property
    def ranked(self) -> list[str]:
        """Return the candidates, fastest first; equal ones in the history's order."""
        return sorted(self.timings, key=lambda name: self.timings[name].seconds)

    @property
    def default(self) -> str:
        """Return what engines do anyway here: always-on, or where it cannot run, the same without compiled code."""
        return next((name for name in _DEFAULTS if name in self.timings), next(iter(self.timings)))

    @property
    def noisy(self) -> bool:
        """Return whether the best or second best candidate's noise is above 3 %."""
        return any(self.timings[name].noise > MOST_NOISE for name in self.ranked[:2])

    def allowed(self, regime: Regime) -> Cell | None:
        """Return the cell with the candidates that the payer allows, or None where there is nothing to choose."""
        rows = tuple(row for row in self.rows if regime == "any" or row.candidate.exact)
        return _cell(self.key, rows) if len(rows) > 1 else None


def cells_of(rows: Iterable[Row]) -> list[Cell]:
    """Return the cells in the order of their first rows; a candidate measured twice counts with its last row."""
    found: dict[CellKey, dict[str, Row]] = {}
    for row in rows:
        found.setdefault(row.cell, {})[row.candidate.name] = row
    return [_cell(key, tuple(each.values())) for key, each in found.items()]


def _cell(key: CellKey, rows: tuple[Row, ...]) -> Cell:
    first = rows[0]
    question = Question(
        key=key,
        task=first.task,
        model=first.model,
        hardware=first.hardware,
        candidates=tuple(row.candidate for row in rows),
    )
    return Cell(question=question, timings={row.candidate.name: _timing(row) for row in rows}, rows=rows)


def _timing(row: Row) -> Timing:
    outcome = row.outcome
    return Timing(
        seconds=outcome.seconds,
        low_s=outcome.seconds_low,
        high_s=outcome.seconds_high,
        noise=outcome.noise,
        ttft_s=outcome.ttft_s,
        tpot_s=outcome.tpot_p50_s,
    )
