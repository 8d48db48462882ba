"""How far a receipt has come: signed, then claimed on chain, then final."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from plait.chain.abi import artifact
from plait.chain.logs import decode, read_logs
from plait.chain.reader import ChainReader
from plait.protocol.errors import PlaitError
from plait.protocol.ids import Hash


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptStatus:
    """Where a receipt stands; from "claimed" on, `tx` is the claim whose root contains it."""

    state: Literal["signed", "claimed", "final"]
    tx: Hash | None = None
    block: int | None = None
    jobs: int | None = None
    root: Hash | None = None


async def receipt_status(
    reader: ChainReader,
    channel: Hash,
    *,
    place: int,
    root_at: Callable[[int], Hash],
    closes_at: int,
    finality_blocks: int,
) -> ReceiptStatus:
    """Say how far the receipt at `place` of a channel's tree has come.

    `root_at(jobs)` is the root of our own copy of the tree: only a claim of exactly that root counts. Final means that
    the claim is `finality_blocks` deep and that `closes_at` (Unix seconds) has passed by the chain's clock.
    """
    head = await reader.block()
    found = await _claim_of(reader, channel, place=place, root_at=root_at, last=head.number)
    if found is None:
        return ReceiptStatus(state="signed")
    deep = head.number - (found.block or 0) >= finality_blocks
    if not (deep and head.timestamp > closes_at):
        return found
    return ReceiptStatus(state="final", tx=found.tx, block=found.block, jobs=found.jobs, root=found.root)


async def _claim_of(
    reader: ChainReader, channel: Hash, *, place: int, root_at: Callable[[int], Hash], last: int
) -> ReceiptStatus | None:
    deployment = reader.deployment
    topics = [[artifact("Channels").event("VoucherClaimed").topic], [channel]]
    where = [deployment.address("Channels")]
    async for found in read_logs(reader.rpc, addresses=where, first=deployment.block, last=last, topics=topics):
        for log in found.logs:
            event = decode(deployment, log)
            if event is None or event.values["jobs"] <= place:
                continue
            jobs, root = int(event.values["jobs"]), Hash(event.values["receiptsRoot"])
            if _own_root(root_at, jobs) == root:
                return ReceiptStatus(state="claimed", tx=log.tx, block=log.block, jobs=jobs, root=root)
    return None


def _own_root(root_at: Callable[[int], Hash], jobs: int) -> Hash | None:
    try:
        return root_at(jobs)
    except PlaitError:  # a claim over more jobs than we know of
        return None
