"""Nodes that meet: some can be dialed, some only dial out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.node.wire.peers import STEADY, MemoryDirectory, identity

from plait.protocol.ids import Address
from plait.protocol.pb import stage_pb2 as pb
from plait_node.wire import (
    Blame,
    Destination,
    Dialer,
    Link,
    LinkServer,
    Meeting,
    Patience,
    PeerIdentity,
    RelayDesk,
    RelayLimits,
)


@dataclass(slots=True, kw_only=True)
class Meeter:
    """One node, the links that it serves, the calls that it saw, and whom it blamed."""

    who: PeerIdentity
    meeting: Meeting
    port: int = 0
    links: list[Link] = field(default_factory=list)
    signals: list[pb.Frame] = field(default_factory=list)
    blames: list[Blame] = field(default_factory=list)
    hidden: bool = False

    @property
    def owner(self) -> Address:
        return self.who.owner

    @property
    def destination(self) -> Destination:
        pin = self.who.certificate.fingerprint
        if self.hidden:
            return Destination(owner=self.owner, host="", port=0, certificate=pin, via=self.meeting.kept)
        return Destination(owner=self.owner, host="127.0.0.1", port=self.port, certificate=pin)

    async def serve(self, link: Link) -> None:
        self.links.append(link)
        await link.wait_closed()


@asynccontextmanager
async def meeter(
    directory: MemoryDirectory,
    *,
    behind: Sequence[Meeter] = (),
    listens: bool = True,
    relay: RelayLimits | None = None,
    patience: Patience = STEADY,
    clock: Callable[[], float] = time.time,
    dials: type[Dialer] = Dialer,
) -> AsyncIterator[Meeter]:
    """Run a node; one that is `behind` others only dials out, one that does not listen cannot even be relayed to."""
    who = identity(directory)
    blames: list[Blame] = []
    desk = RelayDesk(relay) if relay is not None else None
    dialer = dials(identity=who, directory=directory, patience=patience, on_blame=blames.append, clock=clock)
    made = Meeter(who=who, meeting=Meeting(dialer, relay=desk), blames=blames, hidden=bool(behind) or not listens)
    watch(made)
    server = LinkServer(
        who,
        directory,
        made.serve,
        patience=patience,
        on_blame=blames.append,
        clock=clock,
        book=made.meeting.book,
        relay=desk and desk.serve,
    )
    if listens:
        made.port = await server.start("127.0.0.1")
    local = ("127.0.0.1", made.port) if listens else None
    made.meeting.attach(made.serve, at=None if made.hidden else made.destination, local=local)
    keeping = asyncio.create_task(made.meeting.keep(_these([each.destination for each in behind])))
    try:
        await until(lambda: len(made.meeting.kept) == len(behind))
        yield made
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await asyncio.gather(*(link.close() for link in made.links))
        await made.meeting.stop()
        await server.stop()


def watch(node: Meeter) -> None:
    """Keep every call that a node sees."""
    book, handled = node.meeting.book, node.meeting.book.on_signal

    def seen(link: Link, frame: pb.Frame) -> None:
        node.signals.append(frame)
        handled(link, frame)

    book.on_signal = seen


def _these(points: Sequence[Destination]) -> Callable[[], Awaitable[Sequence[Destination]]]:
    async def given() -> Sequence[Destination]:
        return points

    return given


async def until(condition: Callable[[], bool], *, deadline_s: float = 60.0) -> None:
    async with asyncio.timeout(deadline_s):
        while not condition():  # noqa: ASYNC110 - what is looked at has no event
            await asyncio.sleep(0.01)


def rows(step: int, data: bytes = b"1234") -> pb.Frame:
    return pb.Frame(rows=pb.Rows(job=bytes(32), step=step, count=1, codec="ids", data=data))


async def speaks(one: Link, other: Link) -> None:
    """Check that frames go both ways."""
    await one.send(rows(1))
    await other.send(rows(2))
    assert (await other.receive(deadline_s=30)).rows.step == 1
    assert (await one.receive(deadline_s=30)).rows.step == 2


async def served(node: Meeter, peer: Meeter) -> Link:
    """Return the link to `peer` that a node serves."""
    await until(lambda: any(each.peer == peer.owner for each in node.links))
    return next(each for each in node.links if each.peer == peer.owner)
