"""What workers left unpaid: whoever owes too much gets no credit until it has paid.

A payer that stops paying in the middle of an answer leaves its worker's stages short as well, so less than a credit
line is borne, more of those who have paid more, and no debt is remembered for long. Debts are in the journal, so that
nobody is rid of them when this stage starts again.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from plait.ledger import Debt, DebtBook, JournalFullError
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
    paid: int = 0  # since the last start
    left: dict[Hash, Debt] = field(default_factory=dict[Hash, Debt])


class Debts:
    """Base units by worker; `line` is what a whole credit line costs."""

    def __init__(self, line: int, book: DebtBook, *, now: float) -> None:
        """Begin with those that the book holds; `now` in Unix seconds."""
        self._line, self._book = line, book
        self._accounts: dict[Address, _Account] = {}
        for debt in book.all():
            self._put(self._account(debt.debtor), debt)
        for worker in list(self._accounts):
            self.owed(worker, now=now)

    @classmethod
    def of(cls, engine: Engine, book: DebtBook, *, windows: int, price: int, now: float) -> Debts:
        """Return the debts to a stage that works `windows` ahead at a price per 1,000,000 steps x blocks."""
        line = stage_fee_rounded_up(WINDOW_STEPS * windows, engine.last - engine.first, price)
        return cls(line, book, now=now)

    def note(self, worker: Address, request: Hash, amount: int, *, now: float) -> None:
        """Say what is unpaid of a request that ended here; `now` in Unix seconds."""
        account = self._account(worker)
        known = account.left.get(request)
        if amount <= 0:
            self._drop(worker, account, [request] if known else [])
        elif known is None or known.amount != amount:
            since = known.since if known else int(now)
            debt = Debt(debtor=worker, request=request, amount=amount, since=since)
            self._put(account, debt)
            with suppress(JournalFullError):  # then it is forgotten with the next start
                self._book.set(debt)

    def paid(self, worker: Address, request: Hash, amount: int) -> None:
        """Say that a worker paid so much more for a request."""
        account = self._account(worker)
        account.paid += amount
        if debt := account.left.get(request):
            self.note(worker, request, debt.amount - amount, now=debt.since)

    def owed(self, worker: Address, *, now: float) -> int:
        """Return what is unpaid and not forgotten."""
        account = self._account(worker)
        self._drop(worker, account, [each.request for each in account.left.values() if now - each.since > _FORGET_S])
        return sum(debt.amount for debt in account.left.values())

    def trusts(self, worker: Address, *, now: float) -> bool:
        """Tell whether a worker gets credit."""
        borne = self._line + self._account(worker).paid // _SHARE
        owed = self.owed(worker, now=now)
        return not owed or owed < min(borne, _MOST_LINES * self._line)

    def _put(self, account: _Account, debt: Debt) -> None:
        account.left[debt.request] = debt
        self._drop(debt.debtor, account, list(account.left)[:-_MOST_REQUESTS])

    def _drop(self, worker: Address, account: _Account, requests: Sequence[Hash]) -> None:
        for request in requests:
            del account.left[request]
        if requests:
            with suppress(JournalFullError):  # then they are known again after the next start, until they are forgotten
                self._book.forget(worker, requests)

    def _account(self, worker: Address) -> _Account:
        """Return a worker's account, as the one used last."""
        account = self._accounts.pop(worker, None) or _Account()
        self._accounts[worker] = account
        if len(self._accounts) > _MOST_WORKERS:
            oldest = next(iter(self._accounts))
            left = self._accounts.pop(oldest)
            self._drop(oldest, left, list(left.left))
        return account
