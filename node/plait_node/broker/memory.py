"""A broker inside one process: the same face and promises as NATS, nothing kept after it is closed."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from google.protobuf.message import Message

from plait.protocol.pb import gateway_pb2, signed_pb2
from plait_node.broker.errors import BrokerClosedError, MessageTooLargeError
from plait_node.broker.face import (
    MAX_DELIVERIES,
    MESSAGE_LIMIT,
    OFFER_LIFE_S,
    PRIORITIES,
    PROMPT_LIFE_S,
    PROMPTS_KEPT,
    Acknowledged,
    BroughtPrompt,
    DeadLetter,
    Delivery,
    Notice,
    Result,
    given_up,
)
from plait_node.broker.leases import MemoryShared, Shared
from plait_node.broker.pulse import pulse
from plait_node.broker.subjects import NOBODY
from plait_node.broker.turns import Turns


@dataclass(slots=True, kw_only=True)
class _Entry:
    """One job of a group: waiting when `lease` is None, else in the hands of that delivery."""

    group: bytes
    priority: int
    number: int
    request: bytes
    payload: bytes
    deliveries: int = 0
    lease: asyncio.TimerHandle | None = None
    holder: int = 0
    requeue: asyncio.Task[None] | None = None


# kind, owner, request
_Subject = tuple[str, bytes, bytes]
# sequence, worker, payload
_Row = tuple[int, bytes, bytes]


class MemoryBroker:
    """Keep jobs, results, payments, prompts and offers in this process."""

    def __init__(self, clock: Callable[[], float], *, ack_wait_s: float = 10.0) -> None:
        self._clock = clock
        self._numbers = itertools.count(1)
        self._queue = _JobQueue(ack_wait_s=ack_wait_s)
        self._logs: dict[_Subject, list[_Row]] = {}
        self._named: set[str] = set()
        self._dead: list[DeadLetter] = []
        self._offers: dict[tuple[bytes, bytes, bytes], tuple[float, bytes]] = {}
        self._prompts: dict[bytes, list[tuple[float, int, bytes]]] = {}
        self.shared: Shared = MemoryShared(clock, lambda: self._queue.closed)

    async def publish_job(self, group: bytes, priority: int, call: gateway_pb2.JobCall, *, request: bytes) -> bool:
        """Hand a job to a group; return False when this request was published before."""
        if priority not in PRIORITIES:
            raise ValueError(f"priority {priority} is not one of {PRIORITIES}")
        payload = self._payload(call)
        if not self._first(f"job.{request.hex()}"):
            return False
        entry = _Entry(group=group, priority=priority, number=next(self._numbers), request=request, payload=payload)
        await self._queue.put(entry)
        return True

    async def jobs(self, group: bytes) -> AsyncIterator[Delivery]:
        """Yield jobs for a worker of this group in `Turns`' order."""
        while True:
            entry = await self._queue.take(group)
            if entry.deliveries > MAX_DELIVERIES:
                await self.bury(entry, entry.holder, f"handed out {MAX_DELIVERIES} times without an end")
                continue
            yield _MemoryDelivery(self, self._queue, entry)

    async def backlog(self, group: bytes) -> int:
        """Count the jobs of a group that are waiting or running."""
        return self._queue.count(group)

    async def turnover(self, group: bytes) -> int:
        """Count the deliveries of a group's jobs that ended, ever."""
        return self._queue.ended.get(group, 0)

    async def publish_result(
        self, gateway: bytes, request: bytes, worker: bytes, event: gateway_pb2.ResultEvent, *, key: str
    ) -> None:
        """Append an event of an answer; a repeated key is dropped."""
        if len(worker) != 20:
            raise ValueError("a worker is named by its owner's 20 bytes")
        await self._append(("result", gateway, request), event, by=worker, key=key)

    async def results(self, gateway: bytes, request: bytes, *, after: int = 0) -> AsyncIterator[Result]:
        """Yield results after a sequence, then wait for more."""
        async for sequence, worker, payload in self._follow(("result", gateway, request), after):
            event = gateway_pb2.ResultEvent.FromString(payload)
            yield Result(sequence=sequence, worker=worker, event=event)

    async def forget_results(self, gateway: bytes, request: bytes) -> None:
        """Drop an answer that was delivered and paid."""
        self._logs.pop(("result", gateway, request), None)

    async def publish_pay(
        self, worker: bytes, request: bytes, notice: gateway_pb2.PayNotice, *, key: str, last: bool = False
    ) -> None:
        """Forward a payment or a cancellation to the worker of a request."""
        await self._append(("pay", worker, request), notice, key=key)
        if last:
            del self._logs["pay", worker, request][:-1]

    async def payments(self, worker: bytes, request: bytes, *, after: int = 0) -> AsyncIterator[Notice]:
        """Yield payments after a sequence, then wait for more."""
        async for sequence, _, payload in self._follow(("pay", worker, request), after):
            yield Notice(sequence=sequence, notice=gateway_pb2.PayNotice.FromString(payload))

    async def publish_ack(self, gateway: bytes, request: bytes, ack: signed_pb2.Acknowledgement, *, key: str) -> None:
        """Tell the gateway that its forwarded payment was journaled."""
        await self._append(("ack", gateway, request), ack, key=key)

    async def acks(self, gateway: bytes, request: bytes, *, after: int = 0) -> AsyncIterator[Acknowledged]:
        """Yield acknowledgements after a sequence, then wait for more."""
        async for sequence, _, payload in self._follow(("ack", gateway, request), after):
            yield Acknowledged(sequence=sequence, ack=signed_pb2.Acknowledgement.FromString(payload))

    async def offer(self, worker: bytes, model: bytes, offer: gateway_pb2.WorkerOffer, *, group: bytes) -> None:
        """Put what this worker offers for a model in a group."""
        self._offers[model, worker, group] = (self._clock() + OFFER_LIFE_S, self._payload(offer))

    async def withdraw_offer(self, worker: bytes, model: bytes, *, group: bytes) -> None:
        """Take this worker's offer for a model in a group back."""
        self._offers.pop((model, worker, group), None)

    async def offers(self) -> list[gateway_pb2.WorkerOffer]:
        """Return every live offer."""
        if self._queue.closed:
            raise BrokerClosedError
        now = self._clock()
        live = sorted((key, payload) for key, (until, payload) in self._offers.items() if until > now)
        return [gateway_pb2.WorkerOffer.FromString(payload) for _, payload in live]

    async def bring_prompt(self, request: bytes, call: gateway_pb2.PromptCall) -> None:
        """Keep a delivery of an on-chain request's prompt."""
        brought = (self._clock() + PROMPT_LIFE_S, next(self._numbers), self._payload(call))
        self._prompts[request] = [*self._prompts.get(request, ()), brought][-PROMPTS_KEPT:]

    async def prompts(self, request: bytes, *, after: int = 0) -> list[BroughtPrompt]:
        """Return what was delivered for a request after a sequence, oldest first."""
        if self._queue.closed:
            raise BrokerClosedError
        now = self._clock()
        return [
            BroughtPrompt(sequence=number, call=gateway_pb2.PromptCall.FromString(payload))
            for until, number, payload in self._prompts.get(request, ())
            if until > now and number > after
        ]

    async def dead_letters(self) -> list[DeadLetter]:
        """Return the jobs that were given up."""
        return list(self._dead)

    async def close(self) -> None:
        """Wake every reader with `BrokerClosedError`."""
        await self._queue.close()

    async def bury(self, entry: _Entry, holder: int, reason: str) -> None:
        """Keep a job among the dead letters and tell who follows its answer."""
        if not self._queue.holds(entry, holder):
            return
        call = gateway_pb2.JobCall.FromString(entry.payload)
        letter = DeadLetter(
            group=entry.group,
            priority=entry.priority,
            request=entry.request,
            deliveries=entry.deliveries,
            reason=reason,
            call=call,
        )
        self._dead.append(letter)
        self._queue.end(entry, holder)
        event = given_up(entry.request, reason)
        await self.publish_result(call.quote.message.gateway, entry.request, NOBODY, event, key="dead")

    def _payload(self, message: Message) -> bytes:
        if self._queue.closed:
            raise BrokerClosedError
        payload = message.SerializeToString()
        if len(payload) > MESSAGE_LIMIT:
            raise MessageTooLargeError(len(payload), MESSAGE_LIMIT)
        return payload

    def _first(self, name: str) -> bool:
        if name in self._named:
            return False
        self._named.add(name)
        return True

    async def _append(self, subject: _Subject, message: Message, *, by: bytes = b"", key: str) -> None:
        payload = self._payload(message)
        if not self._first(f"{subject}.{by.hex()}.{key}"):
            return
        self._logs.setdefault(subject, []).append((next(self._numbers), by, payload))
        async with self._queue.changed:
            self._queue.changed.notify_all()

    async def _follow(self, subject: _Subject, after: int) -> AsyncIterator[_Row]:
        last = after
        while True:
            fresh = [row for row in self._logs.get(subject, []) if row[0] > last]
            for row in fresh:
                last = row[0]
                yield row
            if not fresh:
                await self._queue.wait(lambda seen=last: self._has(subject, seen))

    def _has(self, subject: _Subject, after: int) -> bool:
        rows = self._logs.get(subject, [])
        return bool(rows) and rows[-1][0] > after


class _Line:
    """The waiting jobs of one group: oldest first within a priority, the priorities in `Turns`' order."""

    def __init__(self) -> None:
        self._turns = Turns()
        self._waiting: dict[int, deque[_Entry]] = {priority: deque() for priority in PRIORITIES}

    def add(self, entry: _Entry) -> None:
        """Let a job wait; one that comes back goes before those published after it."""
        waiting = self._waiting[entry.priority]
        place = next((at for at, other in enumerate(waiting) if other.number > entry.number), len(waiting))
        waiting.insert(place, entry)

    def any(self) -> bool:
        """Tell whether a job waits."""
        return any(self._waiting.values())

    def next(self) -> _Entry:
        """Take the job whose turn it is; there must be one."""
        priority = next(each for each in self._turns.order() if self._waiting[each])
        self._turns.served(priority)
        return self._waiting[priority].popleft()


class _JobQueue:
    """The jobs of every group, waiting or in the hands of a worker."""

    def __init__(self, *, ack_wait_s: float) -> None:
        self.ack_wait_s = ack_wait_s
        self.changed = asyncio.Condition()
        self.closed = False
        self._waiting: dict[bytes, _Line] = {}
        self._live: dict[bytes, _Entry] = {}
        self.ended: dict[bytes, int] = {}

    async def put(self, entry: _Entry) -> None:
        """Let the group have this job."""
        self._live[entry.request] = entry
        self._waiting.setdefault(entry.group, _Line()).add(entry)
        async with self.changed:
            self.changed.notify_all()

    async def take(self, group: bytes) -> _Entry:
        """Wait for a job of this group and lend it out."""
        waiting = self._waiting.setdefault(group, _Line())
        await self.wait(waiting.any)
        entry = waiting.next()
        entry.deliveries += 1
        entry.holder += 1
        self._lend(entry)
        return entry

    def count(self, group: bytes) -> int:
        """Count a group's jobs, waiting or lent."""
        return sum(1 for entry in self._live.values() if entry.group == group)

    def holds(self, entry: _Entry, holder: int) -> bool:
        """Tell whether this delivery of the job still counts."""
        return entry.holder == holder and entry.request in self._live

    def extend(self, entry: _Entry, holder: int) -> None:
        """Start the lease again."""
        if self.holds(entry, holder):
            self._lend(entry)

    def end(self, entry: _Entry, holder: int) -> None:
        """Forget the job."""
        if self.holds(entry, holder):
            del self._live[entry.request]
            self._lose(entry)

    async def give_back(self, entry: _Entry, holder: int, delay_s: float) -> None:
        """Let somebody else have the job, at once or later."""
        if not self.holds(entry, holder):
            return
        self._lose(entry)
        if delay_s <= 0:
            await self.put(entry)
        else:
            entry.lease = asyncio.get_running_loop().call_later(delay_s, self._expire, entry, entry.holder)

    async def wait(self, ready: Callable[[], bool]) -> None:
        """Sleep until `ready`; raise `BrokerClosedError` once closed."""
        async with self.changed:
            await self.changed.wait_for(lambda: self.closed or ready())
        if self.closed:
            raise BrokerClosedError

    async def close(self) -> None:
        """Wake every sleeper for the last time."""
        self.closed = True
        for entry in self._live.values():
            _stop(entry)
        async with self.changed:
            self.changed.notify_all()

    def _lend(self, entry: _Entry) -> None:
        _stop(entry)
        loop = asyncio.get_running_loop()
        entry.lease = loop.call_later(self.ack_wait_s, self._expire, entry, entry.holder)

    def _lose(self, entry: _Entry) -> None:
        """End a delivery: whoever holds it holds nothing any more."""
        entry.holder += 1
        self.ended[entry.group] = self.ended.get(entry.group, 0) + 1
        _stop(entry)

    def _expire(self, entry: _Entry, holder: int) -> None:
        if not self.closed and self.holds(entry, holder):
            self._lose(entry)
            entry.requeue = asyncio.get_running_loop().create_task(self.put(entry))


def _stop(entry: _Entry) -> None:
    if entry.lease is not None:
        entry.lease.cancel()


class _MemoryDelivery:
    """One job in the hands of a worker of this process."""

    def __init__(self, broker: MemoryBroker, queue: _JobQueue, entry: _Entry) -> None:
        self._broker = broker
        self._queue = queue
        self._entry = entry
        self._holder = entry.holder
        self.deliveries = entry.deliveries
        self.request = entry.request
        self.call = gateway_pb2.JobCall.FromString(entry.payload)

    async def extend(self) -> None:
        """Say that the job is still being worked on."""
        self._queue.extend(self._entry, self._holder)

    def working(self) -> AbstractAsyncContextManager[None]:
        """Extend in the background for as long as the block runs."""
        return pulse(self.extend, every_s=self._queue.ack_wait_s / 3)

    async def ack(self) -> None:
        """End the delivery for good."""
        self._queue.end(self._entry, self._holder)

    async def nak(self, *, delay_s: float = 0.0) -> None:
        """Give the job back to the group."""
        await self._queue.give_back(self._entry, self._holder, delay_s)

    async def dead(self, reason: str) -> None:
        """Put the job among the dead letters and end the delivery."""
        await self._broker.bury(self._entry, self._holder, reason)
