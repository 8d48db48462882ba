"""Tiers of nodes, as `Reputation` has them at one block, remembered for a short while."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from plait.protocol.errors import PlaitError
from plait.protocol.ids import Address

# A tier is read again after this time; one that cannot be read counts on for a while, then as unknown.
REFRESH_S = 30.0
_STALE_S = 600.0
_AGAIN_S = 1.0

_log = logging.getLogger(__name__)


class TierSource(Protocol):
    """The chain, as far as tiers are asked of it."""

    async def tiers(self, owners: Iterable[Address], /) -> Mapping[Address, int]:
        """Return tiers, 0 to 15, all at one block; raise a `PlaitError`."""
        ...


class ChainTiers:
    """Tiers of the nodes that were asked about."""

    def __init__(self, source: TierSource, *, clock: Callable[[], float], refresh_s: float = REFRESH_S) -> None:
        self._source, self._clock, self._refresh_s = source, clock, refresh_s
        self._tiers: dict[Address, int] = {}
        self._read_at = float("-inf")
        self._lock = asyncio.Lock()

    async def tier(self, owner: Address, /) -> int:
        """Return a node's tier, at most `refresh_s` old while the chain answers; raise a `PlaitError` when unknown."""
        async with self._lock:
            if owner not in self._tiers or self._clock() - self._read_at >= self._refresh_s:
                await self._read(owner)
            return self._tiers[owner]

    async def has(self, owner: Address, tier: int, /) -> bool:
        """Tell whether a node has a tier, or a higher one; raise a `PlaitError` when that is unknown.

        A claim above what was read last is looked up at once, though not more than once a second: tiers rise.
        """
        if await self.tier(owner) >= tier:
            return True
        async with self._lock:
            if self._clock() - self._read_at >= _AGAIN_S:
                await self._read(owner)
            return self._tiers[owner] >= tier

    async def _read(self, owner: Address) -> None:
        now = self._clock()
        try:
            self._tiers = dict(await self._source.tiers({*self._tiers, owner}))
            self._read_at = now
        except PlaitError as error:
            if owner not in self._tiers or now - self._read_at >= _STALE_S:
                raise
            _log.warning("tiers not read, the last ones count on error=%s", error)
