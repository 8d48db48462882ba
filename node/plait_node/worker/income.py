"""What gateways of other owners pay this worker: checked, journalled, acknowledged, and told to the job it is for.

All payments to an owner come on one subject, so those of a channel come in the order they were signed. They are taken
for requests that nobody here knows as well: the money may be for a job of before a restart. From the subject's start
they are read again after each start; what is journalled already changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from typing import TYPE_CHECKING

from plait.ledger import JournalFullError, PaymentError
from plait.protocol.codec import payment_from_pb
from plait.protocol.errors import BadSignatureError, PlaitError
from plait.protocol.ids import HASH_ZERO, Address, Hash, channel_id, to_hex
from plait_node.broker import BrokerError
from plait_node.policy import EVERYBODY, NotServedError
from plait_node.worker.arrears import Arrears

if TYPE_CHECKING:
    from collections.abc import Callable

    from plait.ledger import DebtBook
    from plait.protocol.codec import Payment
    from plait_node.broker import Broker, Notice
    from plait_node.policy import Guests
    from plait_node.settlement.till import Till
    from plait_node.worker.payer import PayerWatch

__all__ = ["Income"]

_AGAIN_S = 1.0
# A payment that is refused may be one too early: the gateway saw its deposit in a block that our endpoint lacks.
_TRIES, _RETRY_S = 20, 3.0
# Payments that are being taken hold up those behind them; one that takes longer waits by itself, if there is room.
_MOST_QUICK, _SLOW_S = 64, 1.0
_MOST_WAITING, _MOST_REQUESTS = 256, 10_000

_log = logging.getLogger(__name__)


class Income:
    """The payments of all gateways to one owner."""

    def __init__(
        self,
        till: Till,
        broker: Broker,
        debts: DebtBook,
        *,
        gateways: Guests = EVERYBODY,
        on_payment: Callable[[], None] = lambda: None,
    ) -> None:
        """Take payments into `till`; `gateways` says whose jobs are taken, `on_payment` hears of each payment.

        What is left unpaid is kept in `debts`.
        """
        self._till, self._broker = till, broker
        self._gateways, self._on_payment = gateways, on_payment
        self._heard = 0
        self._watches: dict[Hash, PayerWatch] = {}
        self._paid: OrderedDict[Hash, dict[Hash, int]] = OrderedDict()  # by request and channel, in base units
        self._arrears = Arrears(debts, now=till.clock())
        self._last: dict[Hash, asyncio.Task[None]] = {}  # of each channel: the next one waits for it
        self._waiting: set[asyncio.Task[None]] = set()
        self._quick: set[asyncio.Task[None]] = set()  # those of them that are being taken, or soon will be

    async def run(self) -> None:
        """Take payments until cancelled."""
        try:
            while True:
                await self._follow()
                await asyncio.sleep(_AGAIN_S)
        finally:
            for task in self._waiting:
                task.cancel()
            await asyncio.gather(*self._waiting, return_exceptions=True)

    def watch(self, watch: PayerWatch) -> None:
        """Tell a job of what it is paid, from now on and before."""
        self._watches[watch.request] = watch
        watch.hop_paid(self.paid(watch.request))

    def unwatch(self, watch: PayerWatch) -> None:
        """Tell a job nothing more; what its gateway owes for it then is a debt."""
        if self._watches.pop(watch.request, None) is None:
            return
        due = watch.hop_due()
        if due > self.paid(watch.request):
            self._arrears.note(watch.gateway, watch.request, due, now=self._till.clock())
            _log.warning("gateway owes for a job owner=%s request=%s", to_hex(watch.gateway), to_hex(watch.request))

    def paid(self, request: Hash) -> int:
        """Return what all channels paid for a request, in base units."""
        return sum(self._paid.get(request, {}).values())

    def serves(self, gateway: Address) -> bool:
        """Tell whether jobs of an owner's gateways are taken: not while one of before is owed for."""
        if gateway == self._till.owner:
            return True
        try:
            self._gateways.check(gateway, "gateway")
        except NotServedError:
            return False
        return not self._arrears.owes(gateway, self.paid, now=self._till.clock())

    async def _follow(self) -> None:
        """Hear payments until the broker fails; the next call goes on behind the last one."""
        try:
            async for notice in self._broker.payments(self._till.owner, HASH_ZERO, after=self._heard):
                self._heard = notice.sequence
                self._hear(notice)
                while len(self._quick) >= _MOST_QUICK:  # after a start there may be hours of them
                    await asyncio.wait(self._quick, return_when=asyncio.FIRST_COMPLETED, timeout=_SLOW_S)
        except BrokerError as error:
            _log.warning("gateways' payments unheard error=%s", error)

    def _hear(self, notice: Notice) -> None:
        try:
            payment = payment_from_pb(notice.notice.hop)
            voucher = payment.voucher
            channel = channel_id(voucher.message.payer, voucher.message.payee, voucher.signer(self._till.domain))
        except PlaitError as error:
            _log.warning("gateway's payment unreadable error=%s", error)
            return
        task = asyncio.create_task(self._take_after(self._last.get(channel), payment), name="income")
        self._last[channel] = task
        self._waiting.add(task)
        self._quick.add(task)
        task.add_done_callback(lambda done: self._done(channel, done))

    def _done(self, channel: Hash, task: asyncio.Task[None]) -> None:
        self._waiting.discard(task)
        self._quick.discard(task)
        if self._last.get(channel) is task:
            del self._last[channel]

    async def _take_after(self, before: asyncio.Task[None] | None, payment: Payment) -> None:
        while before is not None and not before.done():
            await asyncio.wait({before}, timeout=_SLOW_S)
            if not before.done() and not self._may_wait(payment):
                return
        left = _TRIES
        while left:
            try:
                await self._take(payment)
            except BadSignatureError as error:
                _log.warning("gateway's payment refused error=%s", error)
                return
            except PlaitError as error:
                final = isinstance(error, PaymentError) and not _may_come(error)
                left -= not isinstance(error, JournalFullError)  # our own disk: for as long as it takes
                _log.warning("gateway's payment refused again=%s error=%s", bool(left) and not final, error)
                if final or not left or not self._may_wait(payment):
                    return
                await asyncio.sleep(_RETRY_S)
            else:
                return

    def _may_wait(self, payment: Payment) -> bool:
        """Hold nobody up any more; tell whether there is room for a payment that waits."""
        task = asyncio.current_task()
        if task in self._quick:
            self._quick.discard(task)
            if len(self._waiting) - len(self._quick) > _MOST_WAITING:
                _log.warning("gateway's payment dropped, too many wait payer=%s", to_hex(payment.voucher.message.payer))
                return False
        return True

    async def _take(self, payment: Payment) -> None:
        request = payment.pay.message.request
        accepted = await self._till.take(payment, lambda channel: self._earned(request, channel))
        paid = self._paid.setdefault(request, {})
        self._paid.move_to_end(request)
        paid[accepted.channel] = max(accepted.paid, paid.get(accepted.channel, 0))
        if len(self._paid) > _MOST_REQUESTS:
            self._paid.popitem(last=False)
        self._arrears.take(request, self.paid(request))
        self._on_payment()
        watch = self._watches.get(request)
        if watch is None:
            return
        watch.hop_paid(self.paid(request))
        try:
            key = accepted.voucher.hex()
            await self._broker.publish_ack(watch.gateway, request, self._till.ack(accepted), key=key)
        except BrokerError as error:  # it is in the journal, and the gateway's broker keeps the payment
            _log.warning("payment not acknowledged request=%s error=%s", to_hex(request), error)

    def _earned(self, request: Hash, channel: Hash) -> int:
        """Return what a request is worth so far on a channel: what others paid of it is not."""
        watch = self._watches.get(request)
        before = sum(amount for other, amount in self._paid.get(request, {}).items() if other != channel)
        return max(0, watch.hop_due() - before) if watch else 0


def _may_come(error: PaymentError) -> bool:
    """Tell whether a payment may be taken in a moment."""
    return error.code in ("channel_unknown", "deposit_too_small")
