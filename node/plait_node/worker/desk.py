"""The payments of one worker to its stages, in the order of their channels.

Vouchers of a channel only count in order, so what a stage has not acknowledged is sent again, first, on the next link,
and a stage that lacks one says where it stands and is sent what came after.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from plait.protocol.codec import Payment, payment_to_pb, signed_from_pb, signed_to_pb
from plait.protocol.errors import PlaitError
from plait.protocol.ids import Address, Hash, to_hex
from plait.protocol.messages import Ack, Pay, Voucher
from plait.protocol.pb import stage_pb2
from plait.protocol.typed import struct_hash
from plait_node.wire import WireError

if TYPE_CHECKING:
    from collections.abc import Callable

    from plait.ledger import Paid
    from plait.protocol.checks import NodeDirectory
    from plait.protocol.receipts import ReceiptLeaf
    from plait.protocol.typed import Domain, Signed
    from plait_node.worker.links import LinkPool

__all__ = ["HopChannel", "HopDesk"]

# After a restart nobody knows what was acknowledged: the last few are sent again, which the payee takes as repeated.
_SENT_AGAIN = 4
_LOOK_S = 0.1  # how often the link of a stage that is to acknowledge is looked at
_MOST_UNDER_WAY = 16  # on one link; a stage takes 32 calls at once
_MOST_RESENT = 8  # how often a stage is sent what it lacks while a payment waits to be acknowledged

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

    def latest(self, count: int) -> list[Payment]:
        """Return the channel's last payments, oldest first."""
        ...

    def recover(self, voucher: Signed[Voucher] | None) -> list[Payment]:
        """Return the payments that a payee lacks who stands at a voucher, oldest first."""
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

    @classmethod
    def of(cls, payment: Payment, payer: Signed[Pay] | None = None) -> _UnderWay:
        made = cls(
            voucher=struct_hash(payment.voucher.message),
            request=payment.pay.message.request,
            cumulative=payment.voucher.message.cumulative,
            frame=stage_pb2.Frame(payment=stage_pb2.HopPayment(payment=payment_to_pb(payment))),
        )
        made.show(payer)
        return made

    def show(self, payer: Signed[Pay] | None) -> None:
        """Let the payer's own Pay for the same request come along: after a restart the journal holds ours alone."""
        if payer is not None and payer.message.request == self.request and not self.frame.payment.HasField("payer"):
            self.frame.payment.payer.CopyFrom(signed_to_pb(payer))


@dataclass(slots=True, kw_only=True)
class _Counter:
    """Payments to one stage."""

    channel: HopChannel
    under_way: list[_UnderWay]
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    resent: list[Hash | None] = field(default_factory=list["Hash | None"])  # where it stood, on this link, lately
    resent_on: tuple[int, float] = (-1, 0.0)  # the link's number, until when that counts

    def behind(self, number: int) -> bool:
        """Tell whether anything was not sent on the link of this number."""
        return any(each.link != number for each in self.under_way)

    def lacks(self, stands: Hash | None, number: int, *, pause_s: float) -> bool:
        """Tell whether a stage is to be sent what came after this voucher: once, and again after a pause."""
        now = asyncio.get_running_loop().time()
        if self.resent_on[0] != number or self.resent_on[1] < now:
            self.resent_on, self.resent = (number, now + pause_s), []
        if stands in self.resent or len(self.resent) >= _MOST_RESENT:
            return False
        self.resent.append(stands)
        return True


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
            counter.under_way.append(_UnderWay.of(make(counter.channel), payer))
            await self._send_out(owner, counter, payer)

    async def funded(self, owner: Address) -> None:
        """Send what was held back; a stage that cannot be reached gets it with the next link."""
        counter = self._counter(owner)
        async with counter.lock:
            await self._go_on(owner, counter)

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
        if not places:
            return
        del counter.under_way[: places[-1] + 1]
        counter.changed.set()
        if counter.behind(self._pool.number(owner)):
            async with counter.lock:
                await self._go_on(owner, counter)

    async def take_stale(self, owner: Address, stands: Signed[Voucher] | None) -> None:
        """Send what came after the voucher at which a stage stands, as it says that it lacks some."""
        counter = self._counter(owner)
        async with counter.lock:
            at = stands.struct_hash() if stands is not None else None
            if not counter.lacks(at, self._pool.number(owner), pause_s=self.ack_s):
                return
            try:
                lacking = counter.channel.recover(stands)
            except PlaitError as error:
                _log.warning("stage's books are not ours node=%s error=%s", to_hex(owner), error)
                return
            _log.warning("stage lacks payments, sent again node=%s count=%d", to_hex(owner), len(lacking))
            counter.under_way = [_UnderWay.of(payment) for payment in lacking]
            await self._go_on(owner, counter)

    def overdue(self, owner: Address) -> bool:
        """Tell whether a stage has let a payment lie for too long."""
        now = asyncio.get_running_loop().time()
        return any(each.due_at < now for each in self._counter(owner).under_way)

    def silence(self, owner: Address) -> tuple[str, bool]:
        """Say why a stage's acknowledgement is not waited for any longer, and whether a lost link is the reason."""
        if not self._pool.alive(owner):
            return "the link to it ended before it acknowledged a payment", True
        return f"it did not acknowledge a payment within {self.ack_s:g} s", False

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

    async def _go_on(self, owner: Address, counter: _Counter) -> None:
        try:
            await self._send_out(owner, counter, None)
        except WireError as error:
            _log.info("payments wait for a link node=%s error=%s", to_hex(owner), error.text)

    async def _send_out(self, owner: Address, counter: _Counter, payer: Signed[Pay] | None) -> None:
        """Send, in order, what did not go over this link and is covered, and once more what lies for long.

        What is beyond the most that may be under way goes out when some of that is acknowledged.
        """
        number, now = self._pool.number(owner), asyncio.get_running_loop().time()
        for each in counter.under_way[:_MOST_UNDER_WAY]:
            # A stage may take later what it refused. Whoever waits for it has long seen by then that it is late.
            if each.link == number and now < each.due_at + self.ack_s:
                continue
            if not self._deposits.covers(owner, each.cumulative):
                return
            each.show(payer)
            each.due_at = now + self.ack_s
            await self._pool.send(owner, each.frame)
            each.link = number

    def _counter(self, owner: Address) -> _Counter:
        if owner not in self._counters:
            channel = self._channel(owner)
            earlier = [_UnderWay.of(payment) for payment in channel.latest(_SENT_AGAIN)]
            self._counters[owner] = _Counter(channel=channel, under_way=earlier)
        return self._counters[owner]
