"""The worker role: take jobs of the group, have the stages of a route answer them, sign what was done."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from plait.protocol.errors import DeadlineError, Fault, PlaitError
from plait.protocol.ids import Address, Hash, to_hex
from plait_node.broker import BrokerError
from plait_node.worker.past import Past
from plait_node.worker.payer import PayerWatch
from plait_node.worker.publisher import Publisher
from plait_node.worker.serving import Done, Serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence

    from plait.protocol.messages import Request
    from plait.protocol.sealing import ContentKey
    from plait_node.broker import Broker, Delivery
    from plait_node.swarm.announcer import Announcer
    from plait_node.worker.admission import Admission, Task
    from plait_node.worker.income import Income
    from plait_node.worker.plan import Planner
    from plait_node.worker.tools import Tools

    Jobs = Callable[[Broker], AsyncIterator[Delivery]]

_ABORTED_SETTLE_S = 3.0
_STEP_BACK_S = 1.0
_INTERNAL = Fault(code="internal", text="the worker failed on this request; ask again", retry=True)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """What an operator sets; times in seconds."""

    group: bytes = b""  # whose jobs are taken, where the role is not given `jobs`
    parallel_jobs: int = 2
    settle_s: float = 30.0  # how long the last payment is waited for after an answer


class WorkerRole:
    """Serves one group of one model."""

    def __init__(
        self,
        config: WorkerConfig,
        *,
        tools: Tools,
        planner: Planner,
        admission: Admission,
        announcer: Announcer,
        broker: Broker,
        jobs: Jobs | None = None,
        income: Income | None = None,
        full: Callable[[], bool] = lambda: False,
    ) -> None:
        """Take jobs from `broker`, deposit records through `announcer`; `jobs` says which, where the group changes.

        Without `income` only the owner's own gateways are served. While the disk is `full` no job is taken.
        """
        self._config = config
        self._tools = tools
        self._planner = planner
        self._admission = admission
        self._announcer = announcer
        self._broker = broker
        self._jobs: Jobs = jobs or (lambda broker: broker.jobs(config.group))
        self._full = full
        self._income = income
        self._room = asyncio.Semaphore(config.parallel_jobs)
        self._tasks: set[asyncio.Task[None]] = set()
        self._payers: set[PayerWatch] = set()
        self._closed = asyncio.Event()
        self.served = 0
        self.failed = 0

    @property
    def busy(self) -> bool:
        """Tell whether a job runs or waits for its last payment."""
        return bool(self._tasks)

    def close(self) -> None:
        """Take no more jobs; those in hand go on."""
        self._closed.set()

    async def run(self) -> None:
        """Take jobs until closed, then go on with those in hand until cancelled; they are then given back."""
        taking = asyncio.create_task(self._take_all(), name="take jobs")
        closed = asyncio.create_task(self._closed.wait(), name="closed")
        try:
            await asyncio.wait({taking, closed}, return_when=asyncio.FIRST_COMPLETED)
            if taking.done():
                taking.result()
            taking.cancel()
            await asyncio.wait({taking})
            await asyncio.Event().wait()
        finally:
            for task in (taking, closed):
                task.cancel()
            await asyncio.gather(taking, closed, return_exceptions=True)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await asyncio.gather(*(payer.stop() for payer in self._payers))

    async def _take_all(self) -> None:
        jobs = self._jobs(self._broker)
        while True:
            async with self._room:
                pass  # a job that there is no room for stays with the group
            while self._full():  # noqa: ASYNC110 -- nobody tells when a disk has room again
                await asyncio.sleep(_STEP_BACK_S)
            delivery = await anext(jobs)
            if self._full() or self._is_for_others(delivery):
                await delivery.nak()
                await asyncio.sleep(_STEP_BACK_S)  # another one, or whom it names, is to get it next, not we again
                continue
            try:
                async with delivery.working():  # a request from the chain may have come between
                    await self._room.acquire()
            except asyncio.CancelledError:
                await asyncio.shield(delivery.nak())
                raise
            self._spawn(self._take_and_release(delivery), f"job {to_hex(delivery.request)[:10]}")

    def _is_for_others(self, delivery: Delivery) -> bool:
        """Tell whether a job's key is sealed to others, or its gateway's jobs are not taken here."""
        quote = delivery.call.quote.message
        named = {worker.node for worker in quote.workers}
        return bool(named) and (self._tools.owner not in named or not self._serves(quote.gateway))

    def _serves(self, gateway: bytes) -> bool:
        if self._income is None or len(gateway) != 20:
            return gateway == self._tools.owner
        return self._income.serves(Address(gateway))

    async def run_onchain(
        self, request: Request, ids: Sequence[int], content_key: ContentKey, *, begin_before: float
    ) -> Done:
        """Answer a request from the chain; nothing is streamed, the stages are paid out of the fee.

        Raise a `RefusedError`, a `DeadlineError` when there is no room until `begin_before` (Unix seconds), or
        `StageFailure` when no route got to the end.
        """
        task = self._admission.admit_on_chain(request, ids, content_key)
        payer = PayerWatch(self._broker, task=task, worker=self._tools.owner, domain=self._tools.domain)
        serving = Serving(
            self._tools, planner=self._planner, announcer=self._announcer, task=task, payer=payer, publisher=None
        )
        async with self._room:
            if self._tools.clock() >= begin_before:
                raise DeadlineError("there was no room in time for an answer to be sent before it may be cancelled")
            try:
                return await serving.answer()
            finally:
                self._spawn(self._settle(serving, payer, 0.0), "settle")

    async def take(self, delivery: Delivery) -> None:
        """Serve one delivery; whatever happens the payer hears of it, and the job leaves the queue once it did."""
        gateway = delivery.call.quote.message.gateway
        if len(gateway) != 20:
            await delivery.dead("its quote names no gateway")
            return
        publisher = Publisher(
            self._broker, gateway=Address(gateway), request=Hash(delivery.request), worker=self._tools.owner
        )
        try:
            async with delivery.working():
                await self._serve(delivery, publisher)
        except asyncio.CancelledError:
            await asyncio.shield(delivery.nak())
            raise
        await delivery.ack()

    def _spawn(self, work: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _take_and_release(self, delivery: Delivery) -> None:
        try:
            await self.take(delivery)
        except BrokerError as error:  # the job comes again
            _log.warning("job not ended request=%s error=%s", to_hex(delivery.request), error)
        finally:
            self._room.release()

    async def _serve(self, delivery: Delivery, publisher: Publisher) -> None:
        try:
            task = await self._admission.admit(delivery.call, now=self._tools.clock())
            past = await self._past(task) if delivery.deliveries > 1 else None
            if past is not None and past.ended:
                return
            payer = PayerWatch(self._broker, task=task, worker=self._tools.owner, domain=self._tools.domain)
            self._payers.add(payer)
            payer.start()
            if self._income is not None and payer.gateway != self._tools.owner:
                self._income.watch(payer)
            serving = Serving(
                self._tools,
                planner=self._planner,
                announcer=self._announcer,
                task=task,
                payer=payer,
                publisher=publisher,
                past=past,
            )
            try:
                await serving.answer()
            except asyncio.CancelledError:  # somebody goes on with it, perhaps we ourselves: nothing ends here
                await self._leave(payer)
                raise
            except BaseException:
                self._spawn(self._settle(serving, payer, _ABORTED_SETTLE_S), "settle")
                raise
            self._spawn(self._settle(serving, payer, self._config.settle_s), "settle")
            self.served += 1
        except PlaitError as error:
            await self._fail(delivery, publisher, error.fault())
        except Exception:  # noqa: BLE001  the payer must hear of it, whatever it was
            _log.exception("job failed request=%s", to_hex(delivery.request))
            await self._fail(delivery, publisher, _INTERNAL)

    async def _past(self, task: Task) -> Past:
        """Return what earlier workers of the group delivered of an answer, this one in an earlier life among them."""
        past = Past(self._broker, task, self._tools)
        await past.read()
        if past.attempt:
            _log.info("answer taken over request=%s attempt=%d", to_hex(task.digest), past.attempt + 1)
        return past

    async def _settle(self, serving: Serving, payer: PayerWatch, wait_s: float) -> None:
        try:
            await serving.settle(wait_s=wait_s)
        except Exception:  # noqa: BLE001  nobody waits for this; the journal keeps what is owed
            _log.exception("job not settled")
        finally:
            await self._leave(payer)

    async def _leave(self, payer: PayerWatch) -> None:
        self._payers.discard(payer)
        if self._income is not None:
            self._income.unwatch(payer)
        await payer.stop()

    async def _fail(self, delivery: Delivery, publisher: Publisher, fault: Fault) -> None:
        self.failed += 1
        _log.warning("job refused request=%s code=%s text=%s", to_hex(delivery.request), fault.code, fault.text)
        await publisher.error(fault)
