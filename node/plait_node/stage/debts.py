"""What workers left unpaid: whoever owes too much gets no credit until it has paid.

A payer that stops paying in the middle of an answer leaves its worker's stages short as well, so less than a credit
line is borne, more of those who have paid more, and no debt is remembered for long.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from plait.protocol.ids import Address, Hash
from plait.protocol.money import stage_fee_rounded_up
from plait.protocol.windows import WINDOW_STEPS
from plait_node.engine.residents import Engine

__all__ = ["Debts"]

_FORGET_S: Final = 600.0
_SHARE: Final = 20  # one part in so many of what a worker has paid may be lost through it
_MOST_LINES: Final = 4  # credit lines, whatever it has paid
_MOST_WORKERS: Final = 1_024
_MOST_REQUESTS: Final = 256  # of one worker; older ones are forgotten


@dataclass(slots=True)
class _Account:
    paid: int = 0
    left: dict[Hash, tuple[int, float]] = field(default_factory=dict[Hash, tuple[int, float]])


class Debts:
    """Base units by worker, in memory; `line` is what a whole credit line costs."""

    def __init__(self, line: int) -> None:
        """Begin with none."""
        self._line = line
        self._accounts: dict[Address, _Account] = {}

    @classmethod
    def of(cls, engine: Engine, *, windows: int, price: int) -> Debts:
        """Return the debts to a stage that works `windows` ahead at a price per 1,000,000 steps x blocks."""
        return cls(stage_fee_rounded_up(WINDOW_STEPS * windows, engine.last - engine.first, price))

    def note(self, worker: Address, request: Hash, amount: int, *, now: float) -> None:
        """Say what is unpaid of a request that ended here; `now` in seconds of any clock that does not go back."""
        account = self._account(worker)
        if amount <= 0:
            account.left.pop(request, None)
            return
        _, since = account.left.get(request, (0, now))
        account.left[request] = amount, since
        while len(account.left) > _MOST_REQUESTS:
            del account.left[next(iter(account.left))]

    def paid(self, worker: Address, request: Hash, amount: int) -> None:
        """Say that a worker paid so much more for a request."""
        account = self._account(worker)
        account.paid += amount
        if request in account.left:
            owed, since = account.left[request]
            self.note(worker, request, owed - amount, now=since)

    def owed(self, worker: Address, *, now: float) -> int:
        """Return what is unpaid and not forgotten."""
        account = self._account(worker)
        for request in [each for each, (_, since) in account.left.items() if now - since > _FORGET_S]:
            del account.left[request]
        return sum(amount for amount, _ in account.left.values())

    def trusts(self, worker: Address, *, now: float) -> bool:
        """Tell whether a worker gets credit."""
        borne = self._line + self._account(worker).paid // _SHARE
        owed = self.owed(worker, now=now)
        return not owed or owed < min(borne, _MOST_LINES * self._line)

    def _account(self, worker: Address) -> _Account:
        """Return a worker's account, as the one used last."""
        account = self._accounts.pop(worker, None) or _Account()
        self._accounts[worker] = account
        if len(self._accounts) > _MOST_WORKERS:
            del self._accounts[next(iter(self._accounts))]
        return account
