"""The roofline prior alone: bytes over the measured copy rate, products over the measured rate, and the links."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.selector.cells import Cell, Question

from plait_node.selector.roofline import roofline

__all__ = ["Roofline"]


class Roofline:
    """Needs no history."""

    name = "roofline"

    def fit(self, cells: Sequence[Cell], seed: int) -> None:
        """Learn nothing."""

    def rank(self, question: Question) -> Mapping[str, float]:
        """Return the estimated seconds."""
        return {
            each.name: roofline(question.task, question.model, question.hardware, each).seconds
            for each in question.candidates
        }
