"""Wait a moment for rows that are on their way back, so that jobs stay together in one pass.

A pass with decode rows of two jobs takes hardly longer than one of a single job. Who was in the last pass comes back
with the next row after a turnaround: the next pass waits for it if that is much shorter than a pass. Where it is not,
as in a pipeline of stages, jobs take turns instead and nobody waits. Times are in seconds and passed in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from plait.protocol.ids import Hash

__all__ = ["Gathering"]

_WORTH = 0.5  # of a pass: the longest turnaround that is waited for, and the longest wait
_LATE = 2.0  # turnarounds: who is later than that is not waited for any more
_FASTER, _SLOWER = 0.5, 0.2  # weights in the running mean: a pause says less


@dataclass(slots=True)
class _Seen:
    """One job: when it got its last row, until it is back, and how long it usually takes."""

    gave: float | None = None
    turnaround: float | None = None


class Gathering:
    """Who is on the way back, and for how long that is worth waiting."""

    def __init__(self) -> None:
        """Begin with nobody; a job is not waited for before its turnaround was seen."""
        self._seen: dict[Hash, _Seen] = {}
        self._missing: set[Hash] = set()  # who was in the last pass, is not back and is waited for
        self._until = 0.0

    def gave(self, jobs: Sequence[Hash], *, now: float, pass_s: float) -> None:
        """Take note that a pass of `pass_s` ended and that these jobs, behind their prompts, got its results."""
        self._missing.clear()
        longest = 0.0
        for job in jobs:
            seen = self._seen.setdefault(job, _Seen())
            seen.gave = now
            if seen.turnaround is not None and seen.turnaround < _WORTH * pass_s:
                self._missing.add(job)
                longest = max(longest, seen.turnaround)
        self._until = now + min(_LATE * longest, _WORTH * pass_s)

    def came(self, job: Hash, *, now: float) -> None:
        """Take note that a job is back with its next rows."""
        self._missing.discard(job)
        seen = self._seen.get(job)
        if seen is None or seen.gave is None:
            return
        took, mean, seen.gave = now - seen.gave, seen.turnaround, None
        seen.turnaround = took if mean is None else mean + (_FASTER if took < mean else _SLOWER) * (took - mean)

    def left(self, job: Hash) -> None:
        """Take note that a job does not come back."""
        self._missing.discard(job)
        self._seen.pop(job, None)

    def wait_s(self, *, now: float) -> float:
        """Return how long the next pass should still wait, 0 when it should not."""
        return max(0.0, self._until - now) if self._missing else 0.0
