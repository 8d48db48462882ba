"""A payer's life: opened, paid, topped up, left, withdrawn, opened again."""

from __future__ import annotations

import clock
from world import EXIT_DELAY_S, World, refused

DEPOSIT = 5_000_000
MORE = 3_000_000


def test_payer_life_costs_exactly_what_was_claimed(world: World) -> None:
    before = world.token.balanceOf(world.payer)
    me, channel = {"from": world.payer}, (world.payee, world.signer.address)
    vouchers = [world.row(cumulative, jobs) for jobs, cumulative in enumerate((1_000_000, 2_500_000, 6_000_000), 1)]

    world.open(DEPOSIT)
    with refused("Channels_AlreadyOpen"):
        world.channels.open.call(*channel, DEPOSIT, me)
    assert [world.claim(voucher).events["VoucherClaimed"]["jobs"] for voucher in vouchers[:2]] == [1, 2]

    topped_up = world.channels.topUp(*channel, MORE, me)
    assert topped_up.events["ChannelToppedUp"]["deposit"] == DEPOSIT + MORE
    assert world.claim(vouchers[2]).return_value == 3_500_000

    _leave(world)
    assert world.token.balanceOf(world.payer) == before - 6_000_000
    assert world.slot() == (6_000_000, 6_000_000, 0, 3)

    reopened = world.open(DEPOSIT)
    assert reopened.events["ChannelOpened"]["deposit"] == 6_000_000 + DEPOSIT
    replayed = world.claim(*vouchers)
    assert replayed.return_value == 0
    assert replayed.events["RowsSkipped"]["bitmap"] == 0b111
    assert "Accrued" not in replayed.events

    assert world.claim(world.row(6_000_001, jobs=4)).return_value == 1
    _leave(world)
    assert world.token.balanceOf(world.payer) == before - 6_000_001
    assert world.channels.accountOf(world.payee)["earned"] == 6_000_001


def test_exit_once_started_takes_no_money_and_keeps_its_time(world: World) -> None:
    me, channel = {"from": world.payer}, (world.payee, world.signer.address)
    with refused("Channels_UnknownChannel"):
        world.channels.topUp.call(*channel, MORE, me)
    world.open(DEPOSIT)
    started = world.channels.exit(*channel, me)
    due = started.timestamp + EXIT_DELAY_S
    assert started.events["ExitStarted"]["exitAt"] == due

    with refused("Channels_Exiting"):
        world.channels.topUp.call(*channel, MORE, me)
    with refused("Channels_Exiting"):
        world.channels.exit.call(*channel, me)
    world.claim(world.row(DEPOSIT))
    # All is claimed, so only the exit itself keeps the channel from being opened again.
    with refused("Channels_Exiting"):
        world.channels.open.call(*channel, MORE, me)
    clock.go_to(due - 1)
    with refused("Channels_ExitNotDue"):
        world.channels.withdraw.call(*channel, me)

    clock.next_block_at(due)
    ended = world.channels.withdraw(*channel, me)
    assert ended.events["ChannelWithdrawn"]["amount"] == 0
    with refused("Channels_NotExiting"):
        world.channels.withdraw.call(*channel, me)
    with refused("Channels_NothingLeft"):
        world.channels.exit.call(*channel, me)


def test_voucher_above_the_deposit_waits_for_money(world: World) -> None:
    world.open(DEPOSIT)
    above = world.row(DEPOSIT + MORE)
    assert world.claim(above).return_value == 0

    world.channels.topUp(world.payee, world.signer.address, MORE, {"from": world.payer})

    assert world.claim(above).return_value == DEPOSIT + MORE


def test_fresh_signer_leaves_vouchers_of_the_old_one_without_force(world: World) -> None:
    world.open(DEPOSIT)
    never_claimed = world.row(4_000_000)
    _leave(world)

    world.open(DEPOSIT, signer=world.other_signer)

    assert world.claim(never_claimed).return_value == 0
    assert world.slot(signer=world.other_signer) == (DEPOSIT, 0, 0, 0)


def test_close_pays_the_payer_at_once_over_exactly_the_agreed_state(world: World) -> None:
    before = world.token.balanceOf(world.payer)
    world.open(DEPOSIT)
    due = world.channels.exit(world.payee, world.signer.address, {"from": world.payer}).events[0]["exitAt"]
    clock.pass_by(1)
    stale = world.consent(world.node_key, 0, due)
    world.claim(world.row(1_000_000))
    with refused("Channels_BadClose"):
        world.channels.close.call(*stale, {"from": world.payer})
    own = world.consent(world.signer, 1_000_000, due)
    with refused("Channels_BadClose"):
        world.channels.close.call(*own, {"from": world.payer})

    agreed = world.consent(world.node_key, 1_000_000, due)
    world.channels.close(*agreed, {"from": world.stranger})

    assert world.token.balanceOf(world.payer) == before - 1_000_000
    with refused("Channels_NotExiting"):
        world.channels.close.call(*agreed, {"from": world.payer})


def _leave(world: World) -> None:
    channel, me = (world.payee, world.signer.address), {"from": world.payer}
    due = world.channels.exit(*channel, me).events["ExitStarted"]["exitAt"]
    clock.go_to(due)
    world.channels.withdraw(*channel, me)
