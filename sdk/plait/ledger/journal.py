"""The journal: what was signed, accepted and sent, on disk before anybody hears of it.

What concerns money is only ever appended; triggers refuse changes.
"""

from __future__ import annotations

from collections.abc import Iterable

from plait.ledger.database import Database, statements
from plait.ledger.errors import ForeignJournalError, NewerJournalError

# Amounts are 12 bytes big-endian, so that they compare like numbers: SQLite's integers end at 2^63.
_TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE channels (
    role TEXT NOT NULL, channel BLOB NOT NULL, payer BLOB NOT NULL, payee BLOB NOT NULL, signer BLOB NOT NULL,
    PRIMARY KEY (role, channel)
) WITHOUT ROWID;
CREATE TABLE payments (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, role TEXT NOT NULL, channel BLOB NOT NULL, request BLOB NOT NULL,
    amount BLOB NOT NULL, paid_to INTEGER NOT NULL, increase BLOB NOT NULL, cumulative BLOB NOT NULL,
    credit BLOB NOT NULL, jobs INTEGER NOT NULL, root BLOB NOT NULL, pay BLOB NOT NULL, consistency BLOB NOT NULL,
    voucher_signature BLOB NOT NULL, pay_signature BLOB NOT NULL, at INTEGER NOT NULL,
    UNIQUE (role, channel, pay)
);
CREATE INDEX payments_of_channel ON payments (role, channel, seq);
CREATE INDEX payments_of_voucher ON payments (channel, cumulative, jobs);
CREATE INDEX payments_of_request ON payments (role, request, channel, seq);
CREATE TABLE leaves (
    role TEXT NOT NULL, channel BLOB NOT NULL, place INTEGER NOT NULL, kind INTEGER NOT NULL, hash BLOB NOT NULL,
    hop_amount BLOB NOT NULL, windows_paid INTEGER NOT NULL, request BLOB NOT NULL, payment INTEGER NOT NULL,
    PRIMARY KEY (role, channel, place), UNIQUE (role, channel, request)
) WITHOUT ROWID;
CREATE TABLE expected_leaves (
    channel BLOB NOT NULL, request BLOB NOT NULL, kind INTEGER NOT NULL, hash BLOB NOT NULL,
    hop_amount BLOB NOT NULL, windows_paid INTEGER NOT NULL,
    PRIMARY KEY (channel, request), UNIQUE (channel, kind, hash)
) WITHOUT ROWID;
CREATE TABLE earned (
    seq INTEGER PRIMARY KEY, channel BLOB NOT NULL, request BLOB NOT NULL, amount BLOB NOT NULL
);
CREATE INDEX earned_of_request ON earned (channel, request, seq);
CREATE TABLE closes (
    seq INTEGER PRIMARY KEY, channel BLOB NOT NULL, claimed BLOB NOT NULL, exit_at INTEGER NOT NULL
);
CREATE TABLE signatures (
    kind TEXT NOT NULL, slot BLOB NOT NULL, digest BLOB NOT NULL, PRIMARY KEY (kind, slot)
) WITHOUT ROWID;
CREATE TABLE intents (
    id INTEGER PRIMARY KEY AUTOINCREMENT, purpose TEXT NOT NULL, subject BLOB NOT NULL, body BLOB NOT NULL,
    at INTEGER NOT NULL, UNIQUE (purpose, subject)
);
CREATE TABLE variants (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, intent INTEGER NOT NULL REFERENCES intents (id), sender BLOB NOT NULL,
    nonce INTEGER NOT NULL, target BLOB, data BLOB NOT NULL, value BLOB NOT NULL, gas INTEGER NOT NULL,
    max_fee BLOB NOT NULL, tip BLOB NOT NULL, hash BLOB NOT NULL, raw BLOB NOT NULL
);
CREATE INDEX variants_of_intent ON variants (intent, seq);
CREATE TABLE outcomes (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, intent INTEGER NOT NULL REFERENCES intents (id), status TEXT NOT NULL,
    tx BLOB, block INTEGER, gas_used INTEGER, fee_wei BLOB, note TEXT NOT NULL, at INTEGER NOT NULL
);
CREATE INDEX outcomes_of_intent ON outcomes (intent, seq);
CREATE TABLE checkpoints (
    name TEXT NOT NULL, block INTEGER NOT NULL, hash BLOB NOT NULL, PRIMARY KEY (name, block)
) WITHOUT ROWID;
CREATE TABLE asked (
    number INTEGER PRIMARY KEY, block INTEGER NOT NULL, body BLOB NOT NULL
);
"""
# A prompt is kept under the commitment to it, so that no reorganisation can join it to another request. What was read
# from the chain is read again: `asked` holds nothing that only this file knows.
_PROMPTS = """
DROP TABLE asked;
DELETE FROM checkpoints WHERE name = 'requests';
CREATE TABLE asked (
    number INTEGER PRIMARY KEY, block INTEGER NOT NULL, prompt BLOB NOT NULL, deadline INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE TABLE prompts (
    prompt BLOB PRIMARY KEY, ids BLOB NOT NULL, content_key BLOB NOT NULL, deadline INTEGER NOT NULL
) WITHOUT ROWID;
"""
# How far the log that a channel has outside, at the node's broker, was taken into this file.
_LOGGED = """
CREATE TABLE logged (channel BLOB PRIMARY KEY, sequence INTEGER NOT NULL) WITHOUT ROWID;
"""
# What others owe for work that they left unpaid. It only withholds credit: it may change, and is no claim.
_DEBTS = """
CREATE TABLE debts (
    kind TEXT NOT NULL, debtor BLOB NOT NULL, request BLOB NOT NULL, amount BLOB NOT NULL, since INTEGER NOT NULL,
    PRIMARY KEY (kind, debtor, request)
) WITHOUT ROWID;
"""
_APPEND_ONLY = (
    "channels",
    "payments",
    "leaves",
    "expected_leaves",
    "earned",
    "closes",
    "signatures",
    "intents",
    "variants",
    "outcomes",
)


class Journal(Database):
    """One journal file, made when it is not there."""

    def bind(self, identity: bytes) -> None:
        """Tie a new journal to one deployment; raise `ForeignJournalError` when it is tied to another."""
        with self.write():
            found = self.one("SELECT value FROM meta WHERE name = 'identity'")
            if found is None:
                self.run("INSERT INTO meta VALUES ('identity', ?)", identity)
            elif found[0] != identity:
                raise ForeignJournalError(self.path)

    def _prepare(self) -> None:
        with self.write():
            row = self.one("PRAGMA user_version")
            version = int(row[0]) if row else 0
            steps = _steps()
            if version > len(steps):
                raise NewerJournalError(self.path, found=version, known=len(steps))
            for statement in (each for step in steps[version:] for each in step):
                self.run(statement)
            self.run(f"PRAGMA user_version = {len(steps)}")


def amount_blob(amount: int) -> bytes:
    """Return an amount as the journal stores it."""
    return amount.to_bytes(12, "big")


def blob_amount(blob: bytes) -> int:
    """Return the amount in a stored blob."""
    return int.from_bytes(blob, "big")


def _steps() -> tuple[tuple[str, ...], ...]:
    """Return what leads from each version of the file to the next, from no file on."""
    first = (*statements(_TABLES), *_guards(_APPEND_ONLY))
    return first, tuple(statements(_PROMPTS)), tuple(statements(_LOGGED)), tuple(statements(_DEBTS))


def _guards(tables: Iterable[str]) -> Iterable[str]:
    for table in tables:
        for change in ("UPDATE", "DELETE"):
            yield (
                f"CREATE TRIGGER {table}_no_{change.lower()} BEFORE {change} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
            )
