"""The events of one answer on their way to the gateway, each named so that a retry cannot double it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from plait.protocol.codec import fault_to_pb, signed_to_pb
from plait.protocol.pb import gateway_pb2
from plait_node.broker import BrokerDownError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plait.protocol.errors import Fault
    from plait.protocol.ids import Address, Hash
    from plait.protocol.messages import Job, Leaf, Progress, Receipt
    from plait.protocol.typed import Signed
    from plait_node.broker import Broker

# The key makes a repeated call harmless.
_AGAIN_S = (0.2, 1.0, 3.0)


class Publisher:
    """Publishes what happens to one request."""

    def __init__(self, broker: Broker, *, gateway: Address, request: Hash, worker: Address) -> None:
        """Publish on the worker's own result subject."""
        self._broker = broker
        self._gateway = gateway
        self._request = request
        self._worker = worker
        self._attempt = 0
        self._count = 0

    async def job(self, signed: Signed[Job]) -> None:
        """Begin an attempt; what follows belongs to it."""
        self._attempt, self._count = signed.message.attempt, 0
        await self._publish(gateway_pb2.ResultEvent(job=signed_to_pb(signed)))

    async def chunk(self, job: Hash, sealed: bytes) -> None:
        """Publish a sealed chunk."""
        await self._publish(gateway_pb2.ResultEvent(chunk=gateway_pb2.Chunk(job=job, sealed=sealed)))

    async def progress(self, signed: Signed[Progress], leaves: Sequence[Signed[Leaf]]) -> None:
        """Publish a progress with the leaves of its new windows."""
        body = gateway_pb2.ProgressOf(progress=signed_to_pb(signed), leaves=[signed_to_pb(leaf) for leaf in leaves])
        await self._publish(gateway_pb2.ResultEvent(progress=body))

    async def receipt(self, signed: Signed[Receipt]) -> None:
        """Publish the receipt, which ends the answer."""
        await self._publish(gateway_pb2.ResultEvent(receipt=signed_to_pb(signed)))

    async def error(self, fault: Fault) -> None:
        """Publish what went wrong, which ends the answer."""
        await self._publish(gateway_pb2.ResultEvent(error=fault_to_pb(fault)))

    async def _publish(self, event: gateway_pb2.ResultEvent) -> None:
        event.request = self._request
        key = f"{self._attempt}.{self._count}"
        self._count += 1
        for wait_s in (*_AGAIN_S, None):
            try:
                await self._broker.publish_result(self._gateway, self._request, self._worker, event, key=key)
            except BrokerDownError:
                if wait_s is None:
                    raise
                await asyncio.sleep(wait_s)
            else:
                return
