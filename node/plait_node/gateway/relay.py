"""Follow one request's results in the broker, judge them, and hand them to whoever listens for the payer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass

from plait.ledger import JournalFullError
from plait.protocol import codec
from plait.protocol.errors import (
    BusyError,
    DeadlineError,
    InternalError,
    NoRouteError,
    PlaitError,
    RefusedError,
    UnknownJobError,
    error_from_fault,
)
from plait.protocol.ids import Address, Hash
from plait.protocol.messages import Quote, Receipt
from plait.protocol.receipts import RECEIPT, ReceiptLeaf
from plait.protocol.typed import Signed
from plait_node.broker import BrokerError
from plait_node.gateway.answer import Answer, Event, fault_event
from plait_node.gateway.custody import Custody
from plait_node.gateway.errors import BrokerAwayError, OtherGatewayError, StoppedError
from plait_node.gateway.faces import Outside
from plait_node.gateway.metrics import GatewayMetrics
from plait_node.gateway.store import JobStore, StoredJob, Verdict
from plait_node.gateway.worker_line import WorkerLine

_LOG = logging.getLogger(__name__)
_KEEP_ALIVE_S = 2.0  # a payer takes a gateway for frozen that says nothing for 8 s
# Reading an answer again needs no worker: its events lie in the broker, or they were dropped.
_AGAIN_S = 10.0
# How long a job whose workers are all gone waits for one to come back, and how often that is looked at.
_DESERTED_S, _LOOK_S = 120.0, 5.0
# Faults of this moment: the stream may be followed again, nothing was decided about the answer.
_PASSING = (BusyError, BrokerAwayError, StoppedError, InternalError, JournalFullError)


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayParts:
    """What every relay of a gateway shares."""

    outside: Outside
    store: JobStore
    line: WorkerLine
    custody: Custody
    metrics: GatewayMetrics
    served: Callable[[Quote], Awaitable[bool]]  # whether a worker of a quote is live; raises `BrokerAwayError`
    on_earned: Callable[[Hash], None] = lambda _: None  # an attempt began, or its work was added to


class Relay:
    """One request's answer, from the broker to any number of listeners."""

    def __init__(self, parts: RelayParts, job: StoredJob, *, blocks: int) -> None:
        self.job = job
        self._parts = parts
        self._outside = parts.outside
        self._events: list[Event] = []
        self._changed = asyncio.Condition()
        self._done = False
        self._current = 0  # the result being judged
        self._through = 0  # the last one that passed
        self._started = self._served_at = self._moved_at = self._outside.clock()
        verdict = parts.store.verdict(job.name)
        self._known = verdict
        self._answer = Answer(
            parts.outside,
            job.quote,
            job.request,
            name=job.name,
            blocks=blocks,
            proven=parts.store.proven(job.name),
            on_proven=lambda sequence: parts.store.add_proven(job.name, sequence),
            on_drop=lambda reason: parts.metrics.dropped.labels(reason=reason).inc(),
        )
        self.passing = False  # ended by a fault of the moment: a new relay may follow the answer again

    @property
    def done(self) -> bool:
        """Whether the last event is there."""
        return self._done

    @property
    def worker(self) -> Address | None:
        """The worker whose attempt is being relayed."""
        return self._answer.worker

    async def run(self) -> None:
        """Follow the answer to its end; every outcome becomes an event."""
        self._parts.metrics.relays.inc()
        try:
            await self._follow()
        except asyncio.CancelledError:
            await self._fail(StoppedError("this gateway is shutting down; resume there again in a moment"))
            raise
        except (RefusedError, JournalFullError) as error:
            await self._fail(error)
        except BrokerError as error:
            await self._fail(BrokerAwayError(f"the gateway lost its broker ({error}); resume in a moment"))
        except Exception:  # noqa: BLE001 - one bad call must not end the others
            _LOG.exception("relay failed request=0x%s", self.job.name.hex())
            await self._fail(InternalError("the gateway failed while it relayed this answer; resume in a moment"))
        finally:
            self._parts.metrics.relays.dec()

    async def events(self, after: int) -> AsyncGenerator[Event | None]:
        """Yield events above a sequence until the last one; None now and then, to keep a connection alive."""
        place = 0
        while True:
            fresh = self._events[place:]
            place += len(fresh)
            for event in fresh:
                # What ended the answer is told again to everyone: its sequence may be that of an event already seen.
                if event.sequence > after or event.kind == "error":
                    yield event
            if fresh:
                continue
            if self._done:
                return
            if not await self._wait(place):
                yield None

    async def _wait(self, place: int) -> bool:
        try:
            async with asyncio.timeout(_KEEP_ALIVE_S), self._changed:
                await self._changed.wait_for(lambda: len(self._events) > place or self._done)
        except TimeoutError:
            return False
        return True

    async def _follow(self) -> None:
        if self._known is not None:
            await self._read_again(self._known)
            return
        left = self.job.deadline - self._outside.clock()
        try:
            async with asyncio.timeout(max(left, 1.0)):
                await self._read_while_served()
        except TimeoutError:
            text = "the request's deadline passed before the answer ended; what was delivered stays, ask again"
            raise DeadlineError(text) from None

    async def _read_while_served(self) -> None:
        """Read to the end; raise `NoRouteError` once every worker that could go on has been gone for a while."""
        reading = asyncio.create_task(self._read(until=None))
        try:
            while not (await asyncio.wait({reading}, timeout=_LOOK_S))[0]:
                await self._look()
        except BaseException:
            reading.cancel()
            await asyncio.wait({reading})
            raise
        await reading

    async def _look(self) -> None:
        now = self._outside.clock()
        try:
            served = await self._parts.served(self.job.quote)
        except BrokerAwayError:
            served = True  # nobody knows
        if served or self._moved_at > self._served_at:
            self._served_at = now
        elif now - self._served_at > _DESERTED_S:
            raise NoRouteError("every worker that could give this answer has left; ask again")

    async def _read_again(self, known: Verdict) -> None:
        """Deliver once more what passed before the verdict, and then the verdict."""
        try:
            async with asyncio.timeout(_AGAIN_S):
                await self._read(until=known.sequence)
        except TimeoutError:
            raise UnknownJobError("this answer is no longer kept here; it ended a while ago") from None
        if known.fault is not None:
            raise error_from_fault(known.fault)

    async def _read(self, *, until: int | None) -> None:
        if until == 0:
            return
        results = self._outside.broker.results(self._outside.me, self.job.name)
        try:
            async for result in results:
                if until is not None and result.sequence > until:
                    return
                self._current = result.sequence
                await self._deliver(await self._answer.take(result))
                self._through, self._moved_at = result.sequence, self._outside.clock()
                if self._answer.fault is not None:
                    raise self._answer.fault
                if self._answer.receipt is not None or result.sequence == until:
                    return
        finally:
            if isinstance(results, AsyncGenerator):
                await results.aclose()

    async def _deliver(self, events: list[Event]) -> None:
        """Journal what the events are worth to us, then let listeners see them."""
        for event in events:
            if event.kind == "job" and self._known is None:
                await self._parts.line.remind(self.job, self._answer.worker)
            if event.kind == "chunk" and not any(seen.kind == "chunk" for seen in self._events):
                self._parts.metrics.first_chunk.observe(max(0.0, self._outside.clock() - self._started))
        if any(event.kind in ("job", "progress", "receipt") for event in events):
            self._earn()
        if self._answer.receipt is not None:
            await self._end()
        if events:
            async with self._changed:
                self._events += events
                self._done = self._answer.receipt is not None
                self._changed.notify_all()

    def _earn(self) -> None:
        self._parts.store.hops.set_parts(self.job.name, self._answer.parts())
        self._parts.on_earned(self.job.name)
        price = self._answer.price()
        if price and self._parts.store.raise_earned(self.job.name, price):
            self._outside.book.earn(self.job.channel, self.job.name, price)

    async def _end(self) -> None:
        receipt = self._answer.receipt
        if receipt is None:
            return
        digest = receipt.digest(self._outside.domain)
        leaf = ReceiptLeaf(
            kind=RECEIPT, hash=digest, hop_amount=receipt.message.price, windows_paid=self._answer.windows
        )
        self._parts.store.add_receipt(self.job.name, digest, receipt)
        self._outside.book.end_job(self.job.channel, self.job.name, leaf)
        if self._known is None:
            await self._log(leaf, receipt)
            self._parts.store.set_verdict(self.job.name, self._current, None)
            self._parts.metrics.jobs.labels(outcome="receipt").inc()
            _LOG.info("answer ended request=0x%s price=%d", self.job.name.hex(), receipt.message.price)

    async def _log(self, leaf: ReceiptLeaf, receipt: Signed[Receipt]) -> None:
        """Let who takes the channel over know how this answer ended, before the payer does."""
        try:
            await self._parts.custody.note_receipt(self.job.channel, leaf, codec.signed_to_pb(receipt))
        except OtherGatewayError as error:
            # Its owner reads the same answer and logs the same receipt; who listens here gets the rest of it.
            _LOG.info("receipt left to the channel's owner request=0x%s owner=%s", self.job.name.hex(), error.url)

    async def _fail(self, error: PlaitError) -> None:
        error.moved = self._answer.price() > 0
        error = self._judged(error)
        self.passing = isinstance(error, _PASSING)
        # A verdict comes after all that was delivered; a fault of the moment must not hide what comes next.
        place = self._through if self.passing else self._through + 1
        async with self._changed:
            self._events.append(fault_event(self.job.name, place, error))
            self._done = True
            self._changed.notify_all()

    def _judged(self, error: PlaitError) -> PlaitError:
        """Keep a verdict, and return what ends the stream: a verdict that could not be kept was not given."""
        if isinstance(error, _PASSING) or self._known is not None:
            return error
        try:
            self._parts.store.set_verdict(self.job.name, self._through, error.fault())
            self._parts.on_earned(self.job.name)  # what was paid ahead for nothing is to come back
        except JournalFullError as full:
            full.moved = error.moved
            return full
        self._parts.metrics.jobs.labels(outcome=error.code).inc()
        _LOG.warning("answer failed request=0x%s code=%s text=%s", self.job.name.hex(), error.code, error.text)
        return error
