"""What a scheduler counts: numbers for metrics, in base units, with no rate that a reader could compute itself."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

__all__ = ["Histogram", "Load"]


@dataclass(slots=True)
class Histogram:
    """How many values were at most each bound; the last count is of all beyond."""

    bounds: tuple[float, ...]
    total: float = 0.0
    counts: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    @property
    def count(self) -> int:
        """Return how many values there were."""
        return sum(self.counts)

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


@dataclass(slots=True)
class Load:
    """What one scheduler did so far, and what waits; read it on the event loop."""

    free_steps: int  # KV room that a new job could have
    waiting: int = 0  # works of rows that are not computed yet
    aside: int = 0  # jobs whose room others have
    rows_per_second: float = 0.0  # running mean over passes with prompt rows
    pass_seconds: Histogram = field(
        default_factory=lambda: Histogram((0.001, 0.003, 0.01, 0.03, 0.1, 0.25, 0.5, 1.0, 3.0))
    )
    pass_rows: Histogram = field(default_factory=lambda: Histogram((1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)))
    pass_jobs: Histogram = field(default_factory=lambda: Histogram((1, 2, 4, 8, 16, 32, 64)))
