"""What the payer says while its answer runs: payments and cancellations, checked before they count."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from plait.protocol.codec import payment_from_pb, signed_from_pb
from plait.protocol.errors import PlaitError
from plait.protocol.ids import to_hex
from plait.protocol.messages import Cancel
from plait_node.broker import BrokerError
from plait_node.worker.admission import check_pay, is_cancel

if TYPE_CHECKING:
    from collections.abc import Callable

    from plait.protocol.ids import Address
    from plait.protocol.messages import Pay
    from plait.protocol.pb import gateway_pb2
    from plait.protocol.typed import Domain, Signed
    from plait_node.broker import Broker
    from plait_node.worker.admission import Task

_log = logging.getLogger(__name__)


class PayerWatch:
    """Follows one request's payments from the broker; `pay` is the one that covers most."""

    def __init__(self, broker: Broker, *, task: Task, worker: Address, domain: Domain) -> None:
        """Begin with the Pay that came with the request."""
        self._broker = broker
        self._task = task
        self._worker = worker
        self._domain = domain
        self._listeners: list[Callable[[], object]] = []
        self._changed = asyncio.Event()
        self._runner: asyncio.Task[None] | None = None
        self.pay: Signed[Pay] | None = task.pay
        self.unpaid = 0  # delivered tokens that are not owed for: their windows died with an attempt
        self.cancelled = False

    @property
    def to(self) -> int:
        """Return how many output tokens are paid for."""
        return self.pay.message.to if self.pay is not None else 0

    def start(self) -> None:
        """Listen from now on; a request from the chain has nobody to listen to."""
        if self._task.quote is not None and self._runner is None:
            self._runner = asyncio.create_task(self._run(), name="payer-watch")

    async def stop(self) -> None:
        """Listen no more."""
        if self._runner is not None:
            self._runner.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._runner
            self._runner = None

    def tell(self, listener: Callable[[], object]) -> None:
        """Call `listener` after every payment and cancellation."""
        self._listeners.append(listener)

    async def paid_to(self, to: int, *, deadline_s: float) -> bool:
        """Wait until this many output tokens are paid for; tell whether that came in time."""
        try:
            async with asyncio.timeout(deadline_s):
                while self.to < to:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    async def _run(self) -> None:
        try:
            async for notice in self._broker.payments(self._worker, self._task.digest):
                try:
                    self._take(notice.notice)
                except PlaitError as error:
                    _log.warning("payer's notice refused request=%s error=%s", to_hex(self._task.digest), error)
        except BrokerError as error:  # the job ends at its credit line
            _log.warning("payer unheard request=%s error=%s", to_hex(self._task.digest), error)

    def _take(self, notice: gateway_pb2.PayNotice) -> None:
        if notice.WhichOneof("body") == "cancel":
            self.cancelled |= is_cancel(self._domain, self._task, signed_from_pb(notice.cancel, Cancel))
        else:
            pay = payment_from_pb(notice.payment).pay
            check_pay(self._domain, self._task, pay, unpaid=self.unpaid)
            if self.pay is None or pay.message.to > self.pay.message.to:
                self.pay = pay
        self._changed.set()
        for listener in self._listeners:
            listener()
