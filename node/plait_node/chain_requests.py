"""Tell whether a request that nobody signed waits on the chain, its fee in escrow."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from plait.chain import ChainReader, Log
from plait.chain.abi import artifact
from plait.protocol.checks import MAX_DEADLINE_S
from plait.protocol.ids import Address, Hash, keccak
from plait.protocol.messages import Request

_SPAN = 2_000  # blocks asked for at once, newest first: public endpoints refuse more
_SPANS = 16  # 32,000 blocks: the longest life of a request on a chain with nine blocks a second


class OpenRequests:
    """What stages and gateways ask the contract of requests, over a chain reader."""

    def __init__(self, reader: ChainReader, *, span: int = _SPAN) -> None:
        self._reader = reader
        self._span = span

    async def __call__(self, _: Request, request: Hash) -> bool:
        """Say whether the contract holds a fee for the request with this digest; raise `ChainError`."""
        found = await self._asked((None, None, (request,)))
        if found is None:
            return False
        number = int.from_bytes(found.topics[1], "big")
        # While a request is open the contract keeps the hash of its parameters; a `Requested` event's data are these.
        return await self._reader.open_request(number) == keccak(found.data)

    async def named(self, number: int, gateway: Address, request: Hash) -> bool:
        """Say whether request `number` is open, asks this gateway, and has this digest; raise `ChainError`."""
        stored = await self._reader.open_request(number)
        if stored is None:  # most hostile calls end here, before any log is searched
            return False
        words = (Hash(number.to_bytes(32, "big")),), (Hash(bytes(12) + gateway),), (request,)
        found = await self._asked(words)
        return found is not None and stored == keccak(found.data)

    async def _asked(self, words: Sequence[Sequence[Hash] | None]) -> Log | None:
        """Return the newest `Requested` event with these indexed words: number, gateway, digest."""
        reader = self._reader
        head = await reader.block()
        address, last = reader.deployment.address("Requests"), head.number
        for _ in range(_SPANS):
            first = max(last - self._span + 1, reader.deployment.block)
            topics = ((_requested(),), *words)
            if found := await reader.rpc.logs(first=first, last=last, addresses=(address,), topics=topics):
                return found[-1]
            last = first - 1
            if last < reader.deployment.block or (await reader.block(last)).timestamp < head.timestamp - MAX_DEADLINE_S:
                return None
        return None


@cache
def _requested() -> Hash:
    return artifact("Requests").event("Requested").topic
