"""Several hosts on one machine, with distance, loss and cut lines between them.

Where the kernel allows it each host is a network namespace behind `tc netem`; else hosts share loopback, and what goes
to one of them passes a proxy in this process that holds bytes back. `Hosts.how` says which, and why.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from bench.swarm.namespaces import Namespaces, why_not
from bench.swarm.proxy import Proxies
from bench.swarm.weather import Weather

__all__ = ["HERE", "Hosts", "Weather", "opened_hosts"]

HERE = ""  # the host on which this process is


class Hosts(Protocol):
    """Hosts by name; all are equally far from each other and from here."""

    @property
    def how(self) -> str:
        """Return what the hosts are made of, for people."""
        ...

    def address(self, host: str) -> str:
        """Return the address on which a process of this host listens."""
        ...

    def command(self, host: str, command: Sequence[str]) -> list[str]:
        """Return the command that runs `command` on this host."""
        ...

    def claim(self, host: str, pid: int) -> None:
        """Say that a process is on this host; to be said before it connects to anyone."""
        ...

    async def door(self, host: str, port: int) -> tuple[str, int]:
        """Return address and TCP port under which the others reach a port of this host."""
        ...

    async def cut(self, host: str) -> None:
        """Let nothing through to or from this host; nobody is told, as with a line that is cut."""
        ...

    async def heal(self, host: str) -> None:
        """Let everything through again."""
        ...


@asynccontextmanager
async def opened_hosts(names: Sequence[str], weather: Weather, *, proxy: bool = False) -> AsyncGenerator[Hosts]:
    """Make hosts for as long as the block lasts: namespaces where they can be had, unless a `proxy` is asked for."""
    reason = "asked for" if proxy else await why_not(weather)
    if reason is None:
        async with Namespaces.made(names, weather) as spaces:
            yield spaces
        return
    proxies = Proxies(weather, reason=reason)
    try:
        yield proxies
    finally:
        await proxies.close()
