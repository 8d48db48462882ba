"""Who owes us for work that was done and not paid: what a creditor must know again after a restart."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from plait.ledger.journal import Journal, amount_blob, blob_amount
from plait.protocol.ids import Address, Hash

Debtor = Literal["worker", "gateway"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Debt:
    """What one debtor owes for one request, in base units, and since when, in Unix seconds."""

    debtor: Address
    request: Hash
    amount: int
    since: int


class DebtBook:
    """The debts of one kind of debtor in a journal; how many there may be is its user's to bound.

    Every call that changes something raises `JournalFullError` where the disk has no room.
    """

    def __init__(self, journal: Journal, kind: Debtor) -> None:
        self._journal = journal
        self._kind = kind

    def all(self) -> list[Debt]:
        """Return every debt, oldest first."""
        query = "SELECT debtor, request, amount, since FROM debts WHERE kind = ? ORDER BY since, debtor, request"
        return [
            Debt(debtor=Address(row[0]), request=Hash(row[1]), amount=blob_amount(row[2]), since=row[3])
            for row in self._journal.all(query, self._kind)
        ]

    def set(self, debt: Debt) -> None:
        """Keep what a debtor owes for a request from now on."""
        values = (debt.debtor, debt.request, amount_blob(debt.amount), debt.since)
        with self._journal.write():
            self._journal.run("INSERT OR REPLACE INTO debts VALUES (?, ?, ?, ?, ?)", self._kind, *values)

    def forget(self, debtor: Address, requests: Iterable[Hash]) -> None:
        """Drop what a debtor owes for some requests; one that is not there is no error."""
        with self._journal.write():
            for request in requests:
                statement = "DELETE FROM debts WHERE kind = ? AND debtor = ? AND request = ?"
                self._journal.run(statement, self._kind, debtor, request)
