"""Whose a channel is: one gateway's at a time, by lease. Taken over, it is replayed and fenced before it is served."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from plait.ledger import Accepted, Draft, JournalFullError
from plait.protocol.codec import Payment
from plait.protocol.errors import BusyError, PlaitError
from plait.protocol.ids import Hash, to_hex
from plait.protocol.pb import signed_pb2
from plait.protocol.receipts import ReceiptLeaf
from plait_node.broker import LEASE_LIFE_S, BrokerError, LogRecord
from plait_node.gateway.errors import BrokerAwayError, OtherGatewayError
from plait_node.gateway.faces import Outside
from plait_node.gateway.metrics import GatewayMetrics
from plait_node.gateway.replay import Replay, payment_body, receipt_body
from plait_node.gateway.store import JobStore
from plait_node.settlement.till import ChannelFacts

_LOG = logging.getLogger(__name__)
_BEAT_S = LEASE_LIFE_S / 3
_LOOK_EVERY_S = 300.0  # beside every time that a lease ends
_TRIES = 5


@dataclass(slots=True)
class _Held:
    """A channel as this gateway saw it last; `last` is the last row of its log that is in our journal."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    ours: bool = False
    last: int = 0


class Custody:
    """This gateway's lease and its channels. What a channel is paid goes into its log before it is journalled."""

    def __init__(self, outside: Outside, store: JobStore, replay: Replay, metrics: GatewayMetrics) -> None:
        self._me, self._book, self._clock = outside.me, outside.book, outside.clock
        self._shared, self._store, self._replay, self._metrics = outside.broker.shared, store, replay, metrics
        self._name = store.holder()
        self._held: dict[Hash, _Held] = {}
        self._renewed: float | None = None
        self._steady_since = float("-inf")
        self._seen: set[str] = set()
        self._look = asyncio.Event()
        self._look.set()
        self.url = ""
        self.on_taken: Callable[[Hash], None] = lambda _: None

    async def run(self) -> None:
        """Renew the lease, and take over what nobody owns, until cancelled."""
        await asyncio.gather(self._renewing(), self._looking())

    async def renew(self) -> None:
        """Renew the lease and see whose ended; raise `BrokerError`."""
        now = asyncio.get_running_loop().time()
        await self._shared.renew(self._me, self._name, self.url)
        if self._renewed is not None and now - self._renewed > LEASE_LIFE_S:
            self._lapse(now)
        self._renewed = now
        living = set(await self._shared.living(self._me))
        if self._seen - living:
            self._look.set()
        self._seen = living

    async def give_back(self) -> None:
        """Own nothing any more and say so, for the others to take over at once."""
        for held in self._held.values():
            held.ours = False
        with suppress(BrokerError):
            await self._shared.give_back(self._me, self._name)

    def owns(self, channel: Hash) -> bool:
        """Say whether a channel is ours and our lease lives."""
        held = self._held.get(channel)
        return held is not None and held.ours and self._leased()

    async def hold(self, channel: Hash) -> None:
        """Make sure that a channel is ours; raise `OtherGatewayError` while its owner lives, `BrokerAwayError`."""
        if not self.owns(channel):
            async with self._taken(channel):
                return

    async def hold_known(self, channel: Hash) -> bool:
        """Hold a channel that was ever paid on, here or at another gateway; return False for any other."""
        if not self._book.known(channel):
            async with _reached():
                if await self._shared.last(self._me, channel) is None:
                    return False
        await self.hold(channel)
        return True

    async def channel_of(self, request: Hash) -> Hash | None:
        """Return the channel of a job that another gateway took."""
        async with _reached():
            job = await self._replay.job(request)
        return job.channel if job else None

    async def accept(self, payment: Payment, slot: ChannelFacts, channel: Hash) -> Accepted:
        """Log and journal a payment of a channel; raise a `PaymentError`, having changed nothing."""
        for _ in range(_TRIES):
            async with self._taken(channel, moved=True) as held:
                draft = self._book.draft(
                    payment, deposit=slot.deposit, claimed=slot.claimed, exit_at=slot.exit_at, now=self._clock()
                )
                if isinstance(draft, Accepted):
                    return draft
                earned = self._store.earned(payment.pay.message.request)
                body = payment_body(payment)
                record = LogRecord(kind="pay", holder=self._name, body=body, at=draft.at, earned=earned)
                if await self._append(channel, held, record):
                    return self._keep(draft, held)
        raise _changing()

    def _keep(self, draft: Draft, held: _Held) -> Accepted:
        try:
            return self._book.keep(draft, held.last)
        except JournalFullError as error:
            held.ours = False  # the log holds more than the journal: it is read again
            error.moved = True
            raise

    async def note_receipt(self, channel: Hash, leaf: ReceiptLeaf, receipt: signed_pb2.SignedReceipt) -> None:
        """Log a receipt that passed."""
        record = LogRecord(kind="receipt", holder=self._name, body=receipt_body(leaf, receipt))
        for _ in range(_TRIES):
            async with self._taken(channel) as held:
                if await self._append(channel, held, record):
                    return
        raise _changing()

    async def append_hop(self, channel: Hash, draft: Callable[[int], bytes | None]) -> bool:
        """Log a payment to a worker's owner out of what a channel paid; False where `draft` makes none.

        `draft` gets the place of the log's last row, while nobody else appends, and knows all that the log holds.
        """
        for _ in range(_TRIES):
            async with self._taken(channel) as held:
                body = draft(held.last)
                if body is None:
                    return False
                if await self._append(channel, held, LogRecord(kind="hop", holder=self._name, body=body)):
                    return True
        raise _changing()

    @asynccontextmanager
    async def _taken(self, channel: Hash, *, moved: bool = False) -> AsyncGenerator[_Held]:
        """Run a block alone on a channel that is ours."""
        held = self._held.setdefault(channel, _Held())
        async with _reached(moved=moved), held.lock:
            for _ in range(_TRIES):
                # While our lease lives nobody takes over; after that the log must be asked.
                if (held.ours and self._leased()) or await self._take(channel, held):
                    break
            else:
                raise _changing()
            yield held

    def _leased(self) -> bool:
        """Say whether our lease lives; it ends here no later than at the broker, which counts from a later moment."""
        return self._renewed is not None and asyncio.get_running_loop().time() - self._renewed < LEASE_LIFE_S

    async def _take(self, channel: Hash, held: _Held) -> bool:
        held.ours = False
        end = await self._shared.last(self._me, channel)
        holder = end.record.holder if end else self._name
        if holder != self._name:
            await self._check_gone(holder)
        last = await self._replay.catch_up(channel, end, self._name)
        if last is None:
            return False
        await self._replay.load_jobs(channel)
        held.last = last
        if holder == self._name:
            held.ours = last == (end.sequence if end else 0)
        elif await self._append(channel, held, LogRecord(kind="fence", holder=self._name)):
            self._metrics.taken_over.inc()
            _LOG.info("channel taken over channel=%s from=%s token=%d", to_hex(channel), holder, held.last)
        if held.ours:
            self.on_taken(channel)
        return held.ours

    async def _check_gone(self, holder: str) -> None:
        url = (await self._shared.living(self._me)).get(holder)
        if url is not None:
            raise OtherGatewayError(url)
        if asyncio.get_running_loop().time() - self._steady_since < LEASE_LIFE_S:
            raise BrokerAwayError("the broker was away, who serves this channel shows in a moment; call again")

    async def _append(self, channel: Hash, held: _Held, record: LogRecord) -> bool:
        """Append behind what we saw last; where another one did, the channel is ours no longer."""
        try:
            sequence = await self._shared.append(self._me, channel, record, after=held.last)
        except BaseException:
            held.ours = False  # it may be stored all the same: the log is looked at again
            raise
        held.ours = sequence is not None
        held.last = sequence or held.last
        return held.ours

    def _lapse(self, now: float) -> None:
        """Own nothing until each log was looked at: whoever noticed that our lease ended may have taken over."""
        _LOG.warning("the lease lapsed, channels are looked at again holder=%s", self._name)
        for held in self._held.values():
            held.ours = False
        self._steady_since = now
        self._look.set()

    async def _renewing(self) -> None:
        while True:
            try:
                await self.renew()
            except BrokerError as error:
                _LOG.warning("lease not renewed error=%s", error)
            await asyncio.sleep(_BEAT_S)

    async def _looking(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await self._look.wait()
            self._look.clear()
            try:
                async with _reached():
                    await self._take_orphans()
            except BrokerAwayError as error:
                _LOG.warning("channels not looked at yet error=%s", error.text)
                self._look.set()
                await asyncio.sleep(_BEAT_S)

    async def _take_orphans(self) -> None:
        living = {*await self._shared.living(self._me)} - {self._name}
        for channel in [Hash(each) for each in await self._shared.channels(self._me)]:
            if self.owns(channel):
                continue
            end = await self._shared.last(self._me, channel)
            if end is None or end.record.holder in living:
                continue
            try:
                await self.hold(channel)
            except BrokerAwayError:
                raise
            except PlaitError as error:
                _LOG.warning("channel not taken over channel=%s error=%s", to_hex(channel), error.text)


@asynccontextmanager
async def _reached(*, moved: bool = False) -> AsyncGenerator[None]:
    try:
        yield
    except BrokerError as error:
        text = f"the broker does not answer, and nothing is accepted without it ({error}); send the same call again"
        raise BrokerAwayError(text, moved=moved) from error


def _changing() -> BusyError:
    return BusyError("this channel changes hands just now; send the same call again in a moment")
