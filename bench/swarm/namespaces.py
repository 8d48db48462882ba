"""Hosts as network namespaces: a veth each, a bridge in a namespace between them, netem on every host's end.

All packets are held back, UDP too. A one-way trip passes one netem, that of its sender. Needs root and iproute2.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from shutil import which
from typing import Final, Self

from bench.swarm.weather import Weather

__all__ = ["NamespaceError", "Namespaces", "why_not"]

_COMMAND_S: Final = 10.0
_BRIDGE: Final = "lines"


class NamespaceError(Exception):
    """A command of iproute2 failed; the message is what it said."""


async def _run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE)
    try:
        async with asyncio.timeout(_COMMAND_S):
            _, said = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise NamespaceError(f"{' '.join(command)}: no end after {_COMMAND_S:g} s") from None
    if process.returncode:
        raise NamespaceError(f"{' '.join(command)}: {said.decode(errors='replace').strip().splitlines()[0]}")


async def why_not(weather: Weather) -> str | None:
    """Return why this machine has no namespaces with this weather between them; None where it has."""
    if which("ip") is None or which("tc") is None:
        return "ip and tc are not installed (Debian: iproute2)"
    if os.geteuid():
        return "network namespaces need root"
    name = f"plait-{secrets.token_hex(3)}"
    try:
        await _run("ip", "netns", "add", name)
    except NamespaceError as error:
        return str(error)
    try:
        await _run("ip", "-n", name, "link", "set", "lo", "up")
        if not weather.calm:
            await _run("tc", "-n", name, "qdisc", "add", "dev", "lo", "root", *_netem(weather))
    except NamespaceError as error:
        return (
            f"this kernel has no netem (tc: {str(error).rpartition('Error: ')[2]})"
            if "netem" in str(error)
            else str(error)
        )
    else:
        return None
    finally:
        with contextlib.suppress(NamespaceError):
            await _run("ip", "netns", "del", name)


def _netem(weather: Weather) -> list[str]:
    delay = [f"{1e6 * weather.rtt_s / 2:.0f}us", f"{1e6 * weather.jitter_s / 2:.0f}us"]
    rate = ["rate", f"{8 * weather.bytes_s:.0f}bit"] if weather.bytes_s else []
    return ["netem", "limit", "100000", "delay", *delay, "loss", f"{100 * weather.loss:g}%", *rate]


class Namespaces:
    """Hosts that are namespaces; made and removed by `made`."""

    def __init__(self, names: Sequence[str], weather: Weather) -> None:
        mark = secrets.token_hex(2)
        self._weather = weather
        self._net = f"plait-{mark}"
        # A private network that is unlikely to be anybody's; the first address is this process's own.
        self._prefix = f"10.{secrets.randbelow(100) + 100}.{secrets.randbelow(256)}."
        self._places = {name: place for place, name in enumerate(["", *names], 1)}
        self._ends = {name: f"pl{mark}{place}" for name, place in self._places.items()}

    @property
    def how(self) -> str:
        """See `Hosts.how`."""
        between = "nothing between them" if self._weather.calm else f"tc netem between them ({self._weather})"
        return f"network namespaces with {between}"

    def address(self, host: str) -> str:
        """See `Hosts.address`."""
        return f"{self._prefix}{self._places[host]}"

    def command(self, host: str, command: Sequence[str]) -> list[str]:
        """See `Hosts.command`."""
        return ["ip", "netns", "exec", self._space(host), *command] if host else list(command)

    def claim(self, host: str, pid: int) -> None:
        """See `Hosts.claim`; a namespace knows its own."""

    async def door(self, host: str, port: int) -> tuple[str, int]:
        """See `Hosts.door`."""
        return self.address(host), port

    async def cut(self, host: str) -> None:
        """See `Hosts.cut`: its line is no longer on the bridge."""
        await _run("ip", "-n", self._net, "link", "set", self._ends[host], "nomaster")

    async def heal(self, host: str) -> None:
        """See `Hosts.heal`."""
        await _run("ip", "-n", self._net, "link", "set", self._ends[host], "master", _BRIDGE)

    @classmethod
    @asynccontextmanager
    async def made(cls, names: Sequence[str], weather: Weather) -> AsyncGenerator[Self]:
        """Make the namespaces for as long as the block lasts; raise `NamespaceError`."""
        hosts = cls(names, weather)
        try:
            await hosts._make()
            yield hosts
        finally:
            for space in [hosts._net, *(hosts._space(name) for name in names)]:
                with contextlib.suppress(NamespaceError):  # that it was never made is no matter
                    await asyncio.shield(_run("ip", "netns", "del", space))  # its links go with it

    def _space(self, host: str) -> str:
        return f"{self._net}-{self._places[host]}"

    async def _make(self) -> None:
        net = self._net
        await _run("ip", "netns", "add", net)
        await _run("ip", "-n", net, "link", "add", _BRIDGE, "type", "bridge")
        await _run("ip", "-n", net, "link", "set", _BRIDGE, "up")
        for name in self._places:
            await self._join(name)

    async def _join(self, host: str) -> None:
        """Give a host, or this process's own namespace, its end of a line."""
        end, here = self._ends[host], [] if not host else ["-n", self._space(host)]
        device = f"{end}h"
        await _run("ip", "-n", self._net, "link", "add", end, "type", "veth", "peer", "name", device)
        if host:
            await _run("ip", "netns", "add", self._space(host))
            await _run("ip", *here, "link", "set", "lo", "up")
        # Of this process's own namespace only the number of a process in it is known.
        target = self._space(host) if host else str(os.getpid())
        await _run("ip", "-n", self._net, "link", "set", device, "netns", target)
        await _run("ip", *here, "addr", "add", f"{self.address(host)}/24", "dev", device)
        await _run("ip", *here, "link", "set", device, "up")
        await _run("ip", "-n", self._net, "link", "set", end, "master", _BRIDGE, "up")
        if not self._weather.calm:
            await _run("tc", *here, "qdisc", "add", "dev", device, "root", *_netem(self._weather))
