"""Links to nodes that only dial out: ask one over a node that both know to open the link (docs/protocol.md, section 8).

A node behind NAT keeps links to a few dialable nodes, its meeting points, and names them in its record. Whoever needs
a link to it sends a signed knock over one of them, and the node dials. Where neither side can be dialed, the meeting
point passes on the bytes of a TLS connection between them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NoReturn

from plait.protocol.codec import fault_from_pb
from plait.protocol.errors import Fault, PlaitError
from plait.protocol.ids import Address, Hash, address, hash32, to_hex
from plait.protocol.pb import stage_pb2 as pb
from plait_node.wire.dial import Destination, Dialer
from plait_node.wire.errors import DialError, KnockError, MalformedFrameError, WireError
from plait_node.wire.gate import Rates
from plait_node.wire.handshake import CLOCK_TOLERANCE_S
from plait_node.wire.knock import LIFE_S, Knock, knocked
from plait_node.wire.link import Link
from plait_node.wire.relay import RelayDesk, Tunnel, carry_to, open_relay
from plait_node.wire.transport import Transport

log = logging.getLogger(__name__)

MOST_POINTS = 3  # meeting points of one node
_KEEP_S = 1.0  # how often a node behind NAT looks whether its links to them live
_ALONE_S = 5.0  # and how often while none does: then somebody has to be looked for
_RETRY_S = 10.0  # after a meeting point, or a caller, could not be dialed
_MOST_ANSWERS = 16  # knocks being answered at once
_MOST_ANSWERS_A_CALLER = 4
_MOST_SEEN = 4_096

OnLink = Callable[[Link], Coroutine[None, None, None]]


@dataclass(slots=True, kw_only=True)
class _Own:
    """What a role tells of itself once it serves."""

    on_link: OnLink
    at: Destination | None  # where others dial this node
    local: tuple[str, int] | None  # where its server listens on this machine


@dataclass(slots=True, kw_only=True)
class _Seen:
    """Knocks that were answered, so that none is twice."""

    until: dict[Hash, float] = field(default_factory=dict[Hash, float])

    def first_time(self, topic: Hash, now: float) -> bool:
        if len(self.until) >= _MOST_SEEN:
            self.until = {each: end for each, end in self.until.items() if end > now}
        if topic in self.until or len(self.until) >= _MOST_SEEN:
            return False
        self.until[topic] = now + LIFE_S + CLOCK_TOLERANCE_S
        return True


class Meeting:
    """Opens links like a `Dialer`, also to nodes that only dial out; passes on and answers knocks."""

    def __init__(self, dialer: Dialer, *, relay: RelayDesk | None = None) -> None:
        self.book = dialer.book
        self.book.on_signal = self._signal
        self._dialer = dialer
        self._relay = relay
        self._me = dialer.identity.owner
        self._own: _Own | None = None
        self._points: dict[Address, Destination] = {}
        self._later: dict[Address, float] = {}
        self._asked: dict[Hash, tuple[Address, asyncio.Future[Fault]]] = {}
        self._rates = Rates(a_second=4, burst=16)  # of one node, or of one over a meeting point
        self._line_rates = Rates(a_second=32, burst=128)  # of all that is said over one link, whoever says it
        self._seen = _Seen()
        self._answering: dict[Hash, asyncio.Task[None]] = {}
        self._callers = Counter[tuple[Address, Address]]()  # of what is answered: meeting point and caller
        self._lines: dict[Address, asyncio.Lock] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def attach(self, on_link: OnLink, *, at: Destination | None, local: tuple[str, int] | None = None) -> None:
        """Say what serves links that are opened here, where others dial this node, and where it listens itself."""
        self._own = _Own(on_link=on_link, at=at, local=local)

    @property
    def kept(self) -> tuple[Destination, ...]:
        """Return the meeting points to which a link lives."""
        return tuple(point for owner, point in self._points.items() if self.book.find(owner) is not None)

    async def dial(self, destination: Destination) -> Link:
        """Return a proven link; raise `DialError` or `HandshakeError` when there is none within the deadline."""
        if destination.host:
            return await self._dialer.dial(destination)
        found = self.book.find(destination.owner)
        if found is not None:
            return found
        said: list[str] = []
        for point in destination.via[:MOST_POINTS]:
            try:
                return await self._over(point, destination)
            except WireError as error:
                said.append(f"{point.target}: {error.text}")
        name = to_hex(destination.owner)
        text = f"{name} only dials out and was not met over {'; '.join(said) or 'any node: its record names none'}"
        raise DialError(text, owner=destination.owner)

    async def keep(self, points: Callable[[], Awaitable[Sequence[Destination]]]) -> None:
        """Keep links to the first `MOST_POINTS` meeting points that answer; runs until it is cancelled."""
        while True:
            self._points = {point.owner: point for point in self.kept}
            try:
                for point in await points() if len(self._points) < MOST_POINTS else ():
                    await self._keep(point)
            except Exception as error:  # noqa: BLE001  where points come from may fail in any way, and is asked again
                log.warning("meeting points not known error=%s", error)
            await asyncio.sleep(_KEEP_S if self._points else _ALONE_S)

    async def stop(self) -> None:
        """End what is under way; the links themselves are their role's."""
        tasks = [*self._tasks, *self._answering.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self, point: Destination) -> None:
        now = asyncio.get_running_loop().time()
        known = point.owner in self._points or point.owner == self._me
        if known or len(self._points) >= MOST_POINTS or self._later.get(point.owner, 0.0) > now:
            return
        try:
            await self._line(point)
        except WireError as error:
            self._later[point.owner] = now + _RETRY_S
            log.warning(
                "meeting point not reached node=%s where=%s reason=%s", to_hex(point.owner), point.target, error
            )
            return
        self._points[point.owner] = point
        log.info("meeting point kept node=%s where=%s", to_hex(point.owner), point.target)

    async def _over(self, point: Destination, wanted: Destination) -> Link:
        patience = self._dialer.patience.handshake_s
        try:
            async with asyncio.timeout(patience):
                if point.owner == self._me:
                    return await self.book.expect(wanted.owner)
                line = await self._line(point)
                if self._own is not None and self._own.at is not None:
                    return await self._call(line, wanted)
                return await self._through(line, point, wanted)
        except TimeoutError as error:
            text = f"{to_hex(wanted.owner)} did not open a link within {patience:g} s"
            raise DialError(text, owner=wanted.owner) from error

    async def _line(self, point: Destination) -> Link:
        """Return a link to a meeting point, dialing if there is none; raise `WireError`."""
        lock = self._lines.setdefault(point.owner, asyncio.Lock())
        try:
            async with lock:
                found = self.book.find(point.owner)
                if found is None:
                    found = await self._dialer.dial(point)
                    self._serve(found)
                return found
        finally:
            if not lock.locked():
                self._lines.pop(point.owner, None)

    async def _call(self, line: Link, wanted: Destination) -> Link:
        """Knock, and return the link that the called node opens; raise `KnockError` with what it says."""
        coming = self.book.expect(wanted.owner)
        try:
            async with self._knocking(line, wanted.owner, at=self._own.at if self._own else None) as (_, refused):
                await asyncio.wait({coming, refused}, return_when=asyncio.FIRST_COMPLETED)
                return coming.result() if coming.done() else _refused(refused)
        finally:
            coming.cancel()

    async def _through(self, line: Link, point: Destination, wanted: Destination) -> Link:
        """Dial over the meeting point, which copies bytes: neither side can be dialed."""
        pem = await self._dialer.pinned_certificate(point)

        async def opened() -> Transport:
            async with self._knocking(line, wanted.owner, at=None) as (topic, refused):
                joining = asyncio.create_task(
                    open_relay(point.target, pem, topic, deadline_s=self._dialer.patience.handshake_s)
                )
                await asyncio.wait({joining, refused}, return_when=asyncio.FIRST_COMPLETED)
                if not joining.done():
                    joining.cancel()
                    await asyncio.gather(joining, return_exceptions=True)
                    _refused(refused)
                return joining.result()

        tunnel = Tunnel(opened)
        port = await tunnel.start()
        try:
            link = await self._dialer.dial(replace(wanted, host="127.0.0.1", port=port, via=()))
        except BaseException as error:
            await asyncio.shield(tunnel.stop())
            if tunnel.refused and isinstance(error, WireError):
                raise KnockError(tunnel.refused) from error
            raise
        tunnel.close_port()
        self._spawn(_end_with(link, tunnel))
        return link

    @asynccontextmanager
    async def _knocking(
        self, line: Link, to: Address, *, at: Destination | None
    ) -> AsyncGenerator[tuple[Hash, asyncio.Future[Fault]]]:
        """Send a knock, and listen for what is said to it."""
        knock = Knock.make(self._dialer.identity, to, at=at, now=self._dialer.clock())
        refused: asyncio.Future[Fault] = asyncio.get_running_loop().create_future()
        self._asked[knock.topic] = (line.peer, refused)
        try:
            await line.send(knock.frame())
            yield knock.topic, refused
        finally:
            refused.cancel()
            del self._asked[knock.topic]

    def _signal(self, link: Link, frame: pb.Frame) -> None:
        """Take what came over a link: the `on_signal` of this role's links."""
        if frame.WhichOneof("body") == "knocked":
            self._take_refusal(link, frame)
            return
        knock = Knock.from_pb(frame.knock)
        try:
            to_me = knock.to == self._me
            # What comes over a meeting point is its caller's, so that none of them uses up what all have.
            if not self._takes(link, knock.caller if to_me else link.peer):
                raise KnockError("more knocks than this node takes; try again later")
            if to_me:
                self._begin_answer(link, knock)
            else:
                self._pass_on(link, knock, frame)
        except KnockError as error:
            link.offer(knocked(knock.caller, knock.topic, error.fault()))

    def _takes(self, link: Link, other: Address) -> bool:
        """Tell whether a link may speak once more for, or to, another node, and at all."""
        return self._rates.take((link.peer, other)) and self._line_rates.take(link.peer)

    def _pass_on(self, link: Link, knock: Knock, frame: pb.Frame) -> None:
        if knock.caller != link.peer:
            raise MalformedFrameError(f"a knock in the name of {to_hex(knock.caller)}")
        line = self.book.find(knock.to)
        if line is None:
            raise KnockError(f"{to_hex(knock.to)} keeps no link to this node")
        if not knock.dialable:
            if self._relay is None:
                raise KnockError("this node relays nothing, and the caller cannot be dialed")
            self._relay.allow(knock.topic, knock.caller)
        if not line.offer(frame):
            raise KnockError(f"the link to {to_hex(knock.to)} is full; try again later")

    def _take_refusal(self, link: Link, frame: pb.Frame) -> None:
        told = frame.knocked
        try:
            to, topic = address(told.to), hash32(told.topic)
        except PlaitError as error:
            raise MalformedFrameError(f"a malformed answer to a knock: {error}") from error
        line, refused = self._asked.get(topic, (None, None))
        if to != self._me:
            target = self.book.find(to)
            if target is not None and self._takes(link, to):
                target.offer(frame)
        elif refused is not None and line == link.peer and not refused.done():
            refused.set_result(fault_from_pb(told.fault))

    def _begin_answer(self, link: Link, knock: Knock) -> None:
        point = self._points.get(link.peer)
        if point is None:
            raise KnockError("it came over a node that is no meeting point of this one")
        who = (link.peer, knock.caller)
        if len(self._answering) >= _MOST_ANSWERS or self._callers[who] >= _MOST_ANSWERS_A_CALLER:
            raise KnockError("this node answers as many knocks as it can; try again later")
        if not self._seen.first_time(knock.topic, self._dialer.clock()):
            raise KnockError("this knock was made before")
        task = asyncio.create_task(self._answer(link, point, knock))
        self._answering[knock.topic] = task
        self._callers[who] += 1
        task.add_done_callback(lambda _: self._answered(knock.topic, who))

    def _answered(self, topic: Hash, who: tuple[Address, Address]) -> None:
        del self._answering[topic]
        self._callers[who] -= 1
        self._callers += Counter()  # forgets who waits for none

    async def _answer(self, link: Link, point: Destination, knock: Knock) -> None:
        """Open a link to whoever knocked, or say over the meeting point why not."""
        dialer = self._dialer
        try:
            caller = await knock.check(dialer.identity, dialer.directory, now=dialer.clock())
            if caller is None:
                await self._carry(point, knock)
            else:
                self._serve(await self._dial_back(caller))
        except TimeoutError:
            link.offer(knocked(knock.caller, knock.topic, KnockError("the relay took too long").fault()))
        except PlaitError as error:
            log.warning("knock not answered node=%s reason=%s", to_hex(knock.caller), error)
            link.offer(knocked(knock.caller, knock.topic, error.fault()))

    async def _dial_back(self, caller: Destination) -> Link:
        """Dial who knocked; where that fails it has to wait, so that nobody is made to dial strangers all the time."""
        now = asyncio.get_running_loop().time()
        self._later = {owner: until for owner, until in self._later.items() if until > now}
        if caller.owner in self._later:
            raise KnockError(f"{caller.target} could not be dialed a moment ago")
        try:
            return await self._dialer.dial(caller)
        except WireError:
            self._later[caller.owner] = now + _RETRY_S
            raise

    async def _carry(self, point: Destination, knock: Knock) -> None:
        if self._own is None or self._own.local is None:
            raise KnockError("this node has no server of its own to which a relay could lead")
        pem = await self._dialer.pinned_certificate(point)
        stream = await open_relay(point.target, pem, knock.topic, deadline_s=self._dialer.patience.handshake_s)
        self._spawn(carry_to(self._own.local, stream, partial(self.book.carrying, knock.caller)))

    def _serve(self, link: Link) -> None:
        if self._own is not None:
            self._spawn(self._own.on_link(link))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _refused(said: asyncio.Future[Fault]) -> NoReturn:
    fault = said.result()
    raise KnockError(f"not answered: {fault.text} ({fault.code})")


async def _end_with(link: Link, tunnel: Tunnel) -> None:
    try:
        await link.wait_closed()
    finally:
        await tunnel.stop()
