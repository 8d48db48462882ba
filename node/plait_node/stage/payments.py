"""Take payments for jobs: journal first, then acknowledge."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from plait.protocol.codec import Payment, amount_bytes, payment_from_pb, signed_from_pb, signed_to_pb
from plait.protocol.ids import Address, Hash, channel_id, to_hex
from plait.protocol.messages import Ack, Pay
from plait.protocol.pb import signed_pb2, stage_pb2
from plait.protocol.typed import Domain, Key, Signed
from plait_node.stage.config import ChannelFacts, Channels, Payees, StageConfig
from plait_node.stage.debts import Debts
from plait_node.stage.errors import BadPaymentError
from plait_node.stage.job import StageJob

_FRESH_S = 15.0  # an exit runs for a day: this old a look at the channel is good enough
_LOOK_S = 0.5  # between looks at a channel whose deposit may be on its way
_MOST = 4_096


@dataclass(frozen=True, slots=True, kw_only=True)
class HopPay:
    """A `HopPayment` frame, well formed: this hop's payment, and the payer's own Pay that covers it."""

    payment: Payment
    payer: Signed[Pay] | None

    @classmethod
    def from_pb(cls, received: stage_pb2.HopPayment) -> HopPay:
        """Read the frame; raise `MalformedMessageError`."""
        payer = signed_from_pb(received.payer, Pay) if received.HasField("payer") else None
        return cls(payment=payment_from_pb(received.payment), payer=payer)


@dataclass(slots=True, kw_only=True)
class Till:
    """Checks payments of the hop before and has them journalled."""

    config: StageConfig
    key: Key
    domain: Domain
    channels: Channels
    payees: Payees
    debts: Debts
    clock: Callable[[], float]
    _slots: dict[tuple[Address, Address], tuple[float, ChannelFacts]] = field(
        default_factory=dict[tuple[Address, Address], tuple[float, ChannelFacts]]
    )
    _turns: WeakValueDictionary[Hash, asyncio.Lock] = field(default_factory=WeakValueDictionary[Hash, asyncio.Lock])

    async def take(self, job: StageJob | None, paid: HopPay, *, worker: Address) -> stage_pb2.HopAck:
        """Return the acknowledgement of what a worker paid; raise `BadPaymentError` or what the payee book refuses.

        A channel that is not open yet, or not topped up yet, is waited for as long as a payment on its way is.
        """
        self._check(job, paid)
        voucher, pay = paid.payment.voucher.message, paid.payment.pay.message
        signer = paid.payment.voucher.signer(self.domain)
        channel = channel_id(voucher.payer, self.config.owner, signer)
        # Vouchers of a channel are journalled in the order they came; nobody waits for another payer's channel.
        async with self._turns.setdefault(channel, asyncio.Lock()):
            slot = await self._slot(voucher.payer, signer, needed=voucher.cumulative)
            # What we have signed is earned: the job cannot end below what was paid of it.
            if job is not None and job.fee:
                self.payees.earn(channel, pay.request, job.fee)
            accepted = self.payees.accept(
                paid.payment, deposit=slot.deposit, claimed=slot.claimed, exit_at=slot.exit_at, now=self.clock()
            )
        if job is not None:
            job.pay(pay.amount)
        self.debts.paid(worker, pay.request, accepted.new_amount)
        ack = self.key.signed(self.domain, Ack(voucher=accepted.voucher, at=int(self.clock())))
        acknowledgement = signed_pb2.Acknowledgement(ack=signed_to_pb(ack), credit=amount_bytes(accepted.credit))
        return stage_pb2.HopAck(request=pay.request, ack=acknowledgement)

    def _check(self, job: StageJob | None, paid: HopPay) -> None:
        if paid.payment.voucher.message.payee != self.config.owner:
            raise BadPaymentError(f"the voucher pays another node than {to_hex(self.config.owner)}")
        if job is None or job.admitted.payer_key is None:
            return  # nothing to compare with, or the chain holds the fee and there is no payer's Pay
        admitted, payer = job.admitted, paid.payer
        if payer is None or payer.message.request != admitted.request_digest:
            raise BadPaymentError("a hop's payment comes with the payer's own Pay for the request")
        if payer.signer(self.domain) != admitted.payer_key:
            raise BadPaymentError("the Pay that came along is not signed by the request's payer")

    async def _slot(self, payer: Address, signer: Address, *, needed: int) -> ChannelFacts:
        now = self.clock()
        known = self._slots.get((payer, signer))
        if known is not None and now - known[0] < _FRESH_S and known[1].deposit >= max(1, needed):
            return known[1]
        if len(self._slots) >= _MOST:
            self._slots.clear()
        slot = await self._funded(payer, signer, needed=max(1, needed))
        self._slots[payer, signer] = (now, slot)
        return slot

    async def _funded(self, payer: Address, signer: Address, *, needed: int) -> ChannelFacts:
        """Return the channel once it holds `needed` base units, or as it is when we have waited long enough."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self.config.unpaid_s
        while True:
            slot = await self.channels.channel(payer, self.config.owner, signer)
            if slot.deposit >= needed or loop.time() >= until:
                return slot
            await asyncio.sleep(min(_LOOK_S, self.config.unpaid_s))
