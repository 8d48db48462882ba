"""A contract asks, a node answers, the contract is called back; the shipped `AnswerKeeper` is that contract."""

from __future__ import annotations

import asyncio

import pytest
from chain_tests.channel_cases import Trade

from plait.chain import ChainWriter, Lane, Order, artifact, ids_bytes
from plait.protocol.commitments import prompt_commitment
from plait.protocol.ids import Address, Hash, keccak
from plait.protocol.sealing import ContentKey
from plait_audit import audit
from plait_node.settlement import OnchainRequest, OnchainWatcher

FEE, CALLBACK_GAS, TOO_LITTLE_GAS = 5_000, 100_000, 3_000
IDS, OUTPUT = (1, 70_000, 3), (9, 8, 7)
KEY = ContentKey(b"\x07" * 32)
REFUNDED = Hash(bytes(31) + b"\x01")


class Keeper:
    """An `AnswerKeeper` on the chain, and its owner."""

    def __init__(self, trade: Trade) -> None:
        self._trade = trade
        self._lane = Lane(trade.reader.rpc, trade.payer.key, trade.chain.deployment.chain_id)
        self._code = artifact("AnswerKeeper")
        self.at = Address(bytes(20))

    async def deploy(self) -> None:
        """Put it on the chain, with tokens for two requests."""
        requests = self._trade.chain.deployment.address("Requests")
        receipt = await self._lane.send(None, self._code.deployment(requests))
        assert receipt.contract is not None
        self.at = receipt.contract
        await self._trade.payer.transfer(self.at, 2 * FEE)

    async def send(self, function: str, *arguments: object) -> None:
        """Call it as its owner."""
        await self._lane.send(self.at, self._code.functions[function].encode(*arguments))

    async def answer(self, number: int) -> bytes:
        """Return what it keeps of a request."""
        called = self._code.functions["answers"]
        return called.decode(await self._trade.reader.rpc.call(self.at, called.encode(number)))[0]

    def order(self, *, callback_gas: int) -> tuple[object, ...]:
        """Return an order to the trade's node."""
        now = self._trade.chain.anvil.timestamp()
        return Order(
            gateway=self._trade.payee,
            model=keccak(b"model"),
            profile=keccak(b"profile"),
            max_tokens=8,
            fee=FEE,
            exclusive_until=now + 300,
            deadline=now + 600,
            callback_gas=callback_gas,
        ).encodable()


@pytest.fixture
async def keeper(trade: Trade) -> Keeper:
    """Return a keeper on the chain."""
    made = Keeper(trade)
    await made.deploy()
    return made


def watcher(trade: Trade) -> OnchainWatcher:
    """Return the node's watcher."""
    writer, anvil = ChainWriter(trade.reader, trade.service), trade.chain.anvil
    return OnchainWatcher(
        trade.payee_journal, trade.reader, trade.payee, writer=writer, poll_s=0.02, clock=anvil.timestamp
    )


async def first(found: OnchainWatcher) -> OnchainRequest:
    async with asyncio.timeout(60):
        return await anext(found.requests())


async def test_contract_that_asked_is_called_back_with_the_answer(trade: Trade, keeper: Keeper) -> None:
    await keeper.send("ask", keeper.order(callback_gas=CALLBACK_GAS), ids_bytes(IDS))
    node = watcher(trade)
    request = await first(node)

    outcome = await node.fulfil(request, keccak(b"receipt"), OUTPUT)

    assert (request.parameters.payer, request.parameters.callback_gas) == (keeper.at, CALLBACK_GAS)
    assert outcome.status == "done"
    assert await keeper.answer(request.number) == keccak(ids_bytes(OUTPUT))
    report = await audit(trade.reader)
    assert (report.findings, report.to_dict()["counts"]["failedCallbacks"]) == ((), 0)


async def test_callback_that_runs_out_of_its_gas_costs_the_node_nothing(trade: Trade, keeper: Keeper) -> None:
    await keeper.send("ask", keeper.order(callback_gas=TOO_LITTLE_GAS), ids_bytes(IDS))
    node = watcher(trade)
    request = await first(node)

    outcome = await node.fulfil(request, keccak(b"receipt"), OUTPUT)

    assert outcome.status == "done"
    assert (await trade.reader.earnings(trade.payee)).earned == FEE
    assert await keeper.answer(request.number) == bytes(32)
    report = await audit(trade.reader)
    assert (report.findings, report.to_dict()["counts"]["failedCallbacks"]) == ((), 1)
    assert report.replay.state.requests[request.number].callback_failed


async def test_contract_that_asked_by_commitment_gives_up_and_has_its_fee_back(trade: Trade, keeper: Keeper) -> None:
    order = keeper.order(callback_gas=CALLBACK_GAS)
    await keeper.send("askByCommitment", order, prompt_commitment(KEY, IDS), len(IDS))
    node = watcher(trade)
    await node.poll()
    (request,) = node.unanswered()
    assert request.ids == ()
    trade.chain.anvil.increase_time(301)

    await keeper.send("giveUp", request.number, request.parameters.encodable())

    assert await keeper.answer(request.number) == REFUNDED
    assert await trade.reader.token_balance(keeper.at) == 2 * FEE
    node.give_prompt(request.number, IDS, KEY)
    assert (await node.fulfil(request, keccak(b"receipt"), OUTPUT)).status == "moot"
    report = await audit(trade.reader)
    assert report.findings == ()
    assert report.replay.state.requests[request.number].status == "cancelled"
