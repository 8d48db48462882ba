"""What of one request was delivered and signed so far, over all attempts: the next one goes on from there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from plait.protocol.commitments import RunningHash
from plait.protocol.typed import struct_hash

if TYPE_CHECKING:
    from plait.protocol.ids import Address, Hash
    from plait_node.worker.admission import Task
    from plait_node.worker.generation import Generation
    from plait_node.worker.hops import Owed


@dataclass(slots=True, kw_only=True)
class Told:
    """What the payer was told, and what our own attempts owe their stages."""

    ids: tuple[int, ...] = ()
    segments: tuple[Hash, ...] = ()  # the last progress of each attempt that has one
    others: int = 0  # of the price, in base units: what workers of other owners earned
    paid: int = 0  # output tokens that are owed for
    to: int = 0  # the first output token that no progress covers
    row: int = 0  # the first step that not every stage has signed; 0 unless the next attempt replaces a stage
    lacking: frozenset[Address] = frozenset()  # stages that took windows from their caches without the rows they gave
    owed: dict[Address, Owed] = field(default_factory=dict["Address", "Owed"])

    @property
    def unpaid(self) -> int:
        """Return how many delivered tokens are not owed for: their windows died with an attempt."""
        return len(self.ids) - self.paid

    def hash(self, task: Task) -> Hash:
        """Return the running hash over all that was delivered."""
        running = RunningHash(task.content_key, task.digest)
        return running.extend(self.ids) if self.ids else running.value

    def add(self, attempt: Generation) -> None:
        """Add what an attempt delivered and signed, at its end."""
        self.ids = attempt.answer.delivered
        self.owed |= attempt.owed()
        self.lacking |= attempt.lacking
        if attempt.progress is not None:
            message = attempt.progress.message
            self.segments += (struct_hash(message),)
            self.paid += message.to - attempt.start
            self.to = message.to
