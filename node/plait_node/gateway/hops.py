"""Pay workers of other owners for what the payer paid of their work, out of channels of this gateway's own key.

A payment to a worker goes into the log of the payer's channel that it comes from before it is journalled and sent. The
log grows by compare-and-set and only its channel's owner appends, so of several gateways one pays, and a successor sees
what the one before promised. All of it is done by one task, so the vouchers of a channel leave in their order.

Where the payer does not end its job, or ends it at a successor, the job here is ended all the same once it is over:
what was prepaid in vain becomes credit, and nothing stays open that only this gateway's key can close.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from plait.ledger import PayerBook, PaymentError
from plait.ledger.payer import PayerChannel
from plait.protocol import codec
from plait.protocol.checks import CLOSES_AFTER_S
from plait.protocol.codec import Payment
from plait.protocol.errors import InternalError, PlaitError
from plait.protocol.ids import HASH_ZERO, Address, Hash, to_hex
from plait.protocol.money import worker_share_rounded_down
from plait.protocol.pb import gateway_pb2
from plait.protocol.receipts import ABORTED, ReceiptLeaf
from plait.protocol.typed import struct_hash
from plait_node.broker import BrokerError, LogRecord
from plait_node.gateway.custody import Custody
from plait_node.gateway.errors import OtherGatewayError
from plait_node.gateway.faces import Outside
from plait_node.gateway.hop_store import Promise, payment_of
from plait_node.gateway.parts import Part, covered
from plait_node.gateway.replay import payment_body
from plait_node.gateway.store import JobStore, StoredJob
from plait_node.policy import EVERYBODY, Guests

_LOG = logging.getLogger(__name__)
_AGAIN_S, _ONE_JOB_S, _LOOK_S = 1.0, 20.0, 60.0
_ROWS = 64


class Deposits(Protocol):
    """What keeps the channels to workers' owners open and topped up."""

    def covers(self, payee: Address, cumulative: int, /) -> bool:
        """Tell whether the channel holds `cumulative` base units; if not it is seen to in the background."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Strangers:
    """How workers of other owners serve at this gateway; `most_share` in millionths of the payer's amount."""

    book: PayerBook
    deposits: Deposits
    workers: Guests = EVERYBODY
    most_share: int = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Due:
    """What a worker's owner is to be promised for a request: base units in all, tokens covered, the end if it ended."""

    amount: int
    to: int
    leaf: ReceiptLeaf | None


class HopPayer:
    """Pays for jobs that it is woken for; start `run` once."""

    def __init__(self, outside: Outside, strangers: Strangers, store: JobStore, custody: Custody) -> None:
        self._me, self._domain, self._shared = outside.me, outside.domain, outside.broker.shared
        self._payers, self._broker, self._clock = outside.book, outside.broker, outside.clock
        self._strangers, self._book = strangers, strangers.book
        self._store, self._hops, self._custody = store, store.hops, custody
        self._due: dict[Hash, None] = {}
        self._open: dict[Hash, None] = {}  # requests of which something may be open at a worker's owner
        self._unsent: dict[Address, list[bytes]] = {}
        self._unfunded: dict[Address, tuple[int, set[Hash]]] = {}
        self._wake = asyncio.Event()
        self._looked = float("-inf")

    def wake(self, request: Hash) -> None:
        """Say that a job may owe its workers something now."""
        if any(part.worker != self._me for part in self._hops.parts(request)):
            self._due[request] = None
            self._wake.set()

    def taken_over(self, book: Hash) -> None:
        """Send again what the gateway before promised last out of a payer's channel: it may have died before it did."""
        for body in self._hops.last_bodies(book):
            payment = payment_of(body)
            if payment.voucher.signer(self._domain) != self._book.signer:
                self._unsent.setdefault(payment.voucher.message.payee, []).append(body)
                self._wake.set()

    def promised(self, payee: Address) -> int:
        """Return what the channel to a worker's owner is to hold, in base units."""
        wanted, _ = self._unfunded.get(payee, (0, ()))
        return max(self._book.channel(payee).cumulative, wanted)

    def leaves(self, channel: Hash, first: int) -> list[ReceiptLeaf] | None:
        """Return the ended jobs of a channel to a worker's owner from a place on; None for any other channel."""
        ours = next((each for payee in self._book.payees() if (each := self._book.channel(payee)).id == channel), None)
        return [each.leaf for each in ours.account.store.leaves(first)] if ours else None

    async def funded(self, payee: Address) -> None:
        """Pay what waited for a deposit."""
        _, held = self._unfunded.pop(payee, (0, set[Hash]()))
        for request in held:
            self.wake(request)

    async def run(self) -> None:
        """Pay until cancelled; what fails is tried again."""
        for payee in self._book.payees():  # whether these were sent nobody knows any more: the broker knows them again
            channel = self._book.channel(payee)
            self._open.update(dict.fromkeys(channel.running()))
            if last := channel.last():
                self._unsent.setdefault(payee, []).append(payment_body(last))
        while True:
            self._look()
            fine = await self._flush()
            due, self._due = self._due, {}
            for request in due:
                if self._unsent:  # after a crash nobody would know more than the last one of a channel
                    self._due[request] = None
                    fine = False
                else:
                    fine &= await self._try(request)
            if not fine:
                await asyncio.sleep(_AGAIN_S)
            elif not self._due:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_S):
                        await self._wake.wait()
            self._wake.clear()

    def _look(self) -> None:
        """See to the jobs that nobody ended, and nobody will, once in a while."""
        now = asyncio.get_running_loop().time()
        if now - self._looked < _LOOK_S:
            return
        self._looked = now
        for request in list(self._open):
            if not any(self._is_open(request, part.worker) for part in self._hops.parts(request)):
                del self._open[request]
            elif self._is_over(request, self._store.job(request)):
                self._due[request] = None

    async def _try(self, request: Hash) -> bool:
        try:
            async with asyncio.timeout(_ONE_JOB_S):
                await self._settle(request)
        except OtherGatewayError as error:
            _LOG.info("hop left to the channel's owner request=%s owner=%s", to_hex(request), error.url)
        except PaymentError as error:
            _LOG.error("hop not paid request=%s error=%s", to_hex(request), error.text)
        except (PlaitError, BrokerError, TimeoutError) as error:
            _LOG.warning("hop not paid yet request=%s error=%r", to_hex(request), error)
            self._due[request] = None
            return False
        return True

    async def _settle(self, request: Hash) -> None:
        job = self._store.job(request)
        workers = {part.worker for part in self._hops.parts(request)} - {self._me}
        book = job.channel if job else self._hops.book_of(request)
        for worker in sorted(workers) if book else ():
            channel = self._book.channel(worker)
            await self._decide_pending(channel)
            if book and not await self._left(request, job, book, channel) and self._next(request, job, channel):
                await self._pay(request, job, book, channel)

    async def _left(self, request: Hash, job: StoredJob | None, book: Hash, channel: PayerChannel) -> bool:
        """End a job here that its payer's channel took along to another gateway; tell whether it did."""
        if not self._is_closed(job) or not self._is_open(request, channel.payee):
            return False
        try:
            await self._custody.hold(book)
        except OtherGatewayError:
            # Whoever owns the payer's channel counts on what was promised here, and pays the rest: neither changes.
            due = self._end(request, channel, channel.paid(request).amount)
            if due.leaf is not None:
                await self._send_soon(channel, channel.end_job(request, due.leaf, to=due.to))
            return True
        return False

    async def _pay(self, request: Hash, job: StoredJob | None, book: Hash, channel: PayerChannel) -> None:
        def draft(last: int) -> bytes | None:
            due = self._next(request, job, channel)
            payment = channel.draft(request, due.amount, due.to, due.leaf) if due else None
            if payment is None or not self._is_funded(request, payment):
                return None
            promise = Promise(book=book, after=last, body=payment_body(payment))
            self._hops.set_pending(channel.id, promise)
            return promise.body

        if await self._custody.append_hop(book, draft):
            promise = self._hops.pending(channel.id)
            if promise is not None:
                await self._keep(channel, promise)

    def _next(self, request: Hash, job: StoredJob | None, channel: PayerChannel) -> _Due | None:
        """Return what a worker's owner is to be promised next, None when nothing is due."""
        if job is not None:
            return self._next_of(job, channel)
        # Long over: all that may be left is what was prepaid for nothing.
        if not self._is_open(request, channel.payee):
            return None
        earned = any(part.amount for part in self._parts_of(request, channel.payee))
        return self._end(request, channel, channel.paid(request).amount if earned else 0)

    def _next_of(self, job: StoredJob, channel: PayerChannel) -> _Due | None:
        paid = self._payers.owed(job.name, job.channel)
        ended = self._payers.ended(job.channel, job.name)
        parts, worker = self._hops.parts(job.name), channel.payee
        share = next((each.share for each in job.quote.workers if each.node == worker), 0)
        over = ended is not None or self._is_over(job.name, job)
        mine = covered(paid.amount, parts, ended=over).get(worker, 0)
        elsewhere = self._hops.paid_elsewhere(job.name, worker, channel.id)
        amount = max(0, worker_share_rounded_down(mine, share) - elsewhere)
        before = channel.paid(job.name)
        if before.ended or (amount <= before.amount and (not over or not before.known)):
            return None
        if ended is None and amount <= before.amount:
            whole = sum(part.amount for part in self._parts_of(job.name, worker))
            most = max(0, worker_share_rounded_down(whole, share) - elsewhere)
            unused = before.amount > most
            return self._end(job.name, channel, min(before.amount, most)) if unused or self._is_closed(job) else None
        to = max(before.to, paid.to)
        if ended is None:
            return _Due(amount=amount, to=to, leaf=None)
        windows = sum(part.windows for part in self._parts_of(job.name, worker))
        kind, name = (ended.kind, ended.hash) if windows else (ABORTED, job.name)
        leaf = ReceiptLeaf(kind=kind, hash=name, hop_amount=amount, windows_paid=windows)
        return _Due(amount=max(before.amount, amount), to=to, leaf=leaf)

    def _end(self, request: Hash, channel: PayerChannel, amount: int) -> _Due:
        """Return what ends a job that its payer did not end: what was promised above `amount` becomes credit."""
        before = channel.paid(request)
        windows = sum(part.windows for part in self._parts_of(request, channel.payee))
        leaf = ReceiptLeaf(kind=ABORTED, hash=request, hop_amount=amount, windows_paid=windows)
        return _Due(amount=before.amount, to=before.to, leaf=leaf)

    def _is_open(self, request: Hash, worker: Address) -> bool:
        """Tell whether a worker's owner was promised something for a request, and it has not ended there."""
        paid = self._book.channel(worker).paid(request)
        return paid.known and not paid.ended

    def _parts_of(self, request: Hash, worker: Address) -> list[Part]:
        return [part for part in self._hops.parts(request) if part.worker == worker]

    def _is_over(self, request: Hash, job: StoredJob | None) -> bool:
        """Tell whether no more work on a job is relayed, and no receipt ends it."""
        verdict = self._store.verdict(request)
        return (verdict is not None and verdict.fault is not None) or self._is_closed(job)

    def _is_closed(self, job: StoredJob | None) -> bool:
        """Tell whether it is too late to pay for work that was done: what a payer still pays, no worker gets."""
        return job is None or self._clock() > job.deadline + CLOSES_AFTER_S

    def _is_funded(self, request: Hash, payment: Payment) -> bool:
        """Tell whether the deposit covers a payment; if not it waits, and the worker goes on within its credit line."""
        voucher = payment.voucher.message
        wanted, held = self._unfunded.get(voucher.payee, (0, set[Hash]()))
        # Before the answer: whoever sees to the deposit asks how much is wanted.
        self._unfunded[voucher.payee] = (max(wanted, voucher.cumulative), held | {request})
        if not self._strangers.deposits.covers(voucher.payee, voucher.cumulative):
            return False
        if held - {request}:
            self._unfunded[voucher.payee] = (wanted, held - {request})
        else:
            del self._unfunded[voucher.payee]
        return True

    async def _decide_pending(self, channel: PayerChannel) -> None:
        """Find out whether the log holds a payment that we were about to keep; raise `BrokerError`, `InternalError`."""
        while (promise := self._hops.pending(channel.id)) is not None:
            rows = await self._shared.rows(self._me, promise.book, after=promise.after, most=_ROWS)
            if rows and rows[0].record.body != promise.body:
                # Another row is where ours would have to be: it is not in the log and never comes there.
                self._hops.clear_pending(channel.id)
                return
            record = LogRecord(kind="hop", holder=self._store.holder(), body=promise.body)
            if rows or await self._shared.append(self._me, promise.book, record, after=promise.after) is not None:
                await self._keep(channel, promise)

    async def _keep(self, channel: PayerChannel, promise: Promise) -> None:
        """Journal a payment that is in the log now, and send it."""
        pay, ended = promise.payment.pay.message, promise.payment.ended
        if ended:
            kept = channel.end_job(pay.request, ended[0], to=pay.to)
        else:
            kept = channel.pay(pay.request, pay.amount, pay.to)
        if payment_body(kept) != promise.body:
            raise InternalError(
                f"journal and log disagree about the channel {to_hex(channel.id)}; its operator must look"
            )
        self._hops.add(promise.book, promise.body, self._domain)
        self._hops.clear_pending(channel.id)
        await self._send_soon(channel, kept)

    async def _send_soon(self, channel: PayerChannel, payment: Payment) -> None:
        """Send a journalled payment, now or with the next try."""
        pay = payment.pay.message
        self._open[pay.request] = None
        self._unsent.setdefault(channel.payee, []).append(payment_body(payment))
        _LOG.info("worker paid owner=%s request=%s amount=%d", to_hex(channel.payee), to_hex(pay.request), pay.amount)
        if not await self._flush():
            self._due[pay.request] = None

    async def _flush(self) -> bool:
        """Send what is not sent, in order; tell whether all is."""
        for payee, bodies in list(self._unsent.items()):
            while bodies:
                try:
                    await self._send(payee, payment_of(bodies[0]))
                except BrokerError as error:
                    _LOG.warning("worker not told of its payment owner=%s error=%s", to_hex(payee), error)
                    return False
                bodies.pop(0)
            del self._unsent[payee]
        return True

    async def _send(self, payee: Address, payment: Payment) -> None:
        notice = gateway_pb2.PayNotice(hop=codec.payment_to_pb(payment))
        await self._broker.publish_pay(payee, HASH_ZERO, notice, key=struct_hash(payment.pay.message).hex())
