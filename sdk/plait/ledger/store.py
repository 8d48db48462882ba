"""One channel's rows in the journal: its payments and the jobs that ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from plait.ledger.database import Row
from plait.ledger.journal import Journal, amount_blob, blob_amount
from plait.protocol.ids import Address, Hash, Signature, channel_id
from plait.protocol.messages import Voucher
from plait.protocol.receipts import ReceiptLeaf

Role = Literal["payer", "payee"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Paid:
    """What was paid for a request on a channel: base units in all, tokens covered, whether it ended there."""

    amount: int = 0
    to: int = 0
    ended: bool = False
    known: bool = False  # a Pay named the request, be it over nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """One leaf of the receipts tree and the request it stands for."""

    place: int
    leaf: ReceiptLeaf
    request: Hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The next state of a channel: `increase` is what the request is paid more, `growth` what the voucher grows by."""

    request: Hash
    amount: int
    to: int
    increase: int
    growth: int
    cumulative: int
    credit: int
    jobs: int
    root: Hash
    consistency: tuple[Hash, ...] = ()
    ended: tuple[Ended, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One payment as journalled; amounts in base units, `at` in Unix seconds."""

    seq: int
    request: Hash
    amount: int
    to: int
    increase: int
    cumulative: int
    credit: int
    jobs: int
    root: Hash
    pay: Hash  # struct hash
    consistency: tuple[Hash, ...]
    voucher_signature: Signature
    pay_signature: Signature
    at: int


class ChannelStore:
    """Reads one channel from the journal and appends to it, in the caller's transaction."""

    def __init__(self, journal: Journal, role: Role, payer: Address, payee: Address, signer: Address) -> None:
        self.journal = journal
        self.payer = payer
        self.payee = payee
        self.signer = signer
        self.channel = channel_id(payer, payee, signer)
        self._role: Role = role

    def head(self) -> Entry | None:
        """Return the last payment."""
        return self._entry("SELECT * FROM payments WHERE role = ? AND channel = ? ORDER BY seq DESC LIMIT 1")

    def entry_of(self, pay: Hash) -> Entry | None:
        """Return a payment by the struct hash of its Pay."""
        return self._entry("SELECT * FROM payments WHERE role = ? AND channel = ? AND pay = ?", pay)

    def last_of(self, request: Hash) -> Entry | None:
        """Return the last payment for a request."""
        return self._entry(
            "SELECT * FROM payments WHERE role = ? AND channel = ? AND request = ? ORDER BY seq DESC LIMIT 1", request
        )

    def first_with(self, voucher: Voucher) -> Entry | None:
        """Return the first payment that made this voucher."""
        return self._entry(
            "SELECT * FROM payments WHERE role = ? AND channel = ? AND cumulative = ? AND jobs = ? AND root = ? "
            "ORDER BY seq LIMIT 1",
            amount_blob(voucher.cumulative),
            voucher.jobs,
            voucher.receipts_root,
        )

    def running(self, before: int) -> list[Entry]:
        """Return the last payments of requests that had not ended by a payment, where they are older than it."""
        rows = self.journal.all(
            "SELECT p.* FROM payments p WHERE p.role = ? AND p.channel = ? AND p.seq IN "
            "(SELECT MAX(seq) FROM payments WHERE role = p.role AND channel = p.channel AND seq <= ? GROUP BY request) "
            "AND p.seq < ? AND NOT EXISTS (SELECT 1 FROM leaves l WHERE l.role = p.role AND l.channel = p.channel "
            "AND l.request = p.request AND l.payment <= ?) ORDER BY p.seq",
            self._role,
            self.channel,
            before,
            before,
            before,
        )
        return [_entry(row) for row in rows]

    def grew(self, entry: Entry) -> bool:
        """Tell whether a payment made the voucher grow: credit did not cover all of it."""
        before = self._entry(
            "SELECT * FROM payments WHERE role = ? AND channel = ? AND seq < ? ORDER BY seq DESC LIMIT 1", entry.seq
        )
        return entry.cumulative > (before.cumulative if before else 0)

    def entries_after(self, seq: int) -> list[Entry]:
        """Return the payments after one, oldest first."""
        query = "SELECT * FROM payments WHERE role = ? AND channel = ? AND seq > ? ORDER BY seq"
        return [_entry(row) for row in self.journal.all(query, self._role, self.channel, seq)]

    def latest(self, count: int) -> list[Entry]:
        """Return the last payments, oldest first."""
        query = "SELECT * FROM payments WHERE role = ? AND channel = ? ORDER BY seq DESC LIMIT ?"
        return [_entry(row) for row in reversed(self.journal.all(query, self._role, self.channel, count))]

    def paid(self, request: Hash) -> Paid:
        """Return what was paid for a request on this channel."""
        last = self.last_of(request)
        ended = self.ended(request) is not None
        return Paid(amount=last.amount, to=last.to, ended=ended, known=True) if last else Paid(ended=ended)

    def count(self) -> int:
        """Return how many jobs ended."""
        row = self.journal.one("SELECT COUNT(*) FROM leaves WHERE role = ? AND channel = ?", self._role, self.channel)
        return int(row[0]) if row else 0

    def leaves(self, first: int = 0) -> list[Ended]:
        """Return the ended jobs from a place on."""
        query = "SELECT * FROM leaves WHERE role = ? AND channel = ? AND place >= ? ORDER BY place"
        return [_ended(row) for row in self.journal.all(query, self._role, self.channel, first)]

    def leaves_of(self, seq: int) -> tuple[ReceiptLeaf, ...]:
        """Return the jobs that ended with a payment."""
        query = "SELECT * FROM leaves WHERE role = ? AND channel = ? AND payment = ? ORDER BY place"
        return tuple(_ended(row).leaf for row in self.journal.all(query, self._role, self.channel, seq))

    def ended(self, request: Hash) -> Ended | None:
        """Return the leaf that ended a request."""
        query = "SELECT * FROM leaves WHERE role = ? AND channel = ? AND request = ?"
        row = self.journal.one(query, self._role, self.channel, request)
        return _ended(row) if row else None

    def append(self, step: Step, pay: Hash, *, signatures: tuple[Signature, Signature], at: int) -> Entry:
        """Append a state with its voucher's and its Pay's signature."""
        self.journal.run(
            "INSERT OR IGNORE INTO channels VALUES (?, ?, ?, ?, ?)",
            self._role,
            self.channel,
            self.payer,
            self.payee,
            self.signer,
        )
        seq = self.journal.run(
            "INSERT INTO payments VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            self._role,
            self.channel,
            step.request,
            amount_blob(step.amount),
            step.to,
            amount_blob(step.increase),
            amount_blob(step.cumulative),
            amount_blob(step.credit),
            step.jobs,
            step.root,
            pay,
            b"".join(step.consistency),
            *signatures,
            at,
        )
        self.append_leaves(step.ended, seq)
        return self.entries_after(seq - 1)[0]

    def append_leaves(self, ended: Sequence[Ended], payment: int = 0) -> None:
        """Append ended jobs; payment 0 stands for one that this journal does not hold."""
        for each in ended:
            self.journal.run(
                "INSERT INTO leaves VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                self._role,
                self.channel,
                each.place,
                each.leaf.kind,
                each.leaf.hash,
                amount_blob(each.leaf.hop_amount),
                each.leaf.windows_paid,
                each.request,
                payment,
            )

    def _entry(self, query: str, *values: object) -> Entry | None:
        row = self.journal.one(query, self._role, self.channel, *values)
        return _entry(row) if row else None


def _entry(row: Row) -> Entry:
    proof = bytes(row[12])
    return Entry(
        seq=row[0],
        request=Hash(row[3]),
        amount=blob_amount(row[4]),
        to=row[5],
        increase=blob_amount(row[6]),
        cumulative=blob_amount(row[7]),
        credit=blob_amount(row[8]),
        jobs=row[9],
        root=Hash(row[10]),
        pay=Hash(row[11]),
        consistency=tuple(Hash(proof[at : at + 32]) for at in range(0, len(proof), 32)),
        voucher_signature=Signature(row[13]),
        pay_signature=Signature(row[14]),
        at=row[15],
    )


def _ended(row: Row) -> Ended:
    leaf = ReceiptLeaf(kind=row[3], hash=Hash(row[4]), hop_amount=blob_amount(row[5]), windows_paid=row[6])
    return Ended(place=row[2], leaf=leaf, request=Hash(row[7]))
