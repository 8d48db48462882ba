"""Which group this worker is in, by its class and its owner's tier, and the jobs of that group."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Protocol

from plait.protocol.errors import PlaitError
from plait.protocol.ids import Address, Group, Hash, group_id
from plait_node.broker import BrokerError
from plait_node.broker.groups import ClassMeasure

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from plait_node.broker import Broker, Delivery

# A quote names a group: one that was left for another class gets jobs for as long as a quote holds.
_LINGER_S = 300.0
# How long one look into such a group lasts, and how often it is looked at while nothing comes.
_LOOK_S, _LOOK_EVERY_S = 0.3, 2.0

_log = logging.getLogger(__name__)


class Tiers(Protocol):
    """What the chain says of nodes."""

    async def tier(self, owner: Address, /) -> int:
        """Return a node's tier now; raise a `PlaitError`."""
        ...


class Membership:
    """A worker's group. It follows what is measured and what the chain says; `observe` is called every few seconds."""

    def __init__(
        self,
        model: Hash,
        device: str,
        *,
        owner: Address,
        tiers: Tiers,
        clock: Callable[[], float],
        cohort: int = 0,
    ) -> None:
        self._model, self._owner, self._tiers, self._clock = model, owner, tiers, clock
        self._measure = ClassMeasure(device)
        self._moved = asyncio.Event()
        self._left: dict[Group, float] = {}
        self.cohort = cohort
        self.tier = 0
        self.group: Group | None = None  # None until something was measured

    @property
    def hardware(self) -> str:
        """Return the class."""
        return self._measure.name

    async def observe(self, *, room: int, step_s: float) -> Group:
        """Take the best route's room (steps) and step time, and the tier on chain; return the group from now on."""
        before = self.tier
        try:
            self.tier = await self._tiers.tier(self._owner)
        except PlaitError as error:
            _log.warning("tier unknown, it stays tier=%d error=%s", self.tier, error)
        hardware = self._measure.observe(self._clock(), room=room, step_s=step_s)
        group = group_id(self._model, hardware, self.tier, self.cohort)
        if group != self.group:
            _log.info("group changed group=%s class=%s tier=%d", group.hex(), hardware, self.tier)
            self._leave(fell=self.tier < before)
            self.group = group
            self._moved.set()
            self._moved = asyncio.Event()
        return group

    def _leave(self, *, fell: bool) -> None:
        """Go on for a while with the jobs of the group that is left, unless its tier was lost."""
        if fell:
            self._left.clear()
        elif self.group is not None:
            self._left[self.group] = self._clock() + _LINGER_S

    async def jobs(self, broker: Broker) -> AsyncGenerator[Delivery]:
        """Yield jobs of the group, whichever it is; those that wait in one that was left come first."""
        while True:
            if self.group is None:
                await self._moved.wait()
                continue
            async with aclosing(self._jobs_of(self.group, broker)) as jobs:
                async for delivery in jobs:
                    yield delivery

    async def _jobs_of(self, group: Group, broker: Broker) -> AsyncGenerator[Delivery]:
        """Yield jobs until the group changes, or a look that was given up ended the broker's iterator."""
        jobs = broker.jobs(group)
        try:
            while group == self.group:
                delivery = await self._of_left(broker) or await self._next(group, jobs)
                if delivery is None:
                    return
                yield delivery
        finally:
            await _close(jobs)

    async def _of_left(self, broker: Broker) -> Delivery | None:
        """Return a job of a group that was left lately, None when none waits there."""
        now = self._clock()
        self._left = {group: until for group, until in self._left.items() if until > now}
        for group in tuple(self._left):
            jobs = broker.jobs(group)
            try:
                delivery = await _take(jobs, until={_after(_LOOK_S)})
            finally:
                await _close(jobs)
            if delivery is not None:
                return delivery
        return None

    async def _next(self, group: Group, jobs: AsyncIterator[Delivery]) -> Delivery | None:
        """Return the group's next job; None once it was left, or when it is time to look at the others."""
        until: set[asyncio.Task[bool]] = {asyncio.create_task(self._moved.wait())}
        if self._left:
            until.add(_after(_LOOK_EVERY_S))
        delivery = await _take(jobs, until=until)
        if delivery is not None and group != self.group and group not in self._left:
            await delivery.nak()  # it came in the very moment in which the tier was lost
            return None
        return delivery


async def _take(jobs: AsyncIterator[Delivery], *, until: set[asyncio.Task[bool]]) -> Delivery | None:
    """Return the next job unless one of `until` ends first; a job that comes all the same goes back to its group."""
    taking = asyncio.ensure_future(anext(jobs))
    given = False
    try:
        await asyncio.wait({taking, *until}, return_when=asyncio.FIRST_COMPLETED)
        given = taking.done()
        return taking.result() if given else None
    finally:
        for each in until:
            each.cancel()
        if not given:
            await _give_back(taking)


def _after(seconds: float) -> asyncio.Task[bool]:
    async def wait() -> bool:
        await asyncio.sleep(seconds)
        return True

    return asyncio.create_task(wait())


async def _close(jobs: AsyncIterator[Delivery]) -> None:
    if isinstance(jobs, AsyncGenerator):
        await jobs.aclose()


async def _give_back(taking: asyncio.Future[Delivery]) -> None:
    taking.cancel()
    await asyncio.wait({taking}, timeout=_LOOK_EVERY_S)
    if taking.done() and not taking.cancelled() and taking.exception() is None:
        with suppress(BrokerError):
            await taking.result().nak()
