"""The outbox: what is to be sent to the chain, each signed variant of it, and what became of it.

Exactly once over kill -9: an intent is one row for ever, each signed transaction is on disk before an endpoint sees it,
and a restart brings the last of them to its end before it signs another.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from plait.chain import JournalTransaction, Transaction, TxResult
from plait.ledger.database import Row
from plait.ledger.journal import Journal, amount_blob, blob_amount
from plait.protocol.ids import Address, Hash

# done: in a block and in force. skipped: in a block and without effect. moot: there was nothing to send.
# refused: the contract said no. lost: it was in a block that is no longer part of the chain, so it is open again.
Status = Literal["done", "skipped", "moot", "refused", "lost"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """One thing to be done on chain; `subject` names it once and for all within its purpose."""

    id: int
    purpose: str
    subject: bytes
    body: bytes
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of an intent; fees in wei, `at` in Unix seconds."""

    status: Status
    tx: Hash | None
    block: int | None
    gas_used: int
    fee_wei: int
    note: str
    at: int


class Outbox:
    """The outbox of one journal."""

    def __init__(self, journal: Journal, *, clock: Callable[[], float] = time.time) -> None:
        self._journal = journal
        self._clock = clock

    def intend(self, purpose: str, subject: bytes, body: bytes) -> Intent:
        """Return the intent of this name, written now if it is new."""
        with self._journal.write():
            self._journal.run(
                "INSERT OR IGNORE INTO intents VALUES (NULL, ?, ?, ?, ?)", purpose, subject, body, int(self._clock())
            )
        found = self.find(purpose, subject)
        if found is None:
            raise LookupError("the row that was just written is missing")
        return found

    def find(self, purpose: str, subject: bytes) -> Intent | None:
        """Return the intent of this name."""
        row = self._journal.one("SELECT * FROM intents WHERE purpose = ? AND subject = ?", purpose, subject)
        return _intent(row) if row else None

    def intents(self, *purposes: str) -> list[Intent]:
        """Return all intents of these purposes, oldest first."""
        rows = [row for each in purposes for row in self._journal.all("SELECT * FROM intents WHERE purpose = ?", each)]
        return sorted((_intent(row) for row in rows), key=lambda intent: intent.id)

    def open(self, *purposes: str) -> list[Intent]:
        """Return the intents that nothing became of yet, oldest first."""
        rows = [
            row
            for each in purposes
            for row in self._journal.all(
                "SELECT i.* FROM intents i WHERE i.purpose = ? AND COALESCE("
                "(SELECT status FROM outcomes o WHERE o.intent = i.id ORDER BY o.seq DESC LIMIT 1), 'lost') = 'lost'",
                each,
            )
        ]
        return sorted((_intent(row) for row in rows), key=lambda intent: intent.id)

    def newest(self, purpose: str) -> Intent | None:
        """Return the intent of a purpose that was written last."""
        row = self._journal.one("SELECT * FROM intents WHERE purpose = ? ORDER BY id DESC LIMIT 1", purpose)
        return _intent(row) if row else None

    def newest_done(self, prefix: bytes, *purposes: str) -> Intent | None:
        """Return the last intent that is done whose body begins with `prefix`."""
        rows = [
            row
            for each in purposes
            for row in self._journal.all(
                "SELECT i.* FROM intents i WHERE i.purpose = ? AND substr(i.body, 1, ?) = ? AND "
                "(SELECT status FROM outcomes o WHERE o.intent = i.id ORDER BY o.seq DESC LIMIT 1) = 'done' "
                "ORDER BY i.id DESC LIMIT 1",
                each,
                len(prefix),
                prefix,
            )
        ]
        return max((_intent(row) for row in rows), key=lambda intent: intent.id, default=None)

    def is_open(self, intent: Intent) -> bool:
        """Say whether an intent is still to be brought to its end."""
        outcome = self.outcome(intent)
        return outcome is None or outcome.status == "lost"

    def outcome(self, intent: Intent) -> Outcome | None:
        """Return what became of an intent last."""
        row = self._journal.one("SELECT * FROM outcomes WHERE intent = ? ORDER BY seq DESC LIMIT 1", intent.id)
        return _outcome(row) if row else None

    def variants(self, intent: Intent) -> list[Transaction]:
        """Return the signed transactions of the last nonce that was tried, oldest first."""
        rows = self._journal.all("SELECT * FROM variants WHERE intent = ? ORDER BY seq", intent.id)
        found = [_transaction(row) for row in rows]
        return [each for each in found if (each.sender, each.nonce) == (found[-1].sender, found[-1].nonce)]

    def recorder(self, intent: Intent) -> JournalTransaction:
        """Return what a lane calls with each signed variant before it sends it."""

        def record(tx: Transaction) -> None:
            with self._journal.write():
                self._journal.run(
                    "INSERT INTO variants VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    intent.id,
                    tx.sender,
                    tx.nonce,
                    tx.to,
                    tx.data,
                    tx.value.to_bytes(32, "big"),
                    tx.gas,
                    amount_blob(tx.max_fee),
                    amount_blob(tx.tip),
                    tx.hash,
                    tx.raw,
                )

        return record

    def finish(self, intent: Intent, status: Status, *, result: TxResult | None = None, note: str = "") -> Outcome:
        """Write down what became of an intent."""
        tx, block = (result.hash, result.block) if result else (None, None)
        gas, fee = (result.gas_used, result.fee_wei) if result else (0, 0)
        with self._journal.write():
            self._journal.run(
                "INSERT INTO outcomes VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)",
                intent.id,
                status,
                tx,
                block,
                gas,
                fee.to_bytes(32, "big"),
                note,
                int(self._clock()),
            )
        found = self.outcome(intent)
        if found is None:
            raise LookupError("the row that was just written is missing")
        return found


def _intent(row: Row) -> Intent:
    return Intent(id=row[0], purpose=row[1], subject=row[2], body=row[3], at=row[4])


def _outcome(row: Row) -> Outcome:
    tx = Hash(row[3]) if row[3] else None
    fee = blob_amount(row[6])
    return Outcome(status=row[2], tx=tx, block=row[4], gas_used=row[5], fee_wei=fee, note=row[7], at=row[8])


def _transaction(row: Row) -> Transaction:
    return Transaction(
        sender=Address(row[2]),
        nonce=row[3],
        to=Address(row[4]) if row[4] else None,
        data=row[5],
        value=blob_amount(row[6]),
        gas=row[7],
        max_fee=blob_amount(row[8]),
        tip=blob_amount(row[9]),
        hash=Hash(row[10]),
        raw=row[11],
    )
