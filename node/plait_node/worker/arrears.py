"""What gateways of other owners left unpaid, kept in the journal: a restart of ours rids nobody of it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from plait.ledger import Debt, JournalFullError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from plait.ledger import DebtBook
    from plait.protocol.ids import Address, Hash

__all__ = ["Arrears"]

# A gateway that lost its books can never pay: for so long its jobs are not taken, then it has a credit line again.
_FORGET_S: Final = 24 * 3_600.0
_MOST_REQUESTS: Final = 64  # of one gateway's owner; it is served no more with the first of them
_MOST_GATEWAYS: Final = 1_024


class Arrears:
    """What each gateway's owner owes in all for a request, in base units; times are Unix seconds."""

    def __init__(self, book: DebtBook, *, now: float) -> None:
        """Begin with those that the book holds."""
        self._book = book
        self._debts: dict[Address, dict[Hash, Debt]] = {}
        for debt in book.all():
            self._put(debt)
        for gateway in list(self._debts):
            self.owes(gateway, lambda _: 0, now=now)

    def note(self, gateway: Address, request: Hash, due: int, *, now: float) -> None:
        """Say what a gateway owes for a request that ended here."""
        if len(self._debts.get(gateway, {})) < _MOST_REQUESTS:
            debt = Debt(debtor=gateway, request=request, amount=due, since=int(now))
            self._put(debt)
            with suppress(JournalFullError):  # then it is forgotten with the next start
                self._book.set(debt)

    def owes(self, gateway: Address, paid: Callable[[Hash], int], *, now: float) -> bool:
        """Tell whether a gateway owes for any request, given what it has `paid` for each."""
        debts = self._debts.get(gateway, {})
        over = [
            each.request for each in debts.values() if paid(each.request) >= each.amount or now - each.since > _FORGET_S
        ]
        self._drop(gateway, over)
        return gateway in self._debts

    def take(self, request: Hash, paid: int) -> None:
        """Say what was paid for a request in all: while that is in our hands the broker need not know it again."""
        for gateway, debts in list(self._debts.items()):
            if request in debts and paid >= debts[request].amount:
                self._drop(gateway, [request])

    def _put(self, debt: Debt) -> None:
        self._debts.setdefault(debt.debtor, {})[debt.request] = debt
        for gateway in list(self._debts)[:-_MOST_GATEWAYS]:
            self._drop(gateway, list(self._debts[gateway]))

    def _drop(self, gateway: Address, requests: Sequence[Hash]) -> None:
        if not requests:
            return
        debts = self._debts[gateway]
        for request in requests:
            del debts[request]
        if not debts:
            del self._debts[gateway]
        with suppress(JournalFullError):  # then they are known again after the next start, until they are forgotten
            self._book.forget(gateway, requests)
