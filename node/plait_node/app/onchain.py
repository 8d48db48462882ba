"""Answer what is asked on chain: each request of the contract goes to the worker, its answer into a transaction."""

from __future__ import annotations

import asyncio
import logging
from typing import NoReturn

from plait.chain.writer import ChainWriter
from plait.protocol.errors import PlaitError
from plait.protocol.ids import HASH_ZERO, Hash, keccak, to_hex
from plait.protocol.messages import Request
from plait_node.app.base import Base
from plait_node.settlement import OnchainRequest, OnchainWatcher
from plait_node.worker import WorkerRole

_AGAIN_S = 2.0
_log = logging.getLogger(__name__)


def request_of(found: OnchainRequest, *, chain_id: int, contract: bytes) -> Request:
    """Return the request that a contract's request stands for (docs/protocol.md, section 3, on-chain path)."""
    seed = keccak(chain_id.to_bytes(32, "big"), bytes(12), contract, found.number.to_bytes(32, "big"))
    asked = found.parameters
    return Request(
        payer=asked.payer,
        gateway=asked.gateway,
        quote=HASH_ZERO,
        model=asked.model,
        profiles=(asked.profile,),
        prompt=asked.prompt,
        sampling=asked.sampling,
        input_tokens=asked.input_tokens,
        max_tokens=asked.max_tokens,
        max_price=asked.fee,
        seed=seed,
        nonce=seed,
        deadline=asked.deadline,
    )


async def answer_on_chain(base: Base, role: WorkerRole) -> NoReturn:
    """Answer requests that name this node until cancelled; a chain that is away is waited for."""
    writer = ChainWriter(base.reader, base.key)
    watcher = OnchainWatcher(base.journal, base.reader, base.config.owner, writer=writer)
    while True:
        try:
            await watcher.resume()
            async for found in watcher.requests():
                await _answer(base, role, watcher, found)
        except PlaitError as error:
            _log.warning("on-chain requests wait error=%s", error)
        await asyncio.sleep(_AGAIN_S)


async def _answer(base: Base, role: WorkerRole, watcher: OnchainWatcher, found: OnchainRequest) -> None:
    contract = base.reader.deployment.address("Requests")
    request = request_of(found, chain_id=base.domain.chain_id, contract=contract)
    try:
        done = await role.run_onchain(request, found.ids)
    except PlaitError as error:
        _log.warning("on-chain request refused number=%d error=%s", found.number, error)
        return
    outcome = await watcher.fulfil(found, Hash(done.receipt_digest), done.ids)
    _log.info("on-chain request answered number=%d tx=%s", found.number, to_hex(outcome.tx) if outcome.tx else "none")
