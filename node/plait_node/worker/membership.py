"""Which group this worker is in, by its class and its owner's tier, and the jobs of that group."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Protocol, cast

from plait.protocol.errors import PlaitError
from plait.protocol.ids import Address, Group, Hash, group_id
from plait_node.broker import BrokerError
from plait_node.broker.groups import ClassMeasure

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from plait_node.broker import Broker, Delivery

# A quote names a group: one that was left for another class gets jobs for as long as a quote holds.
_LINGER_S = 300.0
_MOST_KEPT = 16  # groups; each is looked into
_GROUP_BYTES = 8
# How long one look into such a group lasts, and how often it is looked at while nothing comes.
_LOOK_S, _LOOK_EVERY_S = 0.3, 2.0

_log = logging.getLogger(__name__)


class Tiers(Protocol):
    """What the chain says of nodes."""

    async def tier(self, owner: Address, /) -> int:
        """Return a node's tier now; raise a `PlaitError`."""
        ...


class Membership:
    """A worker's group. It follows what is measured and what the chain says; `observe` is called every few seconds.

    A file keeps which groups get jobs still: a worker that died finds what waits for it, whatever its class is now.
    """

    def __init__(
        self,
        model: Hash,
        device: str,
        *,
        owner: Address,
        tiers: Tiers,
        clock: Callable[[], float],
        path: Path,
        cohort: int = 0,
    ) -> None:
        self._model, self._owner, self._tiers, self._clock = model, owner, tiers, clock
        self._measure = ClassMeasure(device)
        self._moved = asyncio.Event()
        self._path = path
        self.tier, groups = _read(path, model)
        # Until when jobs of other groups are taken; those of the last life may have waited since it ended.
        self._left = dict.fromkeys(groups, clock() + _LINGER_S)
        self.cohort = cohort
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
            self._left.pop(group, None)
            self.group = group
            self._write()
            self._moved.set()
            self._moved = asyncio.Event()
        return group

    def _leave(self, *, fell: bool) -> None:
        """Go on for a while with the jobs of the group that is left, unless its tier was lost."""
        if fell:
            self._left.clear()
        elif self.group is not None:
            self._left[self.group] = self._clock() + _LINGER_S

    def _write(self) -> None:
        """Keep the tier and the groups; a full disk costs what waits in the group that is left, if this node dies."""
        groups = [group.hex() for group in (*self._left, self.group) if group is not None]
        kept = {"model": self._model.hex(), "tier": self.tier, "groups": groups}
        partial = self._path.with_suffix(".partial")
        try:
            partial.write_text(json.dumps(kept), encoding="utf-8")
            partial.replace(self._path)
        except OSError as error:
            _log.warning("groups not kept file=%s error=%s", self._path, error)

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


def _read(path: Path, model: Hash) -> tuple[int, list[Group]]:
    """Return the tier and the groups of a file; none where it is not there, of another model or cannot be read."""
    try:
        kept = cast("dict[str, object]", json.loads(path.read_text(encoding="utf-8")))
        if kept["model"] != model.hex():
            return 0, []
        groups = [Group(bytes.fromhex(group)) for group in cast("list[str]", kept["groups"])[:_MOST_KEPT]]
        if any(len(group) != _GROUP_BYTES for group in groups):
            raise ValueError("a group of another size")
        return int(cast("int", kept["tier"])), groups
    except FileNotFoundError:
        return 0, []
    except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
        _log.warning("groups unreadable, only new jobs are taken file=%s error=%s", path, error)
        return 0, []


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
