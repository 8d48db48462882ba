"""Read a deployment's logs up to one block, and what its contracts hold at that block."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from plait.chain.errors import RpcAnswerError
from plait.chain.logs import DecodedEvent, decode, read_logs
from plait.chain.reader import ChainReader
from plait.chain.values import Block
from plait.protocol.errors import MalformedMessageError
from plait_audit.apply import Entry, apply
from plait_audit.state import Finding, Place, State

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
    state = State(epoch_length=deployment.parameters.epoch_length, fee_bps=deployment.parameters.fee_bps)
    count, first = 0, deployment.block
    addresses = list(deployment.addresses.values())
    async for found in read_logs(reader.rpc, addresses=addresses, first=first, last=head.number):
        count += len(found.logs)
        times = await _times(reader, sorted({log.block for log in found.logs}))
        for log in found.logs:
            place = Place(block=log.block, tx=log.tx, index=log.index)
            try:
                event = decode(deployment, log)
            except MalformedMessageError as error:
                state.findings.append(Finding(check="known-events", text=error.text, place=place))
                continue
            if event is not None:
                apply(state, _entry(event, place, times[log.block]))
    await _unchanged(reader, head)
    return Replay(state=state, block=head, first=first, logs=count)


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
