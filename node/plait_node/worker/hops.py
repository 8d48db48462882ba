"""What the worker owes its stages: forwarded when the payer pays, settled when the job ends.

Vouchers of a channel only count in order, so what a stage has not acknowledged is sent again, first, on the next link.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from plait.protocol.codec import Payment, payment_to_pb, signed_from_pb, signed_to_pb
from plait.protocol.errors import PlaitError
from plait.protocol.ids import Address, Hash, to_hex
from plait.protocol.messages import Ack, Pay, Stage
from plait.protocol.money import stage_fee_of
from plait.protocol.pb import stage_pb2
from plait.protocol.receipts import ReceiptLeaf
from plait.protocol.typed import struct_hash
from plait_node.wire import WireError
from plait_node.worker.errors import StageFailure
from plait_node.worker.leaves import blocks_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from plait.ledger import Paid
    from plait.protocol.checks import NodeDirectory
    from plait.protocol.typed import Domain, Signed
    from plait.protocol.windows import Window
    from plait_node.worker.links import LinkPool

# After a restart nobody knows what was acknowledged: the last few are sent again, which the payee takes as repeated.
_SENT_AGAIN = 4
_LOOK_S = 0.1  # how often the link of a stage that is to acknowledge is looked at

_log = logging.getLogger(__name__)


class HopChannel(Protocol):
    """The part of `PayerChannel` that the worker uses."""

    def pay(self, request: Hash, amount: int, to: int) -> Payment:
        """Journal and return the payment of `amount` base units in all for a request."""
        ...

    def paid(self, request: Hash) -> Paid:
        """Return what was paid for a request so far."""
        ...

    def end_job(self, request: Hash, leaf: ReceiptLeaf, *, to: int | None = None) -> Payment:
        """Journal and return the payment that ends a request."""
        ...

    def recover(self, voucher: None) -> list[Payment]:
        """Return every payment of the channel, oldest first."""
        ...


class Deposits(Protocol):
    """What keeps the channels to stages open and topped up."""

    def covers(self, payee: Address, cumulative: int, /) -> bool:
        """Tell whether the channel holds `cumulative` base units; if not it is seen to in the background."""
        ...


class _OpenedByHand:
    """Channels that the operator looks after: everything is sent, and refused where they left one out."""

    def covers(self, _payee: Address, _cumulative: int, /) -> bool:
        return True


@dataclass(slots=True, kw_only=True)
class _UnderWay:
    """A payment that a stage has not acknowledged yet; it may wait here for its channel's deposit."""

    voucher: Hash
    request: Hash
    cumulative: int
    frame: stage_pb2.Frame
    due_at: float = math.inf  # in the loop's time, once it was sent
    link: int = -1  # the pool's number of the link it was sent on

    def show(self, payer: Signed[Pay] | None) -> None:
        """Let the payer's own Pay for the same request come along: after a restart the journal holds ours alone."""
        if payer is not None and payer.message.request == self.request and not self.frame.payment.HasField("payer"):
            self.frame.payment.payer.CopyFrom(signed_to_pb(payer))


@dataclass(slots=True, kw_only=True)
class _Counter:
    """Payments to one stage."""

    channel: HopChannel
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    under_way: list[_UnderWay] = field(default_factory=list["_UnderWay"])
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class HopDesk:
    """All payments of one worker to its stages."""

    def __init__(
        self,
        *,
        channel: Callable[[Address], HopChannel],
        pool: LinkPool,
        domain: Domain,
        directory: NodeDirectory,
        ack_s: float = 5.0,
        deposits: Deposits | None = None,
    ) -> None:
        """Pay over `channel`, send over `pool` what `deposits` cover; a stage has `ack_s` seconds to acknowledge."""
        self._channel = channel
        self._pool = pool
        self._domain = domain
        self._directory = directory
        self.ack_s = ack_s
        self._deposits: Deposits = deposits or _OpenedByHand()
        self._counters: dict[Address, _Counter] = {}

    async def send(self, owner: Address, make: Callable[[HopChannel], Payment], payer: Signed[Pay] | None) -> None:
        """Journal a payment and send it, or hold it back until the channel is funded.

        Raise `WireError` when the stage cannot be reached.
        """
        counter = self._counter(owner)
        async with counter.lock:
            counter.under_way.append(_under_way(make(counter.channel), payer))
            await self._send_out(owner, counter, payer)

    async def funded(self, owner: Address) -> None:
        """Send what was held back; a stage that cannot be reached gets it with the next link."""
        counter = self._counter(owner)
        async with counter.lock:
            try:
                await self._send_out(owner, counter, None)
            except WireError as error:
                _log.info("payments wait for a link node=%s error=%s", to_hex(owner), error.text)

    async def _send_out(self, owner: Address, counter: _Counter, payer: Signed[Pay] | None) -> None:
        """Send, in order, what did not go over this link and is covered."""
        number = self._pool.number(owner)
        for each in list(counter.under_way):
            if each.link == number:
                continue
            if not self._deposits.covers(owner, each.cumulative):
                return
            each.show(payer)
            each.due_at = asyncio.get_running_loop().time() + self.ack_s
            await self._pool.send(owner, each.frame)
            each.link = number

    async def take_ack(self, owner: Address, received: stage_pb2.HopAck) -> None:
        """Take an acknowledgement; one that is not signed by the stage counts nothing."""
        try:
            ack = signed_from_pb(received.ack.ack, Ack)
            key = await self._directory.service_key(ack.signer(self._domain))
        except PlaitError as error:
            _log.warning("acknowledgement refused node=%s error=%s", to_hex(owner), error)
            return
        if key is None or key.owner != owner:
            _log.warning("acknowledgement refused node=%s error=not its key", to_hex(owner))
            return
        counter = self._counter(owner)
        places = [place for place, each in enumerate(counter.under_way) if each.voucher == ack.message.voucher]
        if places:
            del counter.under_way[: places[-1] + 1]
            counter.changed.set()

    def resend_all(self, owner: Address) -> None:
        """Send every payment of the channel again, before the next one: the stage says that it lacks some."""
        counter = self._counter(owner)
        counter.under_way = [_under_way(payment, None) for payment in counter.channel.recover(None)]

    def overdue(self, owner: Address) -> bool:
        """Tell whether a stage has let a payment lie for too long."""
        now = asyncio.get_running_loop().time()
        return any(each.due_at < now for each in self._counter(owner).under_way)

    def silence(self, owner: Address) -> str:
        """Say why a stage's acknowledgement is not waited for any longer."""
        if not self._pool.alive(owner):
            return "the link to it ended before it acknowledged a payment"
        return f"it did not acknowledge a payment within {self.ack_s:g} s"

    async def acknowledged(self, owner: Address) -> bool:
        """Wait until a stage has acknowledged everything that was sent; tell whether it did while it could."""
        counter = self._counter(owner)
        until = asyncio.get_running_loop().time() + self.ack_s
        while waits := any(each.due_at < math.inf for each in counter.under_way):
            if asyncio.get_running_loop().time() > until or not self._pool.alive(owner):
                break
            counter.changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await counter.changed.wait()
        return not waits

    def _counter(self, owner: Address) -> _Counter:
        if owner not in self._counters:
            channel = self._channel(owner)
            earlier = [_under_way(payment, None) for payment in channel.recover(None)[-_SENT_AGAIN:]]
            self._counters[owner] = _Counter(channel=channel, under_way=earlier)
        return self._counters[owner]


@dataclass(frozen=True, slots=True, kw_only=True)
class Owed:
    """What one stage is owed for of one request: whole windows that the payer was told of."""

    steps: int = 0
    windows: int = 0


_NOTHING = Owed()


class HopPay:
    """The payments of one attempt, which add to what earlier attempts owe."""

    def __init__(
        self,
        desk: HopDesk,
        *,
        request: Hash,
        route: Sequence[Stage],
        row: int,
        own: Address,
        owed: Mapping[Address, Owed],
    ) -> None:
        """Pay all stages but those of the `own` operator, which need no hop, for the steps from `row` on."""
        self._desk = desk
        self._request = request
        self._route = route
        self._stages = [stage for stage in route if stage.node != own]
        self._row = row
        self._before = dict(owed)
        self._paid_end = 0
        self._to = 0

    def before(self, node: Address) -> Owed:
        """Return what earlier attempts owe a stage."""
        return self._before.get(node, _NOTHING)

    def owed(self, windows: Sequence[Window]) -> dict[Address, Owed]:
        """Return what each stage is owed when this attempt closed `windows`."""
        steps = sum(window.count for window in windows)
        before = {stage.node: self.before(stage.node) for stage in self._route}
        return {
            node: Owed(steps=each.steps + steps, windows=each.windows + len(windows)) for node, each in before.items()
        }

    async def cover(self, *, paid_end: int, to: int, payer: Signed[Pay] | None) -> None:
        """Pay every stage for the steps below `paid_end`, showing the payer's Pay; raise `StageFailure`."""
        if paid_end <= self._paid_end:
            return
        self._paid_end, self._to = paid_end, max(to, self._to)
        for stage in self._stages:
            fee = stage_fee_of(stage, max(0, self.before(stage.node).steps + paid_end - self._row))
            if not fee:
                continue
            try:
                await self._desk.send(stage.node, lambda channel, fee=fee: channel.pay(self._request, fee, to), payer)
            except WireError as error:
                raise StageFailure(stage.node, blocks_of(stage), error.text) from error

    async def acknowledged(self) -> None:
        """Wait until every stage has acknowledged; raise `StageFailure` blaming one that did not."""
        done = await asyncio.gather(*(self._desk.acknowledged(stage.node) for stage in self._stages))
        for stage, acknowledged in zip(self._stages, done, strict=True):
            if not acknowledged:
                raise self._late(stage)

    def check_overdue(self) -> None:
        """Raise `StageFailure` for a stage that lets a payment lie."""
        for stage in self._stages:
            if self._desk.overdue(stage.node):
                raise self._late(stage)

    async def settle(
        self,
        kind: int,
        leaf: Hash,
        windows: Sequence[Window],
        *,
        paid_end: int,
        payer: Signed[Pay] | None,
        skip: frozenset[Address] = frozenset(),
    ) -> None:
        """End the job on every hop but those to `skip` at the price of those `windows` that end by `paid_end`.

        A stage that is gone gets this when it is linked to again. What it was paid ahead it keeps: it may have signed
        for it just before its leaves were lost, and would refuse less, and with that every later voucher.
        """
        owed = self.owed([window for window in windows if window.end <= paid_end])
        for stage in (each for each in self._stages if each.node not in skip):
            due = owed[stage.node]
            fee = stage_fee_of(stage, due.steps)
            ended = ReceiptLeaf(kind=kind, hash=leaf, hop_amount=fee, windows_paid=due.windows)
            try:
                await self._desk.send(stage.node, lambda channel, ended=ended: self._end(channel, ended), payer)
            except PlaitError as error:
                _log.warning(
                    "hop not settled yet node=%s request=%s error=%s", to_hex(stage.node), to_hex(self._request), error
                )

    def _end(self, channel: HopChannel, leaf: ReceiptLeaf) -> Payment:
        amount = max(leaf.hop_amount, channel.paid(self._request).amount)
        return channel.end_job(self._request, replace(leaf, hop_amount=amount), to=self._to)

    def _late(self, stage: Stage) -> StageFailure:
        reason = self._desk.silence(stage.node)
        return StageFailure(stage.node, blocks_of(stage), reason)


def _under_way(payment: Payment, payer: Signed[Pay] | None) -> _UnderWay:
    made = _UnderWay(
        voucher=struct_hash(payment.voucher.message),
        request=payment.pay.message.request,
        cumulative=payment.voucher.message.cumulative,
        frame=stage_pb2.Frame(payment=stage_pb2.HopPayment(payment=payment_to_pb(payment))),
    )
    made.show(payer)
    return made
