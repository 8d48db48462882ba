"""What the gateway must know again after a restart: its jobs, what became of each, and their receipts.

Payments are in the journal of `plait.ledger`; answers are in the broker. This file joins the two.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from plait.ledger import Database, JournalError, JournalFullError, statements
from plait.protocol import codec
from plait.protocol.errors import Fault
from plait.protocol.ids import Address, Hash
from plait.protocol.messages import Quote, Receipt, Request
from plait.protocol.pb import gateway_pb2, signed_pb2
from plait.protocol.receipts import ABORTED, ReceiptLeaf
from plait.protocol.typed import Signed
from plait_node.gateway.errors import GatewayError
from plait_node.gateway.hop_store import HOP_TABLES, HopStore

_TABLES = """
CREATE TABLE IF NOT EXISTS jobs (
    request BLOB PRIMARY KEY, channel BLOB NOT NULL, payer BLOB NOT NULL, signer BLOB NOT NULL,
    content BLOB NOT NULL, call BLOB NOT NULL, deadline INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS published (request BLOB PRIMARY KEY);
CREATE TABLE IF NOT EXISTS proven (request BLOB, sequence INTEGER, PRIMARY KEY (request, sequence));
CREATE TABLE IF NOT EXISTS verdicts (request BLOB PRIMARY KEY, sequence INTEGER NOT NULL, fault BLOB);
CREATE TABLE IF NOT EXISTS receipts (request BLOB PRIMARY KEY, digest BLOB NOT NULL UNIQUE, receipt BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS earned (request BLOB PRIMARY KEY, amount BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS ended (request BLOB PRIMARY KEY);
CREATE TABLE IF NOT EXISTS holder (one INTEGER PRIMARY KEY CHECK (one = 1), name TEXT NOT NULL);
"""
# Answers are kept in the broker for two hours; after that a call can be of no use.
_CALL_LIFE_S = 2 * 3_600


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredJob:
    """A job that this gateway took."""

    name: Hash
    channel: Hash
    payer: Address
    signer: Address
    content: Hash
    call: gateway_pb2.JobCall
    deadline: int

    @property
    def quote(self) -> Quote:
        """Return the quote it was taken under."""
        return codec.signed_from_pb(self.call.quote, Quote).message

    @property
    def request(self) -> Request:
        """Return what was asked."""
        return codec.signed_from_pb(self.call.request, Request).message


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How an answer ended: at which sequence, and with what fault if it did not end well."""

    sequence: int
    fault: Fault | None


class JobStore(Database):
    """One SQLite file; every call that keeps something raises `JournalFullError` where its disk is full."""

    def __init__(self, path: Path) -> None:
        """Open the file; raise `GatewayError` where it cannot be used, `JournalFullError` where there is no room."""
        try:
            super().__init__(path)
        except JournalFullError:
            raise
        except JournalError as error:
            raise GatewayError(error.text) from error
        self.hops = HopStore(self)

    def holder(self) -> str:
        """Return the name under which this gateway holds leases, the same for ever: 16 hex digits."""
        if (known := self.one("SELECT name FROM holder")) is None:
            self.run("INSERT INTO holder VALUES (1, ?)", secrets.token_hex(8))
            return self.holder()
        return known[0]

    def add(self, job: StoredJob) -> None:
        """Keep a job, in place of another one under its name that was never paid."""
        self.run(
            "INSERT OR REPLACE INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?)",
            job.name,
            job.channel,
            job.payer,
            job.signer,
            job.content,
            job.call.SerializeToString(),
            job.deadline,
        )

    def drop(self, name: Hash) -> None:
        """Forget a job that was not paid for."""
        self.run("DELETE FROM jobs WHERE request = ?", name)

    def job(self, name: Hash) -> StoredJob | None:
        """Return a job."""
        row = self.one("SELECT * FROM jobs WHERE request = ?", name)
        return _job(row) if row else None

    def open_jobs(self, now: float) -> list[StoredJob]:
        """Return the jobs that may still be answered, oldest first; forget the calls of those long over."""
        with suppress(JournalFullError):  # they are forgotten later
            self.run("DELETE FROM jobs WHERE deadline < ?", int(now) - _CALL_LIFE_S)
        rows = self.all(
            "SELECT * FROM jobs WHERE deadline > ? AND request NOT IN (SELECT request FROM verdicts) ORDER BY rowid",
            int(now),
        )
        return [_job(row) for row in rows]

    def set_published(self, name: Hash) -> None:
        """Say that the broker has the job."""
        self.run("INSERT OR IGNORE INTO published VALUES (?)", name)

    def published(self, name: Hash) -> bool:
        """Say whether the broker has the job."""
        return self._has("published", name)

    def add_proven(self, name: Hash, sequence: int) -> None:
        """Keep that the DHT confirmed the job or receipt at a sequence: later it may hold a newer one, or none."""
        self.run("INSERT OR IGNORE INTO proven VALUES (?, ?)", name, sequence)

    def proven(self, name: Hash) -> frozenset[int]:
        """Return the sequences that the DHT confirmed."""
        rows = self.all("SELECT sequence FROM proven WHERE request = ?", name)
        return frozenset(row[0] for row in rows)

    def set_verdict(self, name: Hash, sequence: int, fault: Fault | None) -> None:
        """Keep how an answer ended; the first verdict stays."""
        blob = None if fault is None else codec.fault_to_pb(fault).SerializeToString()
        self.run("INSERT OR IGNORE INTO verdicts VALUES (?, ?, ?)", name, sequence, blob)

    def verdict(self, name: Hash) -> Verdict | None:
        """Return how an answer ended."""
        row = self.one("SELECT sequence, fault FROM verdicts WHERE request = ?", name)
        if row is None:
            return None
        fault = None if row[1] is None else codec.fault_from_pb(signed_pb2.Fault.FromString(row[1]))
        return Verdict(sequence=row[0], fault=fault)

    def add_receipt(self, name: Hash, digest: Hash, receipt: Signed[Receipt]) -> None:
        """Keep a receipt that passed."""
        blob = codec.signed_to_pb(receipt).SerializeToString()
        self.run("INSERT OR IGNORE INTO receipts VALUES (?, ?, ?)", name, digest, blob)

    def receipt(self, digest: Hash) -> signed_pb2.SignedReceipt | None:
        """Return a receipt by its digest."""
        row = self.one("SELECT receipt FROM receipts WHERE digest = ?", digest)
        return signed_pb2.SignedReceipt.FromString(row[0]) if row else None

    def request_of(self, digest: Hash) -> Hash | None:
        """Return the request that a receipt ends."""
        row = self.one("SELECT request FROM receipts WHERE digest = ?", digest)
        return Hash(row[0]) if row else None

    def ended_by(self, leaves: Sequence[ReceiptLeaf]) -> list[Hash]:
        """Return the requests that a payment's leaves end, as far as their receipts are known."""
        named = [leaf.hash if leaf.kind == ABORTED else self.request_of(leaf.hash) for leaf in leaves]
        return [name for name in named if name is not None]

    def raise_earned(self, name: Hash, amount: int) -> bool:
        """Keep what an answer is worth so far; return False unless it grew, as when a stream is read again."""
        blob = codec.amount_bytes(amount)
        row = self.one("SELECT amount FROM earned WHERE request = ?", name)
        if row is not None and row[0] >= blob:
            return False
        self.run("INSERT OR REPLACE INTO earned VALUES (?, ?)", name, blob)
        return True

    def earned(self, name: Hash) -> int:
        """Return what an answer is worth so far, in base units."""
        row = self.one("SELECT amount FROM earned WHERE request = ?", name)
        return codec.amount_from(row[0]) if row else 0

    def set_ended(self, name: Hash) -> None:
        """Say that the payer ended the job with its leaf."""
        self.run("INSERT OR IGNORE INTO ended VALUES (?)", name)

    def ended(self, name: Hash) -> bool:
        """Say whether the payer ended the job."""
        return self._has("ended", name)

    def _prepare(self) -> None:
        with self.write():
            for statement in statements(_TABLES + HOP_TABLES):
                self.run(statement)

    def _has(self, table: str, name: Hash) -> bool:
        return self.one(f"SELECT 1 FROM {table} WHERE request = ?", name) is not None  # noqa: S608 - our own table names


def _job(row: tuple[bytes, bytes, bytes, bytes, bytes, bytes, int]) -> StoredJob:
    return StoredJob(
        name=Hash(row[0]),
        channel=Hash(row[1]),
        payer=Address(row[2]),
        signer=Address(row[3]),
        content=Hash(row[4]),
        call=gateway_pb2.JobCall.FromString(row[5]),
        deadline=row[6],
    )
