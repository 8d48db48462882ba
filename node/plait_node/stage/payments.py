"""Take payments for jobs of this stage: they must belong to the job, and then the till journals them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from plait.protocol.codec import Payment, payment_from_pb, signed_from_pb
from plait.protocol.ids import Address, to_hex
from plait.protocol.messages import Pay, Voucher
from plait.protocol.pb import stage_pb2
from plait.protocol.typed import Domain, Key, Signed
from plait_node.settlement import till
from plait_node.stage.config import StageConfig
from plait_node.stage.debts import Debts
from plait_node.stage.errors import BadPaymentError
from plait_node.stage.job import StageJob


@dataclass(frozen=True, slots=True, kw_only=True)
class HopPay:
    """A `HopPayment` frame, well formed: this hop's payment, and the payer's own Pay that covers it.

    A worker that started again has the payer's Pays no more.
    """

    payment: Payment
    payer: Signed[Pay] | None

    @classmethod
    def from_pb(cls, received: stage_pb2.HopPayment) -> HopPay:
        """Read the frame; raise `MalformedMessageError`."""
        payer = signed_from_pb(received.payer, Pay) if received.HasField("payer") else None
        return cls(payment=payment_from_pb(received.payment), payer=payer)


@dataclass(slots=True, kw_only=True)
class Till:
    """Checks payments of workers and has them journalled."""

    config: StageConfig
    key: Key
    domain: Domain
    channels: till.Channels
    payees: till.Payees
    debts: Debts
    clock: Callable[[], float]
    _till: till.Till = field(init=False)

    def __post_init__(self) -> None:
        self._till = till.Till(
            owner=self.config.owner,
            key=self.key,
            domain=self.domain,
            channels=self.channels,
            payees=self.payees,
            clock=self.clock,
            unpaid_s=self.config.unpaid_s,
        )

    async def take(self, job: StageJob | None, paid: HopPay, *, worker: Address) -> stage_pb2.HopAck:
        """Return the acknowledgement of what a worker paid; raise `BadPaymentError` or what the payee book refuses.

        What came along is looked at when the money is taken: vouchers only count in order, and one that is refused
        stops all that follow.
        """
        if paid.payment.voucher.message.payee != self.config.owner:
            raise BadPaymentError(f"the voucher pays another node than {to_hex(self.config.owner)}")
        # What we have signed is earned: the job cannot end below what was paid of it.
        accepted = await self._till.take(paid.payment, lambda _: job.fee if job is not None else 0)
        pay = paid.payment.pay.message
        if job is not None:
            job.pay(pay.amount)
        self.debts.paid(worker, pay.request, accepted.new_amount)
        self._check(job, paid)
        return stage_pb2.HopAck(request=pay.request, ack=self._till.ack(accepted))

    def stands(self, paid: HopPay) -> Signed[Voucher] | None:
        """Return the last voucher that was accepted on a payment's channel."""
        return self._till.stands(paid.payment)

    def _check(self, job: StageJob | None, paid: HopPay) -> None:
        if job is None or job.admitted.payer_key is None or paid.payer is None:
            return  # nothing to compare, or the chain holds the fee and there is no payer's Pay
        admitted, payer = job.admitted, paid.payer
        if payer.message.request != admitted.request_digest:
            raise BadPaymentError("the Pay that came along is for another request")
        if payer.signer(self.domain) != admitted.payer_key:
            raise BadPaymentError("the Pay that came along is not signed by the request's payer")
