"""Hosts on one loopback: what goes to a port of one passes here, and is held back as a distant line would.

One proxy a port that others reach; a host's line is as wide as the weather says, counted where it is called, not where
it calls. TCP itself never loses a byte, so a lost packet is a stall: it and all behind it
come later by the time after which TCP sends again. Only TCP passes. Works without rights, on any kernel.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from asyncio import StreamReader, StreamWriter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.swarm.weather import Weather

__all__ = ["Proxies"]

_LOOPBACK: Final = "127.0.0.1"
_SEGMENT: Final = 1_448  # bytes of a TCP segment on Ethernet
_RESEND_S: Final = 0.2  # the least time after which Linux sends again
_CHUNK: Final = 1 << 16
_UNDER_WAY: Final = 512  # chunks of one direction: what a line of some length holds


@dataclass(slots=True)
class _Way:
    """One direction of a host's line: what it carried, in bytes, and until when it is busy with that."""

    carried: int = 0
    until: float = 0.0

    def carries(self, size: int, *, now: float, bytes_s: float) -> float:
        """Take bytes that come now; return when the last of them is through."""
        self.carried += size
        if bytes_s:
            self.until = max(self.until, now) + size / bytes_s
        return max(self.until, now)


@dataclass(slots=True)
class _Line:
    """A host's line: set while it is whole."""

    whole: asyncio.Event = field(default_factory=asyncio.Event)
    to: _Way = field(default_factory=_Way)
    back: _Way = field(default_factory=_Way)

    def __post_init__(self) -> None:
        self.whole.set()


@dataclass(slots=True)
class _Pump:
    """One direction of one connection: bytes come out in order, each not before it is due."""

    weather: Weather
    way: _Way
    lines: Sequence[_Line]
    draw: random.Random
    due: float = 0.0
    chunks: asyncio.Queue[tuple[float, bytes]] = field(default_factory=lambda: asyncio.Queue(_UNDER_WAY))

    async def run(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Carry bytes until the stream ends, then end the other one."""
        reading = asyncio.create_task(self._read(reader))
        try:
            while True:
                due, data = await self.chunks.get()
                await self._wait(due)
                if not data:
                    break
                writer.write(data)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read(self, reader: StreamReader) -> None:
        data = b"."
        while data:
            try:
                data = await reader.read(_CHUNK)
            except OSError:  # it was reset: what came before still arrives
                data = b""
            now = asyncio.get_running_loop().time()
            through = self.way.carries(len(data), now=now, bytes_s=self.weather.bytes_s)
            self.due = max(self.due, through + self._trip_s(len(data)))
            await self.chunks.put((self.due, data))

    def _trip_s(self, size: int) -> float:
        weather = self.weather
        seconds = (weather.rtt_s + self.draw.uniform(-weather.jitter_s, weather.jitter_s)) / 2
        lost = 1 - (1 - weather.loss) ** -(-size // _SEGMENT)
        while self.draw.random() < lost:
            seconds += max(_RESEND_S, weather.rtt_s)
            lost = weather.loss  # of what is sent again, one packet
        return seconds

    async def _wait(self, due: float) -> None:
        await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
        for line in self.lines:
            await line.whole.wait()


class Proxies:
    """Hosts behind proxies."""

    def __init__(self, weather: Weather, *, reason: str, seed: int = 0) -> None:
        """`reason` is why there are no namespaces."""
        self._weather, self._reason = weather, reason
        self._draw = random.Random(seed)  # noqa: S311 - which packets are lost is no secret
        self._lines: dict[str, _Line] = {}
        self._claimed: dict[int, str] = {}
        self._doors: dict[tuple[str, int], asyncio.Server] = {}
        self._open: set[asyncio.Task[None]] = set()

    @property
    def how(self) -> str:
        """See `Hosts.how`."""
        return f"a TCP proxy in this process ({self._weather}), no network namespaces: {self._reason}"

    def address(self, host: str) -> str:
        """See `Hosts.address`."""
        del host
        return _LOOPBACK

    def command(self, host: str, command: Sequence[str]) -> list[str]:
        """See `Hosts.command`."""
        del host
        return list(command)

    def claim(self, host: str, pid: int) -> None:
        """See `Hosts.claim`."""
        self._claimed[pid] = host

    async def door(self, host: str, port: int) -> tuple[str, int]:
        """See `Hosts.door`."""
        server = self._doors.get((host, port))
        if server is None:

            async def serve(reader: StreamReader, writer: StreamWriter) -> None:
                await self._serve(host, port, reader, writer)

            server = self._doors[host, port] = await asyncio.start_server(serve, _LOOPBACK, 0)
        return _LOOPBACK, int(server.sockets[0].getsockname()[1])

    async def cut(self, host: str) -> None:
        """See `Hosts.cut`; of connections that it opened, those of claimed processes."""
        self._line(host).whole.clear()

    async def heal(self, host: str) -> None:
        """See `Hosts.heal`."""
        self._line(host).whole.set()

    def carried(self, host: str) -> int:
        """Return the bytes that came for a host over its doors."""
        return self._line(host).to.carried

    async def close(self) -> None:
        """End every connection and free the ports."""
        for server in self._doors.values():
            server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        await asyncio.gather(*(server.wait_closed() for server in self._doors.values()))

    def _line(self, host: str) -> _Line:
        return self._lines.setdefault(host, _Line())

    async def _serve(self, host: str, port: int, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._open.add(task)
            task.add_done_callback(self._open.discard)
        caller = self._caller(writer)
        lines = [self._line(name) for name in (host, caller) if name is not None]
        try:
            await self._connect(self._line(host), port, lines, reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # whoever called is told below, as by a host where nobody listens
        finally:
            writer.transport.abort()

    async def _connect(
        self, line: _Line, port: int, lines: Sequence[_Line], reader: StreamReader, writer: StreamWriter
    ) -> None:
        loop = asyncio.get_running_loop()
        opened_at = loop.time()
        there, onward = await asyncio.open_connection(_LOOPBACK, port)
        # The caller's connection stands at once; over a real line that takes a round trip, which the first bytes wait.
        stands = opened_at + self._weather.rtt_s
        common: dict[str, Any] = {"weather": self._weather, "lines": lines, "draw": self._draw}
        to = _Pump(way=line.to, due=stands + self._weather.rtt_s / 2, **common)
        back = _Pump(way=line.back, due=stands, **common)
        try:
            await asyncio.gather(to.run(reader, onward), back.run(there, writer))
        finally:
            onward.transport.abort()

    def _caller(self, writer: StreamWriter) -> str | None:
        """Return the host of the process that opened a connection, None for one that nobody claimed."""
        peer, own = writer.get_extra_info("peername"), writer.get_extra_info("sockname")
        if not self._claimed or peer is None or own is None:
            return None
        inode = _inode(int(peer[1]), int(own[1]))
        return next((host for pid, host in self._claimed.items() if inode and inode in _sockets(pid)), None)


def _inode(port: int, to_port: int) -> str | None:
    """Return what Linux calls the socket of a loopback connection from one port to another."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            if fields[1].endswith(f":{port:04X}") and fields[2].endswith(f":{to_port:04X}"):
                return fields[9]
    return None


def _sockets(pid: int) -> set[str]:
    """Return what Linux calls the sockets of a process."""
    found: set[str] = set()
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(str(entry.readlink()).removeprefix("socket:[").removesuffix("]"))
    return found
