"""Answer what is asked on chain: each request of the contract goes to the worker, its answer into a transaction."""

from __future__ import annotations

import asyncio
import logging

from plait.ledger import JournalFullError
from plait.protocol.errors import BadRequestError, PlaitError
from plait.protocol.ids import HASH_ZERO, Hash, keccak, to_hex
from plait.protocol.messages import Request
from plait_node.app.base import Base, background, clock
from plait_node.broker import BrokerDownError
from plait_node.settlement import OnchainRequest, OnchainWatcher, begin_before
from plait_node.worker import PromptBox, WorkerRole

_AGAIN_S = 2.0
_LOOK_EVERY_S = 1.0
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


async def answer_on_chain(base: Base, role: WorkerRole, prompts: PromptBox, *, max_callback_gas: int) -> None:
    """Answer requests that name this node until cancelled; a chain that is away is waited for."""
    watcher = OnchainWatcher(base.journal, base.reader, base.config.owner, writer=base.writer)
    # Beside the answers: the broker keeps only the newest of what strangers may bring while one is under way.
    async with background(_look_for_prompts(watcher, prompts)):
        await _answer_all(base, role, watcher, max_callback_gas=max_callback_gas)


async def collect_prompts(watcher: OnchainWatcher, prompts: PromptBox, *, now: float) -> None:
    """Give waiting requests the prompts that were brought for them and fit; raise `BrokerError`."""
    waiting = [each for each in watcher.unanswered() if not each.ids and now < begin_before(each)]
    prompts.keep(each.digest for each in waiting)
    for request in waiting:
        for ids, content_key in await prompts.opened(request.digest):
            try:
                watcher.give_prompt(request.number, ids, content_key)
            except BadRequestError as error:
                prompts.drop(request.digest, error)
            else:
                _log.info("prompt of an on-chain request came number=%d", request.number)


async def _look_for_prompts(watcher: OnchainWatcher, prompts: PromptBox) -> None:
    while True:
        try:
            await collect_prompts(watcher, prompts, now=clock())
        except (BrokerDownError, JournalFullError) as error:
            _log.debug("prompts wait error=%s", error)  # who takes jobs from the same broker says so aloud
        await asyncio.sleep(_LOOK_EVERY_S)


async def _answer_all(base: Base, role: WorkerRole, watcher: OnchainWatcher, *, max_callback_gas: int) -> None:
    while True:
        try:
            await watcher.resume()
            async for found in watcher.requests():
                await _answer_here(base, role, watcher, found, max_callback_gas=max_callback_gas)
        except PlaitError as error:
            _log.warning("on-chain requests wait error=%s", error)
        await asyncio.sleep(_AGAIN_S)


async def _answer_here(
    base: Base, role: WorkerRole, watcher: OnchainWatcher, found: OnchainRequest, *, max_callback_gas: int
) -> None:
    if base.drain.begun or base.disk.full:
        return  # it is found again: later, or after the next start
    request = request_of(found, chain_id=base.domain.chain_id, contract=base.reader.deployment.address("Requests"))
    with base.drain.held():
        await answer(role, watcher, found, request, max_callback_gas=max_callback_gas)


async def answer(
    role: WorkerRole, watcher: OnchainWatcher, found: OnchainRequest, request: Request, *, max_callback_gas: int
) -> None:
    """Answer one request, or say in the log why not; raise `ChainError` when the chain fails meanwhile."""
    asked = found.parameters.callback_gas
    if asked > max_callback_gas:
        _log.warning(
            "on-chain request refused number=%d error=its callback asks for %d gas, max_callback_gas is %d",
            found.number,
            asked,
            max_callback_gas,
        )
        return
    try:
        done = await role.run_onchain(request, found.ids, found.content_key, begin_before=begin_before(found))
    except PlaitError as error:
        _log.warning("on-chain request refused number=%d error=%s", found.number, error)
        return
    outcome = await watcher.fulfil(found, Hash(done.receipt_digest), done.ids)
    if outcome.tx:
        _log.info("on-chain request answered number=%d tx=%s", found.number, to_hex(outcome.tx))
