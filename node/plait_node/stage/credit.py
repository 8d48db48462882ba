"""How far a stage works ahead of its pay."""

from __future__ import annotations

from dataclasses import dataclass

from plait.protocol.messages import Stage
from plait.protocol.money import stage_fee_of
from plait.protocol.windows import Cut


@dataclass(slots=True, kw_only=True)
class CreditLine:
    """The first step beyond what is paid and `windows` more; `room` is where the job ends at the latest."""

    cut: Cut
    stage: Stage
    windows: int
    room: int
    before: int = 0  # steps of the request's earlier attempts that the payments cover as well
    paid: int = 0
    allowed: int = 0

    def __post_init__(self) -> None:
        self.pay(self.paid)

    def pay(self, total: int) -> None:
        """Take the total paid for this job so far, in base units; a smaller total changes nothing."""
        self.paid = max(self.paid, total)
        at = self.cut.row
        while at < self.room and self._fee(self.cut.close_at(at)) <= self.paid:
            at = self.cut.close_at(at)
        for _ in range(self.windows):
            at = self.cut.close_at(at)
        self.allowed = at

    def lend(self, windows: int) -> None:
        """Work so many windows ahead from now on."""
        self.windows = windows
        self.pay(0)

    def covers(self, end: int) -> bool:
        """Tell whether steps below `end` may be computed now."""
        return end <= self.allowed

    def _fee(self, end: int) -> int:
        return stage_fee_of(self.stage, self.before + end - self.cut.row)
