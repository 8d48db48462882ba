"""A channel's life: opened, claimed, left, withdrawn, paid out."""

from __future__ import annotations

import brownie
from brownie import chain
from clock import EPOCH_S
from world import EXIT_DELAY_S, World

DEPOSIT = 5_000_000


def test_channel_life_pays_exactly_what_was_signed(world: World) -> None:
    before = world.token.balanceOf(world.payer)
    opened = world.open(DEPOSIT)
    assert opened.events["ChannelOpened"]["deposit"] == DEPOSIT

    claimed = world.claim(world.row(1_000_000))
    assert claimed.events["VoucherClaimed"]["cumulative"] == 1_000_000
    assert claimed.events["Accrued"]["fee"] == 10_000

    left = world.channels.exit(world.payee, world.signer.address, {"from": world.payer})
    due = left.events["ExitStarted"]["exitAt"]
    with brownie.reverts():
        world.channels.withdraw(world.payee, world.signer.address, {"from": world.payer})

    # A claim still counts while the exit runs, and does not move it.
    world.claim(world.row(2_000_000, jobs=2))
    assert world.slot() == (DEPOSIT, 2_000_000, due, 2)

    chain.sleep(EXIT_DELAY_S + 1)
    chain.mine()
    world.channels.withdraw(world.payee, world.signer.address, {"from": world.payer})
    assert world.token.balanceOf(world.payer) == before - 2_000_000
    assert world.slot() == (2_000_000, 2_000_000, 0, 2)

    chain.sleep(2 * EPOCH_S)
    chain.mine()
    paid = world.channels.release(world.payee, {"from": world.payer})
    assert paid.events["Released"]["amount"] == 1_980_000
    world.channels.burn(world.payee, {"from": world.payer})
    assert world.token.balanceOf(world.channels) == 0


def test_claim_with_old_voucher_after_reopening_pays_nothing(world: World) -> None:
    world.open(DEPOSIT)
    old = world.row(3_000_000)
    world.claim(old)
    world.channels.exit(world.payee, world.signer.address, {"from": world.payer})
    chain.sleep(EXIT_DELAY_S + 1)
    chain.mine()
    world.channels.withdraw(world.payee, world.signer.address, {"from": world.payer})
    world.open(DEPOSIT)

    replayed = world.claim(old)

    assert replayed.events["RowsSkipped"]["bitmap"] == 1
    assert world.slot()[1] == 3_000_000


def test_claim_with_forged_row_lands_the_others(world: World) -> None:
    world.open(DEPOSIT)
    forged = world.row(4_000_000, key=world.node_key)

    claimed = world.claim(forged, world.row(1_000_000))

    assert claimed.events["RowsSkipped"]["bitmap"] == 1
    assert world.slot()[1] == 1_000_000
