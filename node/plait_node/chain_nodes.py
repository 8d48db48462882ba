"""What the swarm asks about registered nodes, answered by the chain and remembered for a short while."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable

from plait.chain.reader import STAGE, ChainReader, NodeInfo
from plait.protocol.endpoints import Endpoints, endpoints
from plait.protocol.errors import MalformedMessageError
from plait.protocol.ids import Address

_LIFE_S = 10.0
_log = logging.getLogger(__name__)


class ChainNodes:
    """Candidates and bootstrap peers, from `NodeRegistry`."""

    def __init__(self, reader: ChainReader, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._reader = reader
        self._clock = clock
        self._listed: tuple[NodeInfo, ...] = ()
        self._read_at = -_LIFE_S

    async def stages(self) -> list[NodeInfo]:
        """Return the staked nodes with role stage."""
        return [node for node in await self._nodes() if node.roles & STAGE]

    async def node(self, owner: Address, /) -> NodeInfo | None:
        """Return one registered node."""
        known = next((node for node in await self._nodes() if node.owner == owner), None)
        return known or await self._reader.node(owner)

    async def peers(self) -> list[tuple[str, int]]:
        """Return the DHT sockets that staked nodes name; unreadable endpoints are skipped."""
        return [each.dht async for each in self._endpoints() if each.dht is not None]

    async def givers(self) -> list[str]:
        """Return the base URLs at which staked nodes give weights."""
        return [each.weights_url async for each in self._endpoints() if each.weights_url is not None]

    async def _endpoints(self) -> AsyncIterator[Endpoints]:
        for node in await self._nodes():
            try:
                yield endpoints(node.endpoint)
            except MalformedMessageError as error:
                _log.debug("endpoint unreadable owner=%s error=%s", node.owner.hex(), error)

    async def _nodes(self) -> tuple[NodeInfo, ...]:
        if self._clock() - self._read_at >= _LIFE_S:
            self._listed = tuple(await self._reader.nodes())
            self._read_at = self._clock()
        return self._listed
