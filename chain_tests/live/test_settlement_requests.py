"""The on-chain path on a real chain: ask a named node, answer once, refund, follow reorganisations."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from chain_tests.channel_cases import Trade, eventually

from plait.chain import STAGE, ChainWriter, Order, RequestsError, TxResult
from plait.ledger import Journal
from plait.protocol.commitments import prompt_commitment
from plait.protocol.errors import BadRequestError
from plait.protocol.ids import Hash, keccak
from plait.protocol.sealing import ContentKey
from plait_node.settlement import OnchainRequest, OnchainWatcher
from plait_node.settlement.requests import BEGIN_MARGIN_S, SEND_MARGIN_S

FEE = 5_000
MODEL = keccak(b"model")
IDS = (1, 70_000, 3)
RECEIPT = keccak(b"receipt")
KEY = ContentKey(b"\x07" * 32)


def order(trade: Trade, *, exclusive_s: int = 300) -> Order:
    now = trade.chain.anvil.timestamp()
    return Order(
        gateway=trade.payee,
        model=MODEL,
        profile=keccak(b"profile"),
        max_tokens=8,
        fee=FEE,
        exclusive_until=now + exclusive_s,
        deadline=now + 600,
    )


async def ask(trade: Trade, ids: tuple[int, ...] = IDS, *, exclusive_s: int = 300) -> TxResult:
    return await trade.payer.submit_request(order(trade, exclusive_s=exclusive_s), ids)


async def ask_by_commitment(trade: Trade, ids: tuple[int, ...] = IDS) -> TxResult:
    return await trade.payer.submit_commitment(order(trade), prompt_commitment(KEY, ids), len(ids))


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
    async with asyncio.timeout(60):
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


async def test_request_by_commitment_is_yielded_once_its_prompt_is_given(trade: Trade, tmp_path: Path) -> None:
    await ask_by_commitment(trade)
    await ask(trade, (4, 5))
    follower = watcher(trade)
    assert (await first(follower)).number == 2
    assert [(each.number, each.ids) for each in follower.unanswered()] == [(1, ()), (2, (4, 5))]
    with pytest.raises(BadRequestError, match="not what request 1 commits to"):
        follower.give_prompt(1, (1, 2, 3), KEY)
    follower.give_prompt(1, IDS, KEY)
    trade.payee_journal.close()
    trade.payee_journal = Journal(tmp_path / "payee.db")

    request = await first(watcher(trade))

    assert (request.number, request.ids) == (1, IDS)
    assert request.content_key.secret_bytes() == KEY.secret_bytes()
    assert (await watcher(trade).fulfil(request, RECEIPT, (9,))).status == "done"


async def test_prompt_of_a_request_that_a_reorganisation_moved_is_not_lost(trade: Trade) -> None:
    follower = watcher(trade)
    await follower.poll()
    snapshot = trade.chain.anvil.snapshot()
    await ask_by_commitment(trade)
    await follower.poll()
    follower.give_prompt(1, IDS, KEY)

    trade.chain.anvil.revert(snapshot)
    trade.chain.anvil.mine()
    await ask(trade, (4, 5))
    await ask_by_commitment(trade)
    await follower.poll()

    assert [(each.number, each.ids) for each in follower.unanswered()] == [(1, (4, 5)), (2, IDS)]


async def test_request_past_its_deadline_is_refunded_and_not_answered(trade: Trade) -> None:
    await ask(trade)
    follower = watcher(trade)
    request = await first(follower)
    with pytest.raises(RequestsError) as caught:
        await trade.payer.refund(request.number, request.parameters)
    assert caught.value.error == "Requests_NotDue"
    trade.chain.anvil.increase_time(601)
    assert follower.unanswered() == []
    before = await trade.reader.token_balance(trade.payer.account)

    late = await follower.fulfil(request, RECEIPT, (1,))
    await trade.payer.refund(request.number, request.parameters)

    assert (late.status, late.tx) == ("moot", None)
    assert await trade.reader.token_balance(trade.payer.account) == before + FEE


async def test_answer_is_first_sent_only_while_nobody_can_cancel(trade: Trade) -> None:
    await ask(trade)
    await ask(trade, (4, 5))
    follower = watcher(trade)
    await follower.poll()
    one, two = follower.unanswered()
    sent_before = trade.chain.anvil.sent(trade.service.address)
    trade.chain.anvil.rpc("evm_setNextBlockTimestamp", one.parameters.exclusive_until - SEND_MARGIN_S)
    trade.chain.anvil.mine()

    in_time = await follower.fulfil(one, RECEIPT, (1,))
    trade.chain.anvil.increase_time(5)
    late = await follower.fulfil(two, RECEIPT, (1,))

    assert in_time.status == "done"
    assert (late.status, late.tx) == ("moot", None)
    assert "the payer could take the answer and cancel" in late.note
    assert trade.chain.anvil.sent(trade.service.address) == sent_before + 1
    assert await trade.reader.open_request(two.number) == two.parameters.hash()
    assert follower.unanswered() == []


async def test_request_whose_exclusive_period_ends_too_soon_is_not_begun(
    trade: Trade, caplog: pytest.LogCaptureFixture
) -> None:
    await ask(trade, exclusive_s=62)
    trade.chain.anvil.increase_time(62 - BEGIN_MARGIN_S)
    await ask(trade, (4, 5))

    request = await first(watcher(trade))

    assert request.ids == (4, 5)
    assert "on-chain request comes too late number=1" in caplog.text


async def test_request_is_cancelled_by_its_payer_alone_after_the_exclusive_period(trade: Trade) -> None:
    await ask(trade)
    follower = watcher(trade)
    request = await first(follower)
    with pytest.raises(RequestsError, match="cancel after exclusiveUntil"):
        await trade.payer.cancel(request.number, request.parameters)
    trade.chain.anvil.increase_time(301)
    with pytest.raises(RequestsError, match="from the account that made the request"):
        await trade.node.cancel(request.number, request.parameters)
    before = await trade.reader.token_balance(trade.payer.account)

    await trade.payer.cancel(request.number, request.parameters)

    assert await trade.reader.token_balance(trade.payer.account) == before + FEE
    assert await trade.reader.open_request(request.number) is None


async def test_answer_of_a_settled_request_is_moot(trade: Trade) -> None:
    await ask(trade)
    follower = watcher(trade)
    request = await first(follower)
    direct = ChainWriter(trade.reader, trade.service)
    await direct.fulfil(request.number, request.parameters, RECEIPT, (1,))

    outcome = await follower.fulfil(request, RECEIPT, (1,))

    assert (outcome.status, outcome.note) == ("moot", "the request was answered, cancelled or refunded already")


async def test_answer_that_never_left_before_a_crash_is_not_sent_late(trade: Trade) -> None:
    await ask(trade)
    request = await first(watcher(trade))
    await _crash_with_a_signed_answer(trade, request)
    sent = trade.chain.anvil.sent(trade.service.address)
    trade.chain.anvil.increase_time(300)

    follower = watcher(trade)
    await follower.resume()

    outcome = follower.outcome(request)
    assert outcome is not None
    assert (outcome.status, outcome.tx) == ("moot", None)
    assert trade.chain.anvil.sent(trade.service.address) == sent


async def test_answer_that_never_left_before_a_crash_is_sent_in_time(trade: Trade) -> None:
    await ask(trade)
    request = await first(watcher(trade))
    await _crash_with_a_signed_answer(trade, request)

    follower = watcher(trade)
    await follower.resume()

    outcome = follower.outcome(request)
    assert outcome is not None
    assert outcome.status == "done"


async def _crash_with_a_signed_answer(trade: Trade, request: OnchainRequest) -> None:
    """Have the answer's transaction on disk, and no endpoint that ever saw it."""
    trade.chain.anvil.automine(on=False)
    task = asyncio.create_task(watcher(trade).fulfil(request, RECEIPT, (1, 2)))
    await eventually(lambda: trade.payee_journal.one("SELECT 1 FROM variants") is not None)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    trade.chain.anvil.rpc("anvil_dropAllTransactions")
    trade.chain.anvil.automine(on=True)


async def test_answer_in_the_open_is_brought_to_its_end_however_late(trade: Trade) -> None:
    await ask(trade)
    request = await first(watcher(trade))
    trade.chain.anvil.automine(on=False)
    task = asyncio.create_task(watcher(trade).fulfil(request, RECEIPT, (1, 2)))
    sent = trade.chain.anvil.sent(trade.service.address)
    await eventually(lambda: trade.chain.anvil.sent(trade.service.address) == sent + 1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    trade.chain.anvil.rpc("evm_increaseTime", 400)
    trade.chain.anvil.automine(on=True)

    follower = watcher(trade)
    await follower.resume()

    outcome = follower.outcome(request)
    assert outcome is not None
    assert outcome.status == "done"
    assert trade.chain.anvil.timestamp() > request.parameters.exclusive_until


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
