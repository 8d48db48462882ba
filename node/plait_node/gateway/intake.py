"""Take a job: every check in the order of PROTOCOL section 8, the money journaled, then the broker, then the Ack."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import nullcontext, suppress

from plait.ledger import Accepted, ExitingError, JournalFullError, UnknownChannelError
from plait.protocol import codec
from plait.protocol.checks import check_request, dearest_price, key_valid
from plait.protocol.codec import Payment
from plait.protocol.errors import (
    BadRequestError,
    BadSignatureError,
    ChannelUnknownError,
    DepositTooSmallError,
)
from plait.protocol.ids import Address, Hash, channel_id, to_hex
from plait.protocol.messages import Ack
from plait.protocol.pb import gateway_pb2, signed_pb2
from plait_node.broker import BrokerError
from plait_node.gateway.calls import Call, job_of, read_call
from plait_node.gateway.channels import ChannelView
from plait_node.gateway.custody import Custody
from plait_node.gateway.errors import BrokerAwayError, ConflictingJobError
from plait_node.gateway.faces import Outside
from plait_node.gateway.metrics import GatewayMetrics
from plait_node.gateway.offers import OfferBook
from plait_node.gateway.store import JobStore, StoredJob
from plait_node.policy import EVERYBODY, Guests

_LOG = logging.getLogger(__name__)
_URGENT_S, _SOON_S = 60, 600


class Till:
    """Accepts payments: in the channel's log and on disk before the Ack, told to settlement when jobs end."""

    def __init__(
        self, outside: Outside, store: JobStore, channels: ChannelView, custody: Custody, metrics: GatewayMetrics
    ) -> None:
        self._store, self._channels, self._custody, self._metrics = store, channels, custody, metrics
        self._me, self._domain, self._key, self._notify = outside.me, outside.domain, outside.key, outside.notify
        self.on_ended: Callable[[Hash], None] = lambda _: None

    async def hold(self, payer: Address, signer: Address) -> None:
        """Make sure that a channel is ours, if it is open at all; raise `OtherGatewayError`."""
        channel = channel_id(payer, self._me, signer)
        if not self._custody.owns(channel) and (await self._channels.slot(payer, signer)).deposit:
            await self._custody.hold(channel)

    async def accept(self, payment: Payment, *, payer: Address, signer: Address) -> Accepted:
        """Log and journal a payment of a channel; raise a `PaymentError`, having changed nothing."""
        channel = channel_id(payer, self._me, signer)
        slot = await self._channels.slot(payer, signer, needed=payment.voucher.message.cumulative)
        if slot.deposit == 0:
            raise UnknownChannelError(channel)
        accepted = await self._custody.accept(payment, slot, channel)
        if not accepted.repeated:
            self._metrics.vouchers.inc()
            self._metrics.paid.inc(accepted.new_amount)
        self._settle(payment, accepted)
        return accepted

    def ack(self, accepted: Accepted) -> signed_pb2.Acknowledgement:
        """Return the Ack of a journaled payment: the same one however often it is asked for."""
        return self.sign_ack(voucher=accepted.voucher, at=accepted.at, credit=accepted.credit)

    def sign_ack(self, *, voucher: Hash, at: int, credit: int) -> signed_pb2.Acknowledgement:
        """Return a signed Ack; `at` in Unix seconds, `credit` in base units."""
        signed = self._key.signed(self._domain, Ack(voucher=voucher, at=at))
        return signed_pb2.Acknowledgement(ack=codec.signed_to_pb(signed), credit=codec.amount_bytes(credit))

    def _settle(self, payment: Payment, accepted: Accepted) -> None:
        if payment.ended and not accepted.repeated:
            self._notify()
        for name in self._store.ended_by(payment.ended):
            if not self._store.ended(name):
                self._store.set_ended(name)
                self.on_ended(name)
                _LOG.info("job ended and paid request=0x%s cumulative=%d", name.hex(), accepted.cumulative)


class Intake:
    """Takes jobs, each request once."""

    def __init__(
        self,
        outside: Outside,
        store: JobStore,
        *,
        till: Till,
        channels: ChannelView,
        offers: OfferBook,
        payers: Guests = EVERYBODY,
    ) -> None:
        self._store, self._till, self._channels, self._offers = store, till, channels, offers
        self._payers = payers
        self._me, self._domain, self._directory = outside.me, outside.domain, outside.directory
        self._broker, self._book, self._clock = outside.broker, outside.book, outside.clock
        self._locks: dict[Hash, asyncio.Lock] = {}

    async def take(self, body: bytes) -> tuple[StoredJob, signed_pb2.Acknowledgement]:
        """Take a job and return it with the Ack of its payment; the very same call again returns the same."""
        call = read_call(codec.parse(gateway_pb2.JobCall, body), self._domain)
        lock = self._locks.setdefault(call.name, asyncio.Lock())
        try:
            async with lock:
                return await self._take(call)
        finally:
            if not lock.locked():
                self._locks.pop(call.name, None)

    async def publish(self, job: StoredJob) -> None:
        """Give a job to its group and to this operator's other gateways, unless done; raise `BrokerAwayError`."""
        if self._store.published(job.name):
            return
        priority = _priority(job.deadline - self._clock())
        try:
            await asyncio.gather(
                self._broker.publish_job(job.quote.group, priority, job.call, request=job.name),
                self._broker.shared.keep_job(self._me, job.name, job.call),
            )
        except BrokerError as error:
            text = f"your payment is journaled, but the job could not be queued ({error}); send the same call again"
            raise BrokerAwayError(text, moved=True) from error
        try:
            self._store.set_published(job.name)
        except JournalFullError as error:  # it is queued again after the next start, which changes nothing
            _LOG.warning("job queued, which could not be kept request=0x%s error=%s", job.name.hex(), error.text)

    def is_paid(self, job: StoredJob) -> bool:
        """Tell whether a job's first payment is in the journal: before that the job counts as never sent."""
        return self._book.known(job.channel) and self._book.owed(job.name, job.channel).known

    async def _take(self, call: Call) -> tuple[StoredJob, signed_pb2.Acknowledgement]:
        quote, request = call.quote.message, call.request.message
        check_request(quote, request, now=self._clock())
        self._payers.check(request.payer, "payer")
        signer = await self._check_signatures(call)
        await self._till.hold(request.payer, signer)
        known = self._store.job(call.name)
        if known is not None and not self.is_paid(known):
            known = None
        if known is not None and known.content != call.content:
            raise ConflictingJobError(
                f"request {to_hex(call.name)} is known with another prompt or other capsules; use a fresh nonce"
            )
        job = known or job_of(call, me=self._me, signer=signer)
        if known is None:
            await self._channels.check_clock()
            await self._check_money(call, job)
        async with self._offers.place(quote, request) if known is None else nullcontext():
            accepted = await self._accept(call.payment, job, known=known is not None)
            await self.publish(job)
        _LOG.info("job taken request=0x%s channel=0x%s", job.name.hex(), job.channel.hex())
        return job, self._till.ack(accepted)

    async def _accept(self, payment: Payment, job: StoredJob, *, known: bool) -> Accepted:
        """Keep a job and then its payment: a disk that is full for the one must not have taken the other."""
        if not known:
            self._store.add(job)
        try:
            return await self._till.accept(payment, payer=job.payer, signer=job.signer)
        except BaseException:
            if not self.is_paid(job):
                with suppress(JournalFullError):
                    self._store.drop(job.name)
            raise

    async def _check_signatures(self, call: Call) -> Address:
        request, payment = call.request.message, call.payment
        if call.quote.message.gateway != self._me:
            raise BadRequestError(f"this is gateway {to_hex(self._me)}; the quote is another one's")
        info = await self._directory.service_key(call.quote.signer(self._domain))
        if info is None or info.owner != self._me or not key_valid(info, self._clock()):
            raise BadSignatureError("the quote is not signed by this gateway; ask for a new one")
        signer = call.request.signer(self._domain)
        if payment.voucher.message.payer != request.payer or payment.voucher.signer(self._domain) != signer:
            raise BadSignatureError("request and voucher name different payers or signers; sign both with one key")
        if payment.pay.message.request != call.name:
            raise BadRequestError("the Pay is for another request")
        return signer

    async def _check_money(self, call: Call, job: StoredJob) -> None:
        """Refuse what could not be paid to its end before any money is taken."""
        quote, request, pay = call.quote.message, call.request.message, call.payment.pay.message
        needed = dearest_price(quote, request.profiles, input_tokens=request.input_tokens, output_tokens=0)
        if pay.amount < needed:
            raise BadRequestError(f"the first payment covers the prompt: {needed} base units, not {pay.amount}")
        most = dearest_price(
            quote, request.profiles, input_tokens=request.input_tokens, output_tokens=request.max_tokens
        )
        state = self._book.state(job.payer, job.signer)
        before = state.voucher.message.cumulative if state else 0
        total = max(before, call.payment.voucher.message.cumulative) + max(0, most - pay.amount)
        slot = await self._channels.slot(job.payer, job.signer, needed=total)
        if slot.deposit == 0:
            raise ChannelUnknownError(
                f"there is no channel of {to_hex(job.payer)} with this signer on chain; open it first"
            )
        if slot.exit_at:
            raise ExitingError(slot.exit_at)
        if total > slot.deposit:
            raise DepositTooSmallError(
                f"this job can bring the channel to {total} base units, its deposit is {slot.deposit}; "
                "top it up or lower max_tokens"
            )


def _priority(left_s: float) -> int:
    """Return how urgent a job is by the time its payer leaves it: 0 is served first."""
    if left_s <= _URGENT_S:
        return 0
    return 1 if left_s <= _SOON_S else 2
