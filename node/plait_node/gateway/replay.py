"""Take a channel's log into this gateway's own journal and store, and write into the log what it lacks."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress

from plait.ledger import JournalFullError
from plait.protocol import codec
from plait.protocol.codec import Payment
from plait.protocol.errors import InternalError, PlaitError
from plait.protocol.ids import Hash, to_hex
from plait.protocol.messages import Receipt
from plait.protocol.pb import gateway_pb2, signed_pb2
from plait.protocol.receipts import RECEIPT, ReceiptLeaf
from plait.protocol.typed import struct_hash
from plait_node.broker import LogRecord, LogRow
from plait_node.gateway.calls import job_of, read_call
from plait_node.gateway.faces import Outside
from plait_node.gateway.hop_store import payment_of
from plait_node.gateway.store import JobStore, StoredJob

_LOG = logging.getLogger(__name__)
_AT_ONCE = 64
_JOB_LIFE_S = 2 * 3_600  # as long as the broker keeps jobs and answers


class Replay:
    """Brings journal and log of a channel together, and fetches the jobs that other gateways took."""

    def __init__(self, outside: Outside, store: JobStore) -> None:
        self._me, self._domain, self._clock = outside.me, outside.domain, outside.clock
        self._book, self._shared, self._store = outside.book, outside.broker.shared, store

    async def catch_up(self, channel: Hash, end: LogRow | None, holder: str) -> int | None:
        """Return the place of the log's last row once journal and log hold the same, None when the log grew meanwhile.

        `end` is the last row that was seen. Raise `BrokerError`, or `InternalError` when they contradict each other.
        """
        logged, last = self._book.logged(channel), end.sequence if end else 0
        if last >= logged and (logged or not self._book.known(channel)):
            with suppress(InternalError):
                return await self._read(channel, logged)
        # This journal is older than the log, or the broker lost rows; then their places may be others' now.
        return await self._mend(channel, holder)

    async def load_jobs(self, channel: Hash) -> None:
        """Fetch the jobs of a channel that are paid, have not ended, and were taken by another gateway."""
        since = int(self._clock()) - _JOB_LIFE_S
        for name in self._book.running(channel, since):
            if self._store.job(name) is None and (job := await self.job(name)) is not None:
                self._store.add(job)

    async def job(self, name: Hash) -> StoredJob | None:
        """Return a job that a gateway of this operator took; raise `BrokerError`."""
        raw = await self._shared.job(self._me, name)
        if raw is None:
            return None
        call = read_call(raw, self._domain)
        return job_of(call, me=self._me, signer=call.request.signer(self._domain))

    async def _read(self, channel: Hash, after: int) -> int:
        last = after
        while rows := await self._shared.rows(self._me, channel, after=last, most=_AT_ONCE):
            self._apply(channel, rows)
            last = rows[-1].sequence
        if last != after:
            self._book.set_logged(channel, last)
        return last

    async def _mend(self, channel: Hash, holder: str) -> int | None:
        last = await self._read(channel, 0)
        missing = list(self._missing(channel, holder, there=await self._paid(channel)))
        for record in missing:
            sequence = await self._shared.append(self._me, channel, record, after=last)
            if sequence is None:
                return None
            last = sequence
        if missing:
            _LOG.warning("the log lacked what the journal holds channel=%s records=%d", to_hex(channel), len(missing))
        self._book.set_logged(channel, last)
        return last

    async def _paid(self, channel: Hash) -> set[Hash]:
        """Return the Pays in a channel's log, those to workers' owners among them."""
        found: set[Hash] = set()
        last = 0
        while rows := await self._shared.rows(self._me, channel, after=last, most=_AT_ONCE):
            found |= {_pay(payment_of(row.record.body)) for row in rows if row.record.kind in ("pay", "hop")}
            last = rows[-1].sequence
        return found

    def _missing(self, channel: Hash, holder: str, *, there: set[Hash]) -> Iterator[LogRecord]:
        for payment, at in self._book.payments(channel):
            if _pay(payment) not in there:
                yield from self._records(payment, at, holder)
        for body in self._store.hops.bodies(channel):
            if _pay(payment_of(body)) not in there:
                yield LogRecord(kind="hop", holder=holder, body=body)

    def _records(self, payment: Payment, at: int, holder: str) -> Iterator[LogRecord]:
        for leaf in payment.ended:
            receipt = self._store.receipt(leaf.hash) if leaf.kind == RECEIPT else None
            if receipt is not None:
                yield LogRecord(kind="receipt", holder=holder, body=receipt_body(leaf, receipt))
        earned = self._store.earned(payment.pay.message.request)
        yield LogRecord(kind="pay", holder=holder, body=payment_body(payment), at=at, earned=earned)

    def _apply(self, channel: Hash, rows: Sequence[LogRow]) -> None:
        try:
            with self._book.together(), self._store.write():
                for row in rows:
                    self._take(channel, row)
        except JournalFullError:
            raise
        except PlaitError as error:
            _LOG.warning("the log does not fit the journal channel=%s error=%s", to_hex(channel), error.text)
            raise InternalError(
                f"the log of channel {to_hex(channel)} does not go on where this gateway's journal ends "
                f"({error.text}); its operator must look"
            ) from error

    def _take(self, channel: Hash, row: LogRow) -> None:
        match row.record.kind:
            case "fence":
                return
            case "pay":
                self._take_payment(channel, row)
            case "hop":
                self._store.hops.add(channel, row.record.body, self._domain)
            case "receipt":
                entry = codec.parse(gateway_pb2.ReceiptEntry, row.record.body)
                receipt = codec.signed_from_pb(entry.receipt, Receipt)
                name, digest = receipt.message.request, receipt.digest(self._domain)
                self._store.add_receipt(name, digest, receipt)
                self._book.end_job(channel, name, codec.receipt_leaf_from_pb(entry.leaf))

    def _take_payment(self, channel: Hash, row: LogRow) -> None:
        payment, earned = payment_of(row.record.body), row.record.earned
        name = payment.pay.message.request
        self._book.replay(payment, at=row.record.at, sequence=row.sequence)
        if earned and self._store.raise_earned(name, earned):
            self._book.earn(channel, name, earned)
        for ended in self._store.ended_by(payment.ended):
            self._store.set_ended(ended)


def payment_body(payment: Payment) -> bytes:
    """Return a payment as a record of the log holds it."""
    return codec.payment_to_pb(payment).SerializeToString()


def receipt_body(leaf: ReceiptLeaf, receipt: signed_pb2.SignedReceipt) -> bytes:
    """Return a receipt and its leaf as a record of the log holds them."""
    return gateway_pb2.ReceiptEntry(leaf=codec.receipt_leaf_to_pb(leaf), receipt=receipt).SerializeToString()


def _pay(payment: Payment) -> Hash:
    return struct_hash(payment.pay.message)
