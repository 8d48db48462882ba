"""Read logs in ranges, and notice when what was read is no longer part of the chain."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from plait.chain.abi import CONTRACTS, artifact
from plait.chain.deployments import Deployment
from plait.chain.errors import ReorgError, RpcRefusedError
from plait.chain.rpc import Rpc
from plait.chain.values import Block, Log
from plait.protocol.ids import HASH_ZERO, Address, Hash

_SPAN = 2_000
_TRIES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The last block whose logs were read."""

    block: int
    hash: Hash


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRange:
    """All matching logs of the blocks first..last, and the hash of the last."""

    first: int
    last: int
    logs: tuple[Log, ...]
    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedEvent:
    """A log of a known contract. `name` is empty for an event that its interface does not know."""

    contract: str
    name: str
    values: dict[str, Any]
    log: Log


@dataclass(frozen=True, slots=True, kw_only=True)
class _Query:
    addresses: tuple[Address, ...]
    topics: tuple[Sequence[Hash] | None, ...]


async def read_logs(
    rpc: Rpc,
    *,
    addresses: Sequence[Address],
    first: int,
    last: int,
    topics: Sequence[Sequence[Hash] | None] = (),
    after: Checkpoint | None = None,
    span: int = _SPAN,
) -> AsyncIterator[LogRange]:
    """Yield the logs of the blocks first..last in ranges, each consistent with one chain.

    `after` is where an earlier reading ended, at block first - 1. Raise `ReorgError` when that block, or one that was
    yielded here, is no longer part of the chain: unwind to an older checkpoint and begin there. A range the endpoint
    finds too large is halved.
    """
    query = _Query(addresses=tuple(addresses), topics=tuple(topics))
    while first <= last:
        until = min(first + span - 1, last)
        try:
            found = await _range(rpc, query, first, until, after)
        except RpcRefusedError:
            if span == 1:
                raise
            span = max(span // 2, 1)
            continue
        yield found
        first, after = until + 1, found.checkpoint


async def canonical(rpc: Rpc, checkpoint: Checkpoint) -> bool:
    """Say whether the checkpoint's block is still part of the chain."""
    block = await rpc.block(checkpoint.block)
    return block is not None and block.hash == checkpoint.hash


def decode(deployment: Deployment, log: Log) -> DecodedEvent | None:
    """Return what a log says; None when it is of no contract of the deployment."""
    contract = deployment.contract_at(log.address)
    if contract not in CONTRACTS:
        return None
    event = artifact(contract).events.get(log.topics[0]) if log.topics else None
    if event is None:
        return DecodedEvent(contract=contract, name="", values={}, log=log)
    return DecodedEvent(contract=contract, name=event.name, values=event.decode(log.topics, log.data), log=log)


async def _range(rpc: Rpc, query: _Query, first: int, last: int, after: Checkpoint | None) -> LogRange:
    before: Block | None = None
    head: Block | None = None
    for _ in range(_TRIES):
        before = await rpc.block(last)
        logs = await rpc.logs(first=first, last=last, addresses=query.addresses, topics=query.topics)
        if after and not await canonical(rpc, after):
            raise ReorgError(after.block, expected=after.hash, found=None)
        head = await rpc.block(last)
        if before and head and before.hash == head.hash and _fits(logs, head, first, last):
            checkpoint = Checkpoint(block=last, hash=head.hash)
            return LogRange(first=first, last=last, logs=tuple(logs), checkpoint=checkpoint)
    raise ReorgError(last, expected=before.hash if before else HASH_ZERO, found=head.hash if head else None)


def _fits(logs: Sequence[Log], head: Block, first: int, last: int) -> bool:
    inside = all(first <= log.block <= last for log in logs)
    return inside and all(log.block_hash == head.hash for log in logs if log.block == last)
