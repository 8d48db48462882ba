"""What the payer says while its answer runs: payments and cancellations, checked before they count.

Where the gateway is another owner's, the answer is paid as far as both pay: the payer the gateway, the gateway us.
"""

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
from plait_node.worker.cover import Cover

if TYPE_CHECKING:
    from collections.abc import Callable

    from plait.protocol.ids import Address, Hash
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
        self._cover = Cover.of(task, worker)
        self.signed_to: Callable[[], int] = lambda: 0  # the first output token that no progress of ours covers
        self.unpaid = 0  # delivered tokens that are not owed for: their windows died with an attempt
        self.cancelled = False

    @property
    def to(self) -> int:
        """Return how many output tokens are paid for."""
        if self._cover is None:
            return self._payer_to
        return max(0, min(self._payer_to, self._cover.to(unpaid=self.unpaid)))

    @property
    def request(self) -> Hash:
        """Return the request."""
        return self._task.digest

    @property
    def gateway(self) -> Address:
        """Return the owner of the gateway."""
        return self._task.gateway

    @property
    def prompt_unpaid(self) -> bool:
        """Tell whether the gateway has not paid for the prompt yet."""
        return self._cover is not None and self._cover.to(unpaid=self.unpaid) < 0

    @property
    def _payer_to(self) -> int:
        return self.pay.message.to if self.pay is not None else 0

    def begin(self, *, unpaid: int, others: int) -> None:
        """Begin an attempt behind `unpaid` tokens that nobody owes, and `others` base units that others earned."""
        self.unpaid = unpaid
        if self._cover is not None:
            self._cover.others = others

    def hop_paid(self, amount: int) -> None:
        """Take what the gateway has paid for the request in all, in base units."""
        if self._cover is not None and amount > self._cover.paid:
            self._cover.paid = amount
            self._tell()

    def hop_due(self) -> int:
        """Return what the gateway owes for sure: our share of what we signed and the payer says it got and paid."""
        to = min(self._payer_to, self.signed_to())
        return self._cover.needed(to, unpaid=self.unpaid) if self._cover is not None and to else 0

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

    async def prompt_paid(self, *, deadline_s: float) -> bool:
        """Wait until the gateway has paid for the prompt; tell whether that came in time."""
        return await self._until(lambda: not self.prompt_unpaid, deadline_s)

    async def paid_to(self, to: int, *, deadline_s: float) -> bool:
        """Wait until this many output tokens are paid for; tell whether that came in time."""
        return await self._until(lambda: self.to >= to, deadline_s)

    async def _until(self, happened: Callable[[], bool], deadline_s: float) -> bool:
        try:
            async with asyncio.timeout(deadline_s):
                while not happened():
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
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        for listener in self._listeners:
            listener()
