"""Tell whether a request that nobody signed waits on the chain, its fee in escrow."""

from __future__ import annotations

from functools import cache

from plait.chain import ChainReader
from plait.chain.abi import artifact
from plait.protocol.checks import MAX_DEADLINE_S
from plait.protocol.ids import Hash
from plait.protocol.messages import Request

_SPAN = 2_000  # blocks asked for at once, newest first: public endpoints refuse more
_SPANS = 16  # 32,000 blocks: the longest life of a request on a chain with nine blocks a second


class OpenRequests:
    """The `OnChain` check of a stage over a chain reader."""

    def __init__(self, reader: ChainReader, *, span: int = _SPAN) -> None:
        self._reader = reader
        self._span = span

    async def __call__(self, _: Request, request: Hash) -> bool:
        """Say whether the contract holds a fee for the request with this digest; raise `ChainError`."""
        number = await self._number(request)
        if number is None:
            return False
        (stored,) = await self._reader.view("Requests", "openRequest", number)
        return stored == request

    async def _number(self, request: Hash) -> int | None:
        reader = self._reader
        head = await reader.block()
        address, last = reader.deployment.address("Requests"), head.number
        for _ in range(_SPANS):
            first = max(last - self._span + 1, reader.deployment.block)
            topics = ((_requested(),), None, None, (request,))
            if found := await reader.rpc.logs(first=first, last=last, addresses=(address,), topics=topics):
                return int.from_bytes(found[-1].topics[1], "big")
            last = first - 1
            if last < reader.deployment.block or (await reader.block(last)).timestamp < head.timestamp - MAX_DEADLINE_S:
                return None
        return None


@cache
def _requested() -> Hash:
    events = artifact("Requests").events
    return next(topic for topic, event in events.items() if event.name == "Requested")
