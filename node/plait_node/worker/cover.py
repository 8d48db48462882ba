"""How far a gateway's own payments cover an answer: what of the price is this worker's, and its share of that."""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from typing import TYPE_CHECKING

from plait.protocol.money import worker_share_rounded_down

if TYPE_CHECKING:
    from plait.protocol.ids import Address
    from plait_node.worker.admission import Task

__all__ = ["Cover"]


@dataclass(slots=True, kw_only=True)
class Cover:
    """The hop's side of one request, in base units."""

    task: Task
    share: int  # of the payer's amount, in millionths
    others: int = 0  # of the price: what other workers' attempts earned before ours
    paid: int = 0  # by the gateway, on all its channels

    @classmethod
    def of(cls, task: Task, owner: Address) -> Cover | None:
        """Return the cover of a task; None where no hop pays: its gateway is our own, or it came from the chain."""
        if task.quote is None or task.gateway == owner:
            return None
        place = next((worker for worker in task.quote.message.workers if worker.node == owner), None)
        return cls(task=task, share=place.share if place else 0)

    def needed(self, to: int, *, unpaid: int) -> int:
        """Return what the gateway owes for the output below token `to`, but for `unpaid` tokens that nobody owes."""
        tokens = max(0, to - unpaid)
        price = min((self.task.price(profile, tokens) for profile in self.task.request.profiles), default=0)
        return worker_share_rounded_down(max(0, price - self.others), self.share)

    def to(self, *, unpaid: int) -> int:
        """Return the first output token that is not paid for; -1 where not even the prompt is."""
        tokens = range(self.task.request.max_tokens + unpaid + 1)
        return bisect.bisect_right(tokens, self.paid, key=lambda to: self.needed(to, unpaid=unpaid)) - 1
