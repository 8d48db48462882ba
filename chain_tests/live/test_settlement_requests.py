"""The on-chain path on a real chain: ask a named node, answer once, refund, follow reorganisations."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from chain_tests.channel_cases import Trade, eventually

from plait.chain import STAGE, ChainWriter, Order, RequestParameters, RequestsError, TxResult
from plait.ledger import Journal
from plait.protocol.ids import HASH_ZERO, Hash, keccak
from plait.protocol.messages import Sampling
from plait_node.settlement import OnchainRequest, OnchainWatcher

FEE = 5_000
MODEL = keccak(b"model")
IDS = (1, 70_000, 3)
RECEIPT = keccak(b"receipt")


async def ask(trade: Trade, ids: tuple[int, ...] = IDS) -> TxResult:
    order = Order(
        gateway=trade.payee,
        model=MODEL,
        profile=keccak(b"profile"),
        sampling=Sampling(temperature=0, top_p=1_000_000, top_k=0, stop=HASH_ZERO),
        max_tokens=8,
        fee=FEE,
        deadline=trade.chain.anvil.timestamp() + 600,
    )
    return await trade.payer.submit_request(order, ids)


def watcher(trade: Trade, journal: Journal | None = None) -> OnchainWatcher:
    writer = ChainWriter(trade.reader, trade.service)
    return OnchainWatcher(
        journal or trade.payee_journal,
        trade.reader,
        trade.payee,
        writer=writer,
        poll_s=0.02,
        clock=lambda: float(trade.chain.anvil.timestamp()),
    )


async def first(found: OnchainWatcher) -> OnchainRequest:
    async with asyncio.timeout(20):
        return await anext(found.requests())


async def test_request_is_found_and_answered_once(trade: Trade) -> None:
    asked = await ask(trade)
    follower = watcher(trade)

    request = await first(follower)
    outcome = await follower.fulfil(request, RECEIPT, (9, 8, 7))
    again = await follower.fulfil(request, RECEIPT, (1,))

    event = asked.event("Requested")
    assert event is not None
    assert (request.number, request.digest, request.ids) == (event["id"], event["request"], IDS)
    assert (request.parameters.payer, request.parameters.fee, request.parameters.model) == (
        trade.payer.account,
        FEE,
        MODEL,
    )
    assert (outcome.status, again) == ("done", outcome)
    assert (await trade.reader.earnings(trade.payee)).earned == FEE
    assert await trade.reader.open_request(request.number) is None
    assert follower.unanswered() == []


async def test_request_unanswered_is_found_again_after_a_restart(trade: Trade, tmp_path: Path) -> None:
    await ask(trade)
    await first(watcher(trade))
    trade.payee_journal.close()
    trade.payee_journal = Journal(tmp_path / "payee.db")

    request = await first(watcher(trade))

    assert (await watcher(trade).fulfil(request, RECEIPT, (1,))).status == "done"


async def test_request_to_another_node_is_not_ours(trade: Trade) -> None:
    await ask(trade)
    stranger = OnchainWatcher(trade.payee_journal, trade.reader, trade.payer.account)

    await stranger.poll()

    assert stranger.unanswered() == []


async def test_request_that_a_reorganisation_undid_is_forgotten(trade: Trade) -> None:
    follower = watcher(trade)
    await follower.poll()
    snapshot = trade.chain.anvil.snapshot()
    await ask(trade)
    await follower.poll()
    assert [each.ids for each in follower.unanswered()] == [IDS]

    trade.chain.anvil.revert(snapshot)
    trade.chain.anvil.mine()
    await ask(trade, (4, 5))
    await follower.poll()

    assert [each.ids for each in follower.unanswered()] == [(4, 5)]


async def test_request_to_a_node_that_cannot_answer_is_not_sent(trade: Trade) -> None:
    await trade.node.set_roles(STAGE)
    before = await trade.reader.token_balance(trade.payer.account)

    with pytest.raises(RequestsError, match="name a staked node in the gateway role"):
        await ask(trade)

    assert await trade.reader.token_balance(trade.payer.account) == before


async def test_request_past_its_deadline_is_refunded_and_not_answered(trade: Trade) -> None:
    asked = await ask(trade)
    follower = watcher(trade)
    request = await first(follower)
    parameters = RequestParameters.from_event((asked.event("Requested") or {})["params"])
    with pytest.raises(RequestsError) as caught:
        await trade.payer.refund(request.number, parameters)
    assert caught.value.error == "Requests_NotDue"
    trade.chain.anvil.increase_time(601)
    assert follower.unanswered() == []
    before = await trade.reader.token_balance(trade.payer.account)

    late = await follower.fulfil(request, RECEIPT, (1,))
    await trade.payer.refund(request.number, parameters)

    assert late.status == "refused"
    assert "Requests_TooLate" in late.note
    assert await trade.reader.token_balance(trade.payer.account) == before + FEE


async def test_answer_of_a_settled_request_is_moot(trade: Trade) -> None:
    await ask(trade)
    follower = watcher(trade)
    request = await first(follower)
    direct = ChainWriter(trade.reader, trade.service)
    await direct.fulfil(request.number, request.parameters, RECEIPT, (1,))

    assert (await follower.fulfil(request, RECEIPT, (1,))).status == "moot"


async def test_answer_begun_before_a_restart_is_finished(trade: Trade, tmp_path: Path) -> None:
    await ask(trade)
    request = await first(watcher(trade))
    trade.chain.anvil.automine(on=False)
    task = asyncio.create_task(watcher(trade).fulfil(request, RECEIPT, (1, 2)))
    await eventually(lambda: trade.payee_journal.one("SELECT 1 FROM variants") is not None)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    trade.chain.anvil.automine(on=True)

    follower = watcher(trade)
    await follower.resume()

    outcome = follower.outcome(request)
    assert outcome is not None
    assert outcome.status == "done"
    assert isinstance(outcome.tx, bytes)
    assert trade.payee_journal.one("SELECT COUNT(*) FROM variants") == (1,)
    assert (await trade.reader.earnings(trade.payee)).earned == FEE
    assert Hash(outcome.tx) == outcome.tx
