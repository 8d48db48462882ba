"""What engines do anyway: batching, prefix cache and chunked prefill on, nothing else. The default to beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from bench.selector.cells import Cell, Question

from plait_node.selector.candidates import ALWAYS_ON

__all__ = ["AlwaysOn"]

_ORDER: Final = (ALWAYS_ON.name, "combined", "batching", "none")  # where there is no compiler, the next one


class AlwaysOn:
    """The same choice for every question."""

    name = "always on"

    def fit(self, cells: Sequence[Cell], seed: int) -> None:
        """Learn nothing."""

    def rank(self, question: Question) -> Mapping[str, float]:
        """Return positions in a fixed order."""
        del question
        return {name: float(position) for position, name in enumerate(_ORDER)}
