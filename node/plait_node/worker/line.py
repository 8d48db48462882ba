"""One attempt's frames to and from the stages of its route, and who is at fault when they stay away."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from plait.protocol.codec import fault_from_pb
from plait.protocol.errors import Fault
from plait.protocol.ids import Address, Hash, to_hex
from plait.protocol.pb import stage_pb2
from plait_node.wire import WireError
from plait_node.worker.errors import StageFailure
from plait_node.worker.leaves import blocks_of
from plait_node.worker.links import Event, Inbox, LinkPool

if TYPE_CHECKING:
    from plait.protocol.messages import Stage

__all__ = ["Line"]

_LEARN_S = 0.3  # a stage that is accused by its neighbour is given this long to be seen gone by ourselves
_LOOK_S = 0.02


class Line:
    """The stages of one job's route, by their place in it."""

    def __init__(self, pool: LinkPool, *, job: Hash, route: Sequence[Stage]) -> None:
        """Send through `pool`; nothing is delivered before `open`."""
        self._pool = pool
        self._job = job
        self._route = route
        self._inbox = Inbox(job=job, owners=frozenset(stage.node for stage in route))

    def open(self) -> None:
        """Take what names the job, and the loss of its links."""
        self._pool.subscribe(self._inbox)

    def close(self) -> None:
        """Take nothing more."""
        self._pool.unsubscribe(self._inbox)

    def offer(self, event: Event) -> None:
        """Queue an event of our own."""
        self._inbox.offer(event)

    async def next(self, deadline_s: float) -> Event | None:
        """Return the next event; None when there is none in time."""
        if not self._inbox.events.empty():
            return self._inbox.events.get_nowait()
        try:
            async with asyncio.timeout(deadline_s):  # wait_for would swallow a cancellation that comes with an event
                return await self._inbox.events.get()
        except TimeoutError:
            return None

    async def send(self, index: int, frame: stage_pb2.Frame) -> None:
        """Send to the stage at `index`; raise `StageFailure` when it cannot be reached."""
        stage = self._route[index]
        try:
            await self._pool.send(stage.node, frame)
        except WireError as error:
            raise self.failure(stage.node, error.text, unheard=True) from error

    async def send_all(self, frame: stage_pb2.Frame) -> None:
        """Send to every stage; raise `StageFailure`."""
        for index in range(len(self._route)):
            await self.send(index, frame)

    async def cancel(self) -> None:
        """Have every stage that can be reached forget the job."""
        for stage in self._route:
            with contextlib.suppress(WireError):
                await self._pool.send(stage.node, stage_pb2.Frame(cancel=stage_pb2.CancelJob(job=self._job)))

    async def accuse(self, owner: Address, reason: str) -> None:
        """Close the link to a stage because of what came over it."""
        await self._pool.accuse(owner, reason)

    async def judge(self, owner: Address, received: stage_pb2.JobFault) -> StageFailure:
        """Return whose failure it is that a stage reports a fault."""
        fault: Fault = fault_from_pb(received.fault)
        blamed = Address(received.blamed)
        accused = next((stage.node for stage in self._route if stage.node == blamed), None)
        if accused is None or accused == owner:
            return self.failure(owner, f"{fault.text} ({fault.code})")
        if await self._gone(accused):
            return self.failure(accused, fault.text, unheard=True)
        # Two strangers say different things of each other: neither is believed, both are avoided for a while.
        return self.failure(accused, f"{to_hex(owner)} says: {fault.text}", accuser=owner, unheard=True)

    async def _gone(self, owner: Address) -> bool:
        """Return whether our own link to a stage ends, as its neighbour says that theirs did."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _LEARN_S
        while (alive := self._pool.alive(owner)) and loop.time() < until:  # noqa: ASYNC110 -- a moment, once a fault
            await asyncio.sleep(_LOOK_S)
        return not alive

    def failure(
        self, owner: Address, reason: str, *, accuser: Address | None = None, unheard: bool = False
    ) -> StageFailure:
        """Return the failure of a stage, for a reason."""
        blocks = next((blocks_of(stage) for stage in self._route if stage.node == owner), "?")
        return StageFailure(owner, blocks, reason, accuser=accuser, unheard=unheard)
