"""Random choice: every candidate that can run is as likely as any other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from bench.selector.cells import Cell, Question

from plait.protocol.ids import keccak

__all__ = ["Chance"]


class Chance:
    """Scores drawn from the seed and the question, so that a repeated question is answered alike."""

    name = "random"

    def __init__(self) -> None:
        self._seed = 0

    def fit(self, cells: Sequence[Cell], seed: int) -> None:
        """Learn nothing."""
        del cells
        self._seed = seed

    def rank(self, question: Question) -> Mapping[str, float]:
        """Return a draw per candidate."""
        key = int.from_bytes(keccak(repr(question.key).encode())[:8], "big")
        draw = np.random.default_rng([self._seed, key])
        return {candidate.name: float(draw.random()) for candidate in question.candidates}
