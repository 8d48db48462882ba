"""Answer "whose key is this, and is that node staked" from memory for a while, from the chain after that."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from plait.chain.reader import ChainReader, ServiceKey
from plait.protocol.ids import Address

T = TypeVar("T")

_MOST = 10_000


class CachedDirectory:
    """A `NodeDirectory` over a reader. What it says is at most `ttl_s` seconds old."""

    def __init__(
        self, reader: ChainReader, ttl_s: float = 15.0, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._reader = reader
        self._ttl_s = ttl_s
        self._clock = clock
        self._keys: dict[Address, tuple[float, ServiceKey | None]] = {}
        self._active: dict[Address, tuple[float, bool]] = {}

    async def service_key(self, address: Address) -> ServiceKey | None:
        """Return whose service key this is, None for nobody's."""
        return await self._look(self._keys, address, self._reader.service_key)

    async def active(self, owner: Address) -> bool:
        """Say whether the node holds the minimum stake and is not jailed."""
        return await self._look(self._active, owner, self._reader.active)

    async def _look(
        self, seen: dict[Address, tuple[float, T]], name: Address, ask: Callable[[Address], Awaitable[T]]
    ) -> T:
        now = self._clock()
        if (found := seen.get(name)) and now - found[0] < self._ttl_s:
            return found[1]
        if len(seen) >= _MOST:  # strangers choose the names that are looked up
            seen.clear()
        answer = await ask(name)
        seen[name] = (now, answer)
        return answer
