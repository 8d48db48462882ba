"""What the gateway must know again of the money it passes on: whose work it was, what was promised to whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from plait.ledger import Database
from plait.protocol import codec
from plait.protocol.codec import Payment
from plait.protocol.ids import Address, Hash, channel_id
from plait.protocol.pb import signed_pb2
from plait.protocol.receipts import ReceiptLeaf
from plait.protocol.typed import Domain
from plait_node.gateway.parts import Part

HOP_TABLES = """
CREATE TABLE IF NOT EXISTS parts (
    request BLOB, attempt INTEGER, worker BLOB NOT NULL, amount BLOB NOT NULL, windows INTEGER NOT NULL,
    lead BLOB NOT NULL, PRIMARY KEY (request, attempt)
);
CREATE TABLE IF NOT EXISTS hops (
    seq INTEGER PRIMARY KEY, book BLOB NOT NULL, channel BLOB NOT NULL, payee BLOB NOT NULL, request BLOB NOT NULL,
    amount BLOB NOT NULL, body BLOB NOT NULL UNIQUE
);
CREATE INDEX IF NOT EXISTS hops_of_request ON hops (request, payee);
CREATE INDEX IF NOT EXISTS hops_of_book ON hops (book, seq);
CREATE TABLE IF NOT EXISTS pending (
    channel BLOB PRIMARY KEY, book BLOB NOT NULL, after INTEGER NOT NULL, body BLOB NOT NULL
);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """A payment to a worker's owner that goes, or went, into the log of the payer's channel `book` behind a row."""

    book: Hash
    after: int
    body: bytes  # a Payment, serialised

    @property
    def payment(self) -> Payment:
        """Return the payment."""
        return payment_of(self.body)


def payment_of(body: bytes) -> Payment:
    """Read a payment as a record of the log holds it; raise `MalformedMessageError`."""
    return codec.payment_from_pb(codec.parse(signed_pb2.Payment, body))


def worth(payment: Payment) -> int:
    """Return what a request is paid on its channel after this payment, without what became credit."""
    leaf: ReceiptLeaf | None = payment.ended[0] if payment.ended else None
    return leaf.hop_amount if leaf else payment.pay.message.amount


class HopStore:
    """Tables beside those of the jobs, over the same connection and within the same transactions."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def set_parts(self, request: Hash, parts: Sequence[Part]) -> None:
        """Keep an answer's parts; a stream that is read again takes nothing back."""
        for part in parts:
            amount, lead = codec.amount_bytes(part.amount), codec.amount_bytes(part.lead)
            self._db.run(
                "INSERT INTO parts VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET amount = excluded.amount, "
                "windows = excluded.windows WHERE excluded.windows > windows",
                request,
                part.attempt,
                part.worker,
                amount,
                part.windows,
                lead,
            )

    def parts(self, request: Hash) -> tuple[Part, ...]:
        """Return an answer's parts, in order."""
        rows = self._db.all(
            "SELECT attempt, worker, amount, windows, lead FROM parts WHERE request = ? ORDER BY attempt", request
        )
        return tuple(
            Part(
                attempt=row[0],
                worker=Address(row[1]),
                amount=codec.amount_from(row[2]),
                windows=row[3],
                lead=codec.amount_from(row[4]),
            )
            for row in rows
        )

    def add(self, book: Hash, body: bytes, domain: Domain) -> None:
        """Keep a payment that is in the log of a payer's channel, by whichever gateway; again is no error."""
        payment = payment_of(body)
        voucher = payment.voucher.message
        channel = channel_id(voucher.payer, voucher.payee, payment.voucher.signer(domain))
        self._db.run(
            "INSERT OR IGNORE INTO hops VALUES (NULL, ?, ?, ?, ?, ?, ?)",
            book,
            channel,
            voucher.payee,
            payment.pay.message.request,
            codec.amount_bytes(worth(payment)),
            body,
        )

    def paid_elsewhere(self, request: Hash, payee: Address, channel: Hash) -> int:
        """Return what a worker's owner was paid for a request on other channels than this gateway's, in base units."""
        rows = self._db.all(
            "SELECT amount FROM hops WHERE seq IN (SELECT MAX(seq) FROM hops WHERE request = ? AND payee = ? "
            "AND channel != ? GROUP BY channel)",
            request,
            payee,
            channel,
        )
        return sum(codec.amount_from(row[0]) for row in rows)

    def book_of(self, request: Hash) -> Hash | None:
        """Return the payer's channel out of which a request's workers were paid."""
        row = self._db.one("SELECT book FROM hops WHERE request = ? ORDER BY seq DESC LIMIT 1", request)
        return Hash(row[0]) if row else None

    def bodies(self, book: Hash) -> list[bytes]:
        """Return all payments in the log of a payer's channel, oldest first."""
        return [row[0] for row in self._db.all("SELECT body FROM hops WHERE book = ? ORDER BY seq", book)]

    def last_bodies(self, book: Hash) -> list[bytes]:
        """Return the last payment of each hop channel in that log."""
        query = "SELECT body FROM hops WHERE seq IN (SELECT MAX(seq) FROM hops WHERE book = ? GROUP BY channel)"
        return [row[0] for row in self._db.all(query, book)]

    def set_pending(self, channel: Hash, promise: Promise) -> None:
        """Keep, before the log is asked, what may be in it afterwards."""
        statement = "INSERT OR REPLACE INTO pending VALUES (?, ?, ?, ?)"
        self._db.run(statement, channel, promise.book, promise.after, promise.body)

    def pending(self, channel: Hash) -> Promise | None:
        """Return the payment of a hop channel of which it is not known yet whether the log holds it."""
        row = self._db.one("SELECT book, after, body FROM pending WHERE channel = ?", channel)
        return Promise(book=Hash(row[0]), after=row[1], body=row[2]) if row else None

    def clear_pending(self, channel: Hash) -> None:
        """Say that it is known now."""
        self._db.run("DELETE FROM pending WHERE channel = ?", channel)
