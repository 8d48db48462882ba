"""Keep what led to NaN or infinity, so that an operator can tell broken weights or memory from a fault of ours.

The last 16 cases are kept, fewer where their rows would take more than 64 MB. They stay in this process until somebody
writes them: rows of a job are the payer's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from plait.protocol.ids import Hash
from plait_node.engine.faces import Rows
from plait_node.engine.lane import Lane

__all__ = ["Evidence", "EvidenceLog"]

_MOST: Final = 16
_MOST_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Rows of one job from its step 0 on; the pass that began at step `start` made NaN or infinity of them."""

    job: Hash
    start: int
    rows: Rows
    first: int  # the stage's blocks, [first, last)
    last: int
    lane: Lane

    def write(self, folder: Path) -> Path:
        """Write it as a `.npz` file that `numpy.load` reads, whatever is there under its name; return the path."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.job.hex()[:16]}-{self.start}.npz"
        np.savez(
            path,
            job=np.frombuffer(self.job, dtype=np.uint8),
            start=self.start,
            rows=self.rows,
            blocks=np.array([self.first, self.last]),
            lane=np.array([self.lane.weights, self.lane.device, str(self.lane.threads), str(self.lane.compiled)]),
        )
        return path


class EvidenceLog:
    """The last cases, the newest last; one thread adds, any may read."""

    def __init__(self) -> None:
        self._held: deque[Evidence] = deque(maxlen=_MOST)

    def __iter__(self) -> Iterator[Evidence]:
        return iter(tuple(self._held))

    def __len__(self) -> int:
        return len(self._held)

    def add(self, evidence: Evidence) -> None:
        """Keep a case and forget the oldest ones; the newest stays however large it is."""
        self._held.append(evidence)
        while len(self._held) > 1 and sum(each.rows.nbytes for each in self._held) > _MOST_BYTES:
            self._held.popleft()

    def of(self, job: Hash) -> Evidence | None:
        """Return the newest case of a job."""
        return next((each for each in reversed(tuple(self._held)) if each.job == job), None)
