"""The gateway role: takes jobs and payments, relays answers, settles. `http.py` is its face."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine
from pathlib import Path
from typing import Self

from plait.ledger import SharedBook
from plait.protocol import codec
from plait.protocol.checks import CLOCK_TOLERANCE_S, MAX_DEADLINE_S, NodeDirectory
from plait.protocol.errors import (
    BadRequestError,
    BadSignatureError,
    BusyError,
    PlaitError,
    UnknownJobError,
    UnknownModelError,
)
from plait.protocol.ids import Address, Hash, channel_id, hash32, to_hex
from plait.protocol.messages import Cancel, Resume
from plait.protocol.pb import gateway_pb2, signed_pb2
from plait.protocol.typed import Domain, Key, Signed
from plait_node.broker import Broker, BrokerError
from plait_node.gateway.answer import Event
from plait_node.gateway.channels import ChannelView
from plait_node.gateway.custody import Custody
from plait_node.gateway.errors import OtherGatewayError, StoppedError, UnknownFileError
from plait_node.gateway.faces import Chain, Deposits, OnChain, Outside
from plait_node.gateway.hops import HopPayer, Strangers
from plait_node.gateway.intake import Intake, Till
from plait_node.gateway.limits import MOST_STREAMS, STREAMS_A_REQUEST
from plait_node.gateway.metrics import GatewayMetrics
from plait_node.gateway.offers import Needs, OfferBook
from plait_node.gateway.prompts import PromptDesk
from plait_node.gateway.relay import Relay, RelayParts
from plait_node.gateway.replay import Replay
from plait_node.gateway.shelf import ModelShelf
from plait_node.gateway.store import JobStore, StoredJob
from plait_node.gateway.worker_line import WorkerLine
from plait_node.policy import EVERYBODY, Guests

_LOG = logging.getLogger(__name__)
_KEPT_ANSWERS = 256
_RECEIPTS_A_CALL = 100
_RETRY_S = 1.0


class Gateway:
    """One gateway; `async with` runs its tasks."""

    def __init__(
        self,
        *,
        owner: Address,
        key: Key,
        domain: Domain,
        book: SharedBook,
        store: Path,
        broker: Broker,
        directory: NodeDirectory,
        chain: Chain,
        on_chain: OnChain,
        lookup: Deposits,
        models: Path,
        notify: Callable[[], None],
        clock: Callable[[], float],
        patience_s: float = 5.0,
        payers: Guests = EVERYBODY,
        serves: Collection[Hash] = (),
        strangers: Strangers | None = None,
        ready: Callable[[], None] = lambda: None,
    ) -> None:
        """`notify` tells settlement that jobs ended; `patience_s` is how long the DHT and the chain may lag.

        Where `serves` names models, only those are quoted; without `strangers` only workers of this owner are. `ready`
        raises a `PlaitError` while no job is to be taken.
        """
        outside = Outside(
            me=owner,
            key=key,
            domain=domain,
            book=book,
            broker=broker,
            directory=directory,
            chain=chain,
            on_chain=on_chain,
            lookup=lookup,
            notify=notify,
            clock=clock,
            patience_s=patience_s,
        )
        self._outside, self._store, self.clock = outside, JobStore(store), clock
        self.metrics, self.shelf = GatewayMetrics(), ModelShelf(models, clock, only=serves)
        self._payers, self._strangers, self._ready = payers, strangers, ready
        self._open(ChannelView(outside))

    def _open(self, channels: ChannelView) -> None:
        outside, store = self._outside, self._store
        self.offers = OfferBook(outside, self.shelf, self._strangers)
        self.prompts = PromptDesk(outside, self.metrics)
        self._custody = Custody(outside, store, Replay(outside, store), self.metrics)
        self._custody.on_taken = self._on_taken
        self._till = Till(outside, store, channels, self._custody, self.metrics)
        self._till.on_ended = self._forget_soon
        self._intake = Intake(
            outside, store, till=self._till, channels=channels, offers=self.offers, payers=self._payers
        )
        self._line = WorkerLine(outside.broker)
        self._hops = HopPayer(outside, self._strangers, store, self._custody) if self._strangers else None
        self._parts = RelayParts(
            outside=outside,
            store=store,
            line=self._line,
            custody=self._custody,
            metrics=self.metrics,
            served=self.offers.served,
            on_earned=self._pay_workers,
        )
        self._relays: OrderedDict[Hash, Relay] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listeners: dict[Hash, int] = {}
        self._closing = self._closed = False

    async def __aenter__(self) -> Self:
        """Take up the jobs of before the restart, and what gateways that are gone left behind."""
        try:
            await self._custody.renew()
        except BrokerError as error:
            _LOG.warning("no lease yet error=%s", error)
        self._spawn(self._custody.run())
        if self._hops is not None:
            self._spawn(self._hops.run())
        for job in self._store.open_jobs(self.clock()):
            self._spawn(self._take_up(job))
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop relaying; what was not delivered is read again after the next start."""
        self._closing = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._custody.give_back()
        self._store.close()

    async def close(self) -> None:
        """Quote and take no more jobs; those in hand are relayed, paid and resumed as before."""
        self._closed = True

    @property
    def busy(self) -> bool:
        """Tell whether an answer is being relayed, or listened to."""
        return bool(self._listeners) or any(not relay.done for relay in self._relays.values())

    def reached_at(self, url: str) -> None:
        """Say where payers reach this gateway: others of this operator send those to it whose channels it owns."""
        self._custody.url = url

    def owns(self, channel: Hash) -> bool:
        """Say whether this gateway owns a channel now, and may claim for it."""
        return self._custody.owns(channel)

    def promised(self, payee: Address) -> int:
        """Return what this gateway's channel to a worker's owner is to hold, in base units."""
        return self._hops.promised(payee) if self._hops is not None else 0

    async def funded(self, payee: Address) -> None:
        """Pay what waited for the deposit of the channel to a worker's owner."""
        if self._hops is not None:
            await self._hops.funded(payee)

    async def quote(self, body: bytes, needs: Needs) -> gateway_pb2.QuoteReply:
        """Return a signed quote and its workers' prekeys."""
        self._check_open()
        call = codec.parse(gateway_pb2.QuoteCall, body)
        quote, prekeys = await self.offers.quote(hash32(call.model), needs)
        self.metrics.quotes.inc()
        return gateway_pb2.QuoteReply(
            quote=codec.signed_to_pb(quote), prekeys=[codec.signed_to_pb(prekey) for prekey in prekeys]
        )

    async def take_job(self, body: bytes) -> gateway_pb2.JobReply:
        """Take a job, idempotent by its request."""
        self._check_open()
        job, ack = await self._intake.take(body)
        self._relay(job)
        return gateway_pb2.JobReply(ack=ack)

    async def take_voucher(self, body: bytes) -> signed_pb2.Acknowledgement:
        """Journal a payment, pass it on to the worker, acknowledge it; the very same call again is harmless."""
        payment = codec.payment_from_pb(codec.parse(gateway_pb2.VoucherCall, body).payment)
        payer, signer = payment.voucher.message.payer, payment.voucher.signer(self._outside.domain)
        await self._till.hold(payer, signer)
        # A payer whose job was refused after it had signed sends its payment alone, to have it back as credit.
        job = self._store.job(payment.pay.message.request)
        if job is not None and (payer, signer) != (job.payer, job.signer):
            raise BadSignatureError("the voucher is not signed by the key that signed this request")
        accepted = await self._till.accept(payment, payer=payer, signer=signer)
        if job is None:
            return self._till.ack(accepted)
        self._pay_workers(job.name)
        ended = self._store.ended(job.name)
        await self._line.pay(job, self._worker_of(job.name), payment, last=ended)
        if ended:
            self._line.forget(job.name)
        return self._till.ack(accepted)

    async def cancel(self, name: Hash, body: bytes) -> None:
        """Pass a payer's cancellation on to the worker."""
        signed = codec.signed_from_pb(codec.parse(gateway_pb2.CancelCall, body).cancel, Cancel)
        job = await self._job(name)
        self._check_payer(job, signed, signed.message.request)
        await self._line.cancel(job, self._worker_of(name), signed)

    async def channel_state(self, body: bytes) -> gateway_pb2.ChannelState:
        """Return the last voucher of a channel and its Ack; empty before the first payment."""
        call = codec.parse(gateway_pb2.ChannelStateCall, body)
        if (len(call.payer), len(call.signer)) != (20, 20):
            raise BadRequestError("name the channel's payer and signer, 20 bytes each")
        payer, signer = Address(call.payer), Address(call.signer)
        known = await self._custody.hold_known(channel_id(payer, self._outside.me, signer))
        state = self._outside.book.state(payer, signer) if known else None
        if state is None:
            return gateway_pb2.ChannelState()
        ack = self._till.sign_ack(voucher=state.voucher.struct_hash(), at=state.at, credit=state.credit)
        return gateway_pb2.ChannelState(voucher=codec.signed_to_pb(state.voucher), ack=ack)

    async def events(self, name: Hash, body: bytes) -> AsyncGenerator[Event | None]:
        """Check the call and return the events of an answer after a sequence, None as a sign of life."""
        signed = codec.signed_from_pb(codec.parse(gateway_pb2.EventsCall, body).resume, Resume)
        job = await self._job(name)
        self._check_payer(job, signed, signed.message.request)
        now = self.clock()
        if not now - CLOCK_TOLERANCE_S <= signed.message.expires <= now + MAX_DEADLINE_S + CLOCK_TOLERANCE_S:
            raise BadRequestError(f"this call has expired or lasts too long; the gateway's clock says {now:.0f}")
        if self._store.ended(name) and name not in self._relays:
            raise UnknownJobError("this job was paid and ended; its answer is no longer kept")
        if self._listeners.get(name, 0) >= STREAMS_A_REQUEST or sum(self._listeners.values()) >= MOST_STREAMS:
            raise BusyError("too many streams are open; close one, or try again in a moment")
        return self._listen(self._relay(job), name, signed.message.after)

    async def receipts(self, channel: Hash, index: int) -> gateway_pb2.ReceiptListing:
        """Return the ended jobs of a channel from a place on; of one to a worker's owner as well, who has no face."""
        leaves = self._hops.leaves(channel, index) if self._hops is not None else None
        if leaves is None:
            await self._custody.hold_known(channel)
            leaves = self._outside.book.leaves(channel, index)
        listing = gateway_pb2.ReceiptListing()
        for leaf in leaves[:_RECEIPTS_A_CALL]:
            receipt = self._store.receipt(leaf.hash)
            listing.entries.add(leaf=codec.receipt_leaf_to_pb(leaf), receipt=receipt)
        return listing

    def manifest(self, model: Hash) -> bytes:
        """Return a manifest's canonical JSON."""
        manifest = self.shelf.manifest(model)
        if manifest is None:
            raise UnknownFileError(f"no manifest {to_hex(model)} here; GET /v1/models lists what is served")
        return manifest.to_json()

    async def healthy(self) -> bool:
        """Say whether the broker answers."""
        try:
            await self._outside.broker.offers()
        except BrokerError:
            return False
        return True

    async def _job(self, name: Hash) -> StoredJob:
        """Return a job of a channel that is ours, be it taken by another gateway."""
        job = self._store.job(name)
        channel = job.channel if job else await self._custody.channel_of(name)
        if channel is not None:
            await self._custody.hold(channel)
            job = self._store.job(name)
        if job is None:
            raise UnknownJobError(f"request {to_hex(name)} is not known here; send the job first")
        return job

    def _check_open(self) -> None:
        if self._closed:
            raise StoppedError("this gateway is shutting down; ask another one, or this one again in a moment")
        self._ready()

    def _check_payer(self, job: StoredJob, signed: Signed[Cancel] | Signed[Resume], named: Hash) -> None:
        if named != job.name or signed.signer(self._outside.domain) != job.signer:
            raise BadSignatureError("sign this call for this request, with the key that signed the request")

    def _worker_of(self, name: Hash) -> Address | None:
        relay = self._relays.get(name)
        return relay.worker if relay else None

    def _relay(self, job: StoredJob) -> Relay:
        relay = self._relays.get(job.name)
        if relay is None or (relay.done and relay.passing):
            manifest = self.shelf.manifest(job.quote.model)
            if manifest is None:
                raise UnknownModelError(
                    f"the manifest of model {to_hex(job.quote.model)} is gone; its operator must see"
                )
            relay = self._relays[job.name] = Relay(self._parts, job, blocks=manifest.blocks)
            self._spawn(relay.run())
        self._relays.move_to_end(job.name)
        for name in [each for each, old in self._relays.items() if old.done][:-_KEPT_ANSWERS]:
            del self._relays[name]
        return relay

    async def _listen(self, relay: Relay, name: Hash, after: int) -> AsyncGenerator[Event | None]:
        self._listeners[name] = self._listeners.get(name, 0) + 1
        self.metrics.streams.inc()
        try:
            async for event in relay.events(after):
                yield event
        finally:
            self.metrics.streams.dec()
            self._listeners[name] -= 1
            if not self._listeners[name]:
                del self._listeners[name]

    async def _take_up(self, job: StoredJob) -> None:
        """Queue a job that a crash left between journal and broker, and follow its answer again."""
        while self.clock() < job.deadline:
            try:
                await self._custody.hold(job.channel)
                if not self._intake.is_paid(job):
                    return  # who sends it again pays for it first
                await self._intake.publish(job)
                self._relay(job)
            except OtherGatewayError as error:
                _LOG.info("job left to its channel's owner request=0x%s owner=%s", job.name.hex(), error.url)
                return
            except PlaitError as error:
                _LOG.warning("job not taken up yet request=0x%s error=%s", job.name.hex(), error.text)
                await asyncio.sleep(_RETRY_S)
            else:
                return

    def _pay_workers(self, name: Hash) -> None:
        if self._hops is not None:
            self._hops.wake(name)

    def _on_taken(self, channel: Hash) -> None:
        if self._closing:
            return
        if self._hops is not None:
            self._hops.taken_over(channel)
        for job in self._store.open_jobs(self.clock()):
            if job.channel == channel and job.name not in self._relays:
                self._spawn(self._take_up(job))
        if self._outside.book.known(channel):
            self._outside.notify()

    def _forget_soon(self, name: Hash) -> None:
        self._line.forget(name)
        if not self._closing:
            self._spawn(self._forget(name))

    async def _forget(self, name: Hash) -> None:
        try:
            await self._outside.broker.forget_results(self._outside.me, name)
            await self._outside.broker.shared.forget_job(self._outside.me, name)
        except BrokerError as error:
            _LOG.warning("answer not dropped, it goes in two hours request=0x%s error=%s", name.hex(), error)

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
