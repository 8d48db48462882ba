"""The life of a channel on a real chain: open, claim, exit, close, pay out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from chain_tests.channel_cases import DEPOSIT, STAKE, Trade

from plait.chain import ChannelsError, DecodedEvent, TxResult, skipped_rows
from plait.protocol.receipts import ClaimRow
from plait.protocol.typed import Signed


def rows(trade: Trade) -> list[ClaimRow]:
    return [each.row() for each in trade.book.rounds()]


def names(result: TxResult) -> list[str]:
    return [event.name for event in result.events if isinstance(event, DecodedEvent)]


async def test_claim_pays_what_the_voucher_grew(trade: Trade) -> None:
    await trade.job(1, 1_000)
    await trade.job(2, 500)

    result = await trade.node.claim(trade.payee, rows(trade)[:1])

    assert names(result) == ["VoucherClaimed", "Accrued"]
    slot = await trade.reader.channel_by_id(trade.channel.id)
    assert (slot.deposit, slot.claimed, slot.jobs, slot.exit_at) == (DEPOSIT, 1_000, 1, 0)
    earnings = await trade.reader.earnings(trade.payee)
    assert (earnings.earned, earnings.fee, earnings.maturing, earnings.mature) == (1_000, 10, 990, 0)
    assert await trade.reader.pending(trade.payee) == 990
    assert await trade.reader.reputation(trade.payee) == 10


async def test_claim_with_bad_rows_pays_the_good_ones(trade: Trade) -> None:
    await trade.job(1, 1_000)
    await trade.job(2, 500)
    first, second = rows(trade)
    forged = replace(second, cumulative=9_999)

    result = await trade.node.claim(trade.payee, [forged, second, first])

    assert skipped_rows(result) == (0, 2)
    slot = await trade.reader.channel_by_id(trade.channel.id)
    assert (slot.claimed, slot.jobs) == (1_500, 2)


async def test_top_up_adds_to_the_deposit(trade: Trade) -> None:
    await trade.payer.top_up(trade.payee, trade.session.address, 5)

    slot = await trade.reader.channel(trade.payer.account, trade.payee, trade.session.address)

    assert slot.deposit == DEPOSIT + 5
    with pytest.raises(ChannelsError, match="top it up"):
        await trade.payer.open_channel(trade.payee, trade.session.address, 5)


async def test_exit_pays_the_rest_back_once_it_is_due(trade: Trade) -> None:
    await trade.job(1, 1_000)
    before = await trade.reader.token_balance(trade.payer.account)
    await trade.payer.exit(trade.payee, trade.session.address)
    with pytest.raises(ChannelsError) as caught:
        await trade.payer.withdraw(trade.payee, trade.session.address)
    assert caught.value.error == "Channels_ExitNotDue"
    await trade.node.claim(trade.payee, rows(trade))

    trade.chain.anvil.increase_time(trade.chain.deployment.parameters.exit_delay + 1)
    await trade.payer.withdraw(trade.payee, trade.session.address)

    assert await trade.reader.token_balance(trade.payer.account) == before + DEPOSIT - 1_000
    slot = await trade.reader.channel_by_id(trade.channel.id)
    assert (slot.deposit, slot.claimed, slot.exit_at) == (1_000, 1_000, 0)


async def test_close_with_the_payees_consent_pays_back_at_once(trade: Trade) -> None:
    await trade.job(1, 1_000)
    await trade.node.claim(trade.payee, rows(trade))
    before = await trade.reader.token_balance(trade.payer.account)
    await trade.payer.exit(trade.payee, trade.session.address)
    slot = await trade.reader.channel_by_id(trade.channel.id)
    close = trade.book.consent_to_close(trade.channel.id, claimed=slot.claimed, exit_at=slot.exit_at)
    signature = trade.service.sign(trade.chain.deployment.domain, close)

    trade.chain.anvil.increase_time(1)  # no close in the exit's own second
    await trade.payer.close_channel(Signed(message=close, signature=signature))

    assert await trade.reader.token_balance(trade.payer.account) == before + DEPOSIT - 1_000


async def test_release_pays_what_matured_and_burn_destroys_the_fee(trade: Trade) -> None:
    await trade.job(1, 1_000)
    await trade.node.claim(trade.payee, rows(trade))
    with pytest.raises(ChannelsError) as caught:
        await trade.node.release(trade.payee)
    assert caught.value.error == "Channels_NothingToRelease"

    trade.chain.anvil.increase_time(2 * trade.chain.deployment.parameters.epoch_length)
    await trade.node.release(trade.payee)
    await trade.node.burn(trade.payee)

    assert await trade.reader.token_balance(trade.payee) == 990
    earnings = await trade.reader.earnings(trade.payee)
    assert (earnings.released, earnings.burned, earnings.mature) == (990, 10, 0)
    node = await trade.reader.node(trade.payee)
    assert node is not None
    assert node.stake == STAKE
