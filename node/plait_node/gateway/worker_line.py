"""What the gateway passes on to workers: payments as they were accepted, and cancellations."""

from __future__ import annotations

import logging

from plait.protocol import codec
from plait.protocol.codec import Payment
from plait.protocol.ids import Address, Hash
from plait.protocol.messages import Cancel
from plait.protocol.pb import gateway_pb2
from plait.protocol.typed import Signed, struct_hash
from plait_node.broker import Broker, BrokerError
from plait_node.gateway.errors import BrokerAwayError
from plait_node.gateway.store import StoredJob

_LOG = logging.getLogger(__name__)


class WorkerLine:
    """Forwards to the worker of the accepted attempt, or to all quoted ones while there is none."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._last: dict[Hash, gateway_pb2.PayNotice] = {}

    async def pay(self, job: StoredJob, worker: Address | None, payment: Payment, *, last: bool) -> None:
        """Forward a payment, the job's `last` or not; raise `BrokerAwayError`: the payer may send it again."""
        notice = gateway_pb2.PayNotice(payment=codec.payment_to_pb(payment))
        self._last[job.name] = notice
        await self._send(job, worker, notice, struct_hash(payment.pay.message).hex(), last=last)

    async def cancel(self, job: StoredJob, worker: Address | None, cancel: Signed[Cancel]) -> None:
        """Forward a cancellation; raise `BrokerAwayError`."""
        notice = gateway_pb2.PayNotice(cancel=codec.signed_to_pb(cancel))
        await self._send(job, worker, notice, "cancel-" + struct_hash(cancel.message).hex())

    async def remind(self, job: StoredJob, worker: Address | None) -> None:
        """Tell a worker whose attempt begins what was paid last: it may not have been the one who was told."""
        notice = self._last.get(job.name)
        if notice is None or worker is None:
            return
        try:
            pay = codec.payment_from_pb(notice.payment).pay.message
            await self._send(job, worker, notice, struct_hash(pay).hex())
        except BrokerAwayError as error:
            _LOG.warning("payment not repeated request=0x%s error=%s", job.name.hex(), error)

    def forget(self, name: Hash) -> None:
        """Drop what is remembered of a job that ended."""
        self._last.pop(name, None)

    async def _send(
        self, job: StoredJob, worker: Address | None, notice: gateway_pb2.PayNotice, key: str, *, last: bool = False
    ) -> None:
        workers = [worker] if worker else [each.node for each in job.quote.workers]
        try:
            for each in workers:
                await self._broker.publish_pay(each, job.name, notice, key=key, last=last)
        except BrokerError as error:
            text = f"your payment is journaled, but the worker could not be told ({error}); send the same call again"
            raise BrokerAwayError(text, moved=True) from error
