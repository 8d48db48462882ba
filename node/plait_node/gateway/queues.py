"""How full each group's queue is and how fast it gets on: who may come in, and when the others should come back."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from plait.protocol.errors import BusyError
from plait.protocol.ids import Group
from plait_node.broker import Broker, BrokerError
from plait_node.gateway.errors import BrokerAwayError

# Jobs that may wait for each one that the group takes at once.
_WAITING_A_ROOM = 8
# How long a job takes before any was measured, and how long a measure counts, in seconds.
_GUESSED_JOB_S = 10.0
_MEMORY_S = 60.0
_LOOK_EVERY_S, _COUNT_EVERY_S = 1.0, 0.2
_LONGEST_WAIT_S = 60.0
_MOST_TOLD = 4_096
# A place that is taken by a job on its way to the broker is free, or seen in the broker's count, within this time.
_ENTERING_S, _ENTERING_STEP_S = 1.0, 0.02


def limit_of(room: int) -> int:
    """Return how many jobs of a group may wait or run, from how many its live workers take at once."""
    return room * (1 + _WAITING_A_ROOM)


class ServiceRate:
    """Jobs per second that a group ends while it has all it can do, over the last minute or so."""

    def __init__(self) -> None:
        self.per_s: float | None = None
        self._last: tuple[float, int, bool] | None = None

    def observe(self, now: float, ended: int, *, saturated: bool) -> None:
        """Take a count of ended deliveries; `saturated` when more jobs waited than the group takes at once."""
        if self._last is not None:
            at, before, was_saturated = self._last
            passed = now - at
            if passed < _LOOK_EVERY_S:
                return
            if saturated and was_saturated and ended >= before:
                rate = (ended - before) / passed
                weight = 1.0 if self.per_s is None else 1.0 - math.exp(-passed / _MEMORY_S)
                self.per_s = rate if self.per_s is None else self.per_s + weight * (rate - self.per_s)
        self._last = now, ended, saturated


@dataclass(slots=True)
class _Queue:
    """One group as this gateway sees it; `entering` counts jobs on their way to the broker."""

    rate: ServiceRate
    told: deque[float]
    looked_at: float = float("-inf")
    backlog: int = 0
    counted_at: float = float("-inf")
    entering: int = 0

    def wait_s(self, now: float, *, excess: int, room: int) -> float:
        """Return when a job that found no place should come back: after those that were told so before it."""
        while self.told and self.told[0] <= now:
            self.told.popleft()
        per_s = self.rate.per_s or room / _GUESSED_JOB_S
        wait = min(_LONGEST_WAIT_S, max(1.0, (excess + len(self.told)) / per_s))
        self.told.append(max(now + wait, self.told[-1] if self.told else 0.0))
        return wait


class GroupQueues:
    """The queues of all groups that this gateway publishes to."""

    def __init__(self, broker: Broker, clock: Callable[[], float]) -> None:
        self._broker = broker
        self._clock = clock
        self._queues: dict[Group, _Queue] = {}

    @asynccontextmanager
    async def place(self, group: Group, room: int) -> AsyncGenerator[None]:
        """Hold a place in a group's queue while a job is published; `room` counts what its workers take at once.

        Raise `BusyError`, which says when to come back, or `BrokerAwayError`.
        """
        queue = self._queues.setdefault(group, _Queue(ServiceRate(), deque(maxlen=_MOST_TOLD)))
        try:
            await self._enter(queue, group, room)
        except BrokerError as error:
            raise BrokerAwayError(f"the gateway cannot reach its workers now ({error}); try again") from error
        try:
            yield
        finally:
            queue.entering -= 1

    async def crowd(self, group: Group, room: int) -> float:
        """Return how many jobs wait or run for each that the group takes at once, 0 while it takes one at once.

        Raise `BrokerAwayError`.
        """
        queue = self._queues.setdefault(group, _Queue(ServiceRate(), deque(maxlen=_MOST_TOLD)))
        now = self._clock()
        if now - queue.counted_at >= _COUNT_EVERY_S:
            try:
                queue.backlog, queue.counted_at = await self._broker.backlog(group), now
            except BrokerError as error:
                raise BrokerAwayError(f"the gateway cannot reach its workers now ({error}); try again") from error
        ahead = queue.backlog + queue.entering
        return ahead / room if ahead >= room else 0.0

    async def _enter(self, queue: _Queue, group: Group, room: int) -> None:
        """Take a place, or raise `BusyError`."""
        limit, tries = limit_of(room), round(_ENTERING_S / _ENTERING_STEP_S)
        while True:
            queue.entering += 1  # before the count, so that two who count at once do not take one place twice
            try:
                backlog = await self._count(queue, group, room)
                if backlog + queue.entering <= limit:
                    return
            except BaseException:
                queue.entering -= 1
                raise
            queue.entering -= 1
            tries -= 1
            # Those on their way may be in the count already, and then there is a place: look again.
            if backlog >= limit or not queue.entering or tries <= 0:
                break
            await asyncio.sleep(_ENTERING_STEP_S)
        excess = max(1, backlog + queue.entering + 1 - limit)
        error = BusyError(f"{backlog} jobs wait or run in this group, it takes {limit}; come back when some are done")
        error.retry_after_s = queue.wait_s(self._clock(), excess=excess, room=room)
        raise error

    async def _count(self, queue: _Queue, group: Group, room: int) -> int:
        """Return the jobs that wait or run, and learn now and then how fast they end."""
        backlog = await self._broker.backlog(group)
        now = self._clock()
        queue.backlog, queue.counted_at = backlog, now
        if now - queue.looked_at >= _LOOK_EVERY_S:
            queue.looked_at = now
            queue.rate.observe(now, await self._broker.turnover(group), saturated=backlog > room)
        return backlog
