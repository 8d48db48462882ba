"""Read a deployment's logs up to one block, and what its contracts hold at that block."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from plait.chain.abi import CONTRACTS, artifact
from plait.chain.deployments import Deployment
from plait.chain.errors import RpcAnswerError
from plait.chain.logs import DecodedEvent, decode, read_logs
from plait.chain.reader import ChainReader
from plait.chain.values import Block, Log
from plait.protocol.errors import MalformedMessageError
from plait.protocol.ids import Hash
from plait_audit.apply import apply
from plait_audit.entry import Entry
from plait_audit.state import HOLDERS, TOKEN, Finding, Place, State

_PARALLEL_BLOCKS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """The state rebuilt from logs, and the block it stands for."""

    state: State
    block: Block
    first: int
    logs: int


async def replay(reader: ChainReader, *, last: int | None = None) -> Replay:
    """Rebuild the state from the deployment's first block to `last` (the head if none is given).

    Raises `ReorgError` when the chain changed its mind meanwhile: run it again.
    """
    deployment = reader.deployment
    head = await reader.block("latest" if last is None else last)
    state = _empty(deployment)
    count, times = 0, dict[int, int]()
    async for logs in _logs(reader, head.number):
        count += len(logs)
        times |= await _times(reader, sorted({log.block for log in logs} - times.keys()))
        for log in logs:
            place = Place(block=log.block, tx=log.tx, index=log.index)
            try:
                event = decode(deployment, log)
            except MalformedMessageError as error:
                state.findings.append(Finding(check="known-events", text=error.text, place=place))
                continue
            if event is not None:
                apply(state, _entry(event, place, times[log.block]))
    await _unchanged(reader, head)
    return Replay(state=state, block=head, first=deployment.block, logs=count)


async def _logs(reader: ChainReader, last: int) -> AsyncIterator[Sequence[Log]]:
    """Yield our contracts' logs, then the token's transfers from and to them: a real token has millions of others."""
    deployment = reader.deployment
    ours = [deployment.address(name) for name in CONTRACTS if name != TOKEN]
    async for found in read_logs(reader.rpc, addresses=ours, first=deployment.block, last=last):
        yield found.logs
    holders = [Hash(bytes(12) + deployment.address(name)) for name in HOLDERS]
    transfer, token = artifact(TOKEN).event("Transfer").topic, [deployment.address(TOKEN)]
    moved: dict[tuple[int, int], Log] = {}  # one from a contract of ours to another is found twice
    for topics in ([[transfer], holders], [[transfer], None, holders]):
        async for found in read_logs(reader.rpc, addresses=token, first=deployment.block, last=last, topics=topics):
            moved |= {(log.block, log.index): log for log in found.logs}
    yield [moved[place] for place in sorted(moved)]


def _empty(deployment: Deployment) -> State:
    chosen = deployment.parameters
    return State(
        epoch_length=chosen.epoch_length,
        fee_bps=chosen.fee_bps,
        unbonding_delay=chosen.unbonding_delay,
        holders=frozenset(deployment.address(name) for name in HOLDERS),
    )


def _entry(event: DecodedEvent, place: Place, time: int) -> Entry:
    return Entry(contract=event.contract, name=event.name, values=event.values, place=place, time=time)


async def _times(reader: ChainReader, blocks: list[int]) -> dict[int, int]:
    limit = asyncio.Semaphore(_PARALLEL_BLOCKS)

    async def time_of(number: int) -> int:
        async with limit:
            return (await reader.block(number)).timestamp

    times = await asyncio.gather(*(time_of(number) for number in blocks))
    return dict(zip(blocks, times, strict=True))


async def _unchanged(reader: ChainReader, head: Block) -> None:
    again = await reader.rpc.block(head.number)
    if again is None or again.hash != head.hash:
        raise RpcAnswerError(
            reader.rpc.url, method="replay", why=f"block {head.number} changed meanwhile; run it again"
        )
