"""TLS between two nodes of which neither can be dialed, over a third one that cannot read it.

Each side opens a Relay stream to its meeting point and names the same knock; the meeting point joins the two and copies
bytes. The certificate that is pinned and the Hello that is checked are those of the two ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from plait.protocol.codec import parse
from plait.protocol.errors import MalformedMessageError
from plait.protocol.ids import Address, Hash, hash32, to_hex
from plait.protocol.pb import stage_pb2 as pb
from plait_node.wire.errors import KnockError, StreamBrokenError, WireError
from plait_node.wire.gate import Gate
from plait_node.wire.transport import RELAY, DialedTransport, Transport

log = logging.getLogger(__name__)

_CHUNK = 64 << 10
_MOST_CHUNK = 256 << 10
_IDLE_S = 60.0  # a link in the stream would beat every second


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayLimits:
    """What a node copies for others: bytes are of both directions together."""

    bytes_a_second: int = 8 << 20  # of one caller, over all its streams
    most_bytes: int = 16 << 30  # of one stream, then it ends
    streams: int = 64
    streams_a_peer: int = 8
    join_s: float = 8.0  # until both ends are there


@dataclass(slots=True, kw_only=True)
class _Session:
    """Two streams, once both are there."""

    caller: Address
    until: float  # loop time by which both ends are there
    ends: list[Transport] = field(default_factory=list[Transport])
    joined: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    left: int


class RelayDesk:
    """Joins the streams of knocks that this node passed on, and copies between them."""

    def __init__(self, limits: RelayLimits | None = None) -> None:
        self._limits = limits or RelayLimits()
        self._sessions: dict[Hash, _Session] = {}
        self._due: dict[Address, float] = {}  # loop time at which what a caller sent has been paid for
        self._gate = Gate()

    def allow(self, topic: Hash, caller: Address) -> None:
        """Expect two streams for this knock; raise `KnockError` when the caller, or all, have enough."""
        now = asyncio.get_running_loop().time()
        gone = [name for name, each in self._sessions.items() if not each.joined.is_set() and each.until < now]
        for name in gone:
            del self._sessions[name]
        own = sum(each.caller == caller for each in self._sessions.values())
        if own >= self._limits.streams_a_peer or len(self._sessions) >= self._limits.streams:
            raise KnockError("this meeting point relays as many streams as it takes; try again later")
        if topic in self._sessions:
            raise KnockError("this knock was made before")
        until = now + self._limits.join_s
        self._sessions[topic] = _Session(caller=caller, until=until, left=self._limits.most_bytes)

    async def serve(self, stream: Transport) -> None:
        """Copy what comes over one end to the other until either ends."""
        try:
            with self._gate.pending(stream.where):
                topic = await self._named(stream)
            session = self._sessions.get(topic)
            if session is None or len(session.ends) > 1:
                raise KnockError("no knock of this name was passed on, or both its ends are there")
            await self._joined(topic, session, stream)
        except (WireError, MalformedMessageError, TimeoutError) as error:
            log.info("relay stream ended where=%s reason=%s", stream.where, str(error) or "late")

    async def _named(self, stream: Transport) -> Hash:
        async with asyncio.timeout(self._limits.join_s):
            return hash32((await _read(stream)).topic)

    async def _joined(self, topic: Hash, session: _Session, stream: Transport) -> None:
        session.ends.append(stream)
        try:
            async with asyncio.timeout(self._limits.join_s):
                if len(session.ends) > 1:
                    # Nothing is copied before both know: two writes at once on one stream are an error.
                    for end in session.ends:
                        await end.write(pb.Relayed(topic=topic).SerializeToString())
                    session.joined.set()
                await session.joined.wait()
            other = session.ends[0] if session.ends[1] is stream else session.ends[1]
            copying = asyncio.create_task(self._copy(session, stream, other))
            ended = asyncio.create_task(session.over.wait())
            await _first_of(copying, ended)
        finally:
            session.over.set()
            self._sessions.pop(topic, None)

    async def _copy(self, session: _Session, stream: Transport, other: Transport) -> None:
        while True:
            async with asyncio.timeout(_IDLE_S):
                received = await _read(stream)
            session.left -= len(received.data)
            if session.left < 0:
                raise KnockError(f"{self._limits.most_bytes} bytes were relayed; link again")
            await self._paced(session.caller, len(received.data))
            async with asyncio.timeout(_IDLE_S):
                await other.write(received.SerializeToString())

    async def _paced(self, caller: Address, size: int) -> None:
        """Wait until the caller's rate allows this; meanwhile nothing is read, which holds the sender back."""
        now = asyncio.get_running_loop().time()
        self._due = {each: due for each, due in self._due.items() if due > now}
        due = max(now, self._due.get(caller, now)) + size / self._limits.bytes_a_second
        self._due[caller] = due
        await asyncio.sleep(max(0.0, due - now - 0.1))  # a tenth of a second may come at once


class Tunnel:
    """A port of this machine alone; whoever connects to it is at the other end of a fresh relay stream."""

    def __init__(self, opened: Callable[[], Awaitable[Transport]]) -> None:
        self._opened = opened
        self.refused = ""  # why the last connection was not carried
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        """Listen and return the port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self._server.sockets[0].getsockname()[1]

    def close_port(self) -> None:
        """Take no more connections; those that are stay."""
        if self._server is not None:
            self._server.close()

    async def stop(self) -> None:
        """End everything."""
        self.close_port()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._carry(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            stream = await self._opened()
        except (WireError, TimeoutError) as error:
            self.refused = str(error) or "the other end did not come in time"
            writer.close()
            return
        await _splice(reader, writer, stream)


async def open_relay(target: str, pem: bytes, topic: Hash, *, deadline_s: float) -> Transport:
    """Return a stream whose other end is there; raise `StreamBrokenError`, or `TimeoutError` after the deadline."""
    stream = DialedTransport(target, pem, method=RELAY)
    try:
        async with asyncio.timeout(deadline_s):
            await stream.write(pb.Relayed(topic=topic).SerializeToString())
            if (await _read(stream)).topic != topic:
                raise StreamBrokenError(f"the relay at {target} joined another call than {to_hex(topic)}")
    except BaseException:
        await asyncio.shield(stream.abort())
        raise
    return stream


Carrying = Callable[[tuple[str, str]], AbstractContextManager[None]]  # of an end, host and port


async def carry_to(local: tuple[str, int], stream: Transport, carrying: Carrying) -> None:
    """Join a relay stream with this node's own server until either ends; `carrying` tells the server whose it is."""
    try:
        async with asyncio.timeout(5.0):
            reader, writer = await asyncio.open_connection(*local)
    except OSError as error:
        log.warning("own server not reached where=%s:%d reason=%s", *local, error)
        await stream.abort()
        return
    host, port = writer.get_extra_info("sockname")[:2]
    with carrying((host, str(port))):  # before a byte that the server could answer
        await _splice(reader, writer, stream)


async def _splice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stream: Transport) -> None:
    async def there() -> None:
        while data := await reader.read(_CHUNK):
            await stream.write(pb.Relayed(data=data).SerializeToString())

    async def back() -> None:
        while True:
            writer.write((await _read(stream)).data)
            await writer.drain()

    try:
        with contextlib.suppress(WireError, OSError):
            await _first_of(asyncio.create_task(there()), asyncio.create_task(back()))
    finally:
        writer.close()
        await asyncio.shield(stream.abort())


async def _first_of(*tasks: asyncio.Task[object]) -> None:
    """Wait for the first to end, and end the others; raise what it raised."""
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _read(stream: Transport) -> pb.Relayed:
    """Return the next message; raise `StreamBrokenError` at the end and for what is none."""
    data = await stream.read()
    if data is None or len(data) > _MOST_CHUNK + 64:
        raise StreamBrokenError("the relay stream ended" if data is None else "more bytes at once than a relay takes")
    try:
        return parse(pb.Relayed, data)
    except MalformedMessageError as error:
        raise StreamBrokenError(str(error)) from error
