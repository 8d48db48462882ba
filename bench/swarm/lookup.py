"""Looking a node up in the table: 500 nodes, each a real libtorrent session in this process.

Every session is a whole Kademlia node with its socket, its threads and its routing table, and has put its own record. A
look-up asks from another session, as a worker does that plans a route. All of them take 0.6 GB and 2,000 threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import resource
import statistics
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from bench.swarm.figure import Found, Part, Setting

from plait_node.swarm import DhtKey, LibtorrentDht
from plait_node.swarm.errors import DhtPortInUseError

__all__ = ["PART"]

_NODES: Final = 500  # sessions
_AT_ONCE: Final = 10
_FRIENDS: Final = 4  # sessions that a new one is told of
_TRIES: Final = 8
_LOOKUPS: Final = 400
_RECORD: Final = bytes(420)  # what a signed node record takes
_SALT: Final = b"node"
_FDS: Final = 16  # of a session


def _key(node: int) -> DhtKey:
    return DhtKey(hashlib.sha256(b"node %d" % node).digest())


@asynccontextmanager
async def _sessions(count: int, draw: random.Random) -> AsyncGenerator[list[LibtorrentDht]]:
    """Run sessions that know a few of those started before them, as bootstrap peers of a registry."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, _FDS * count + 256)), hard))
    made: list[LibtorrentDht] = []
    try:
        while len(made) < count:
            known = [("127.0.0.1", dht.port) for dht in draw.sample(made, min(_FRIENDS, len(made)))]
            batch = await asyncio.gather(
                *(_session(known) for _ in range(min(_AT_ONCE, count - len(made), 1 + len(made))))
            )
            made += batch
            if known:
                await asyncio.gather(*(dht.joined(deadline_s=60) for dht in batch))
        yield made
    finally:
        await asyncio.gather(*(dht.stop() for dht in made))


async def _session(known: list[tuple[str, int]]) -> LibtorrentDht:
    """Start a session; two that start at once may be given one port, and then one of them tries again."""
    for _ in range(_TRIES):
        with contextlib.suppress(DhtPortInUseError):
            dht = LibtorrentDht(peers=known)
            await dht.start()
            return dht
    raise DhtPortInUseError("127.0.0.1", 0, f"taken {_TRIES} times in a row")


async def _put_all(sessions: Sequence[LibtorrentDht]) -> list[float]:
    seconds: list[float] = []
    for node in range(_NODES):
        began = time.perf_counter()
        await sessions[node].put(_key(node), _SALT, _RECORD)
        seconds.append(time.perf_counter() - began)
    return seconds


async def _look_up(sessions: Sequence[LibtorrentDht], draw: random.Random) -> tuple[list[float], int]:
    """Return the seconds of each look-up, and how many found their record."""
    seconds, found = list[float](), 0
    for _ in range(_LOOKUPS):
        node = draw.randrange(_NODES)
        asker = sessions[(node + draw.randrange(1, _NODES)) % _NODES]
        began = time.perf_counter()
        value = await asker.get(_key(node).public, _SALT)
        seconds.append(time.perf_counter() - began)
        found += value == _RECORD
    return seconds, found


async def measure(setting: Setting) -> Found:
    """Measure look-ups one after the other."""
    draw = random.Random(7)  # noqa: S311 - a bench needs seeds, not entropy
    began = time.perf_counter()
    async with _sessions(_NODES, draw) as sessions:
        setting.say(f"  {len(sessions)} libtorrent sessions joined after {time.perf_counter() - began:.0f} s")
        puts = await _put_all(sessions)
        gets, found = await _look_up(sessions, draw)
        tables = [dht.known_peers for dht in sessions]
    parts = statistics.quantiles(gets, n=20)
    details = {
        "sessions": _NODES,
        "lookups": _LOOKUPS,
        "found": found,
        "known_peers_median": statistics.median(tables),
        "put_ms_p50": round(1e3 * statistics.median(puts), 3),
    }
    return Found(ratios={"lookup_ms_p50": 1e3 * parts[9], "lookup_ms_p95": 1e3 * parts[18]}, details=details)


PART: Final = Part(name="lookup", bars={}, measure=measure)
