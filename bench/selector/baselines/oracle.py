"""The oracle: it knows what was measured. No selector can do better; it is a bound, not a baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.selector.cells import Cell, Question

__all__ = ["Oracle"]


class Oracle:
    """Answers from the cells it was made with, held out or not."""

    name = "oracle"

    def __init__(self, cells: Sequence[Cell]) -> None:
        self._cells = {cell.key: cell for cell in cells}

    def fit(self, cells: Sequence[Cell], seed: int) -> None:
        """Learn nothing: it knows."""

    def rank(self, question: Question) -> Mapping[str, float]:
        """Return the measured seconds."""
        return {name: timing.seconds for name, timing in self._cells[question.key].timings.items()}
