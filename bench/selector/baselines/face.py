"""What every selector does: learn from training cells, then score the candidates of a question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from bench.selector.cells import Cell, Question

__all__ = ["Selector", "choose"]


class Selector(Protocol):
    """A way to choose; `fit` forgets what it learnt before and sees training cells only."""

    name: str

    def fit(self, cells: Sequence[Cell], seed: int) -> None:
        """Learn from the training cells; the same seed gives the same selector."""
        ...

    def rank(self, question: Question) -> Mapping[str, float]:
        """Return a score per candidate, lower is better; candidates that are left out come last."""
        ...


def choose(scores: Mapping[str, float], names: Sequence[str]) -> str:
    """Return the best of the named candidates; the first of equal ones."""
    return min(names, key=lambda name: scores.get(name, float("inf")))
