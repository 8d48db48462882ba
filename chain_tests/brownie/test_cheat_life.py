"""A cheat's life: a burst of claims, a rush for the exit, the arbiter in time; and what it tries besides."""

from __future__ import annotations

from typing import Any

import clock
import pytest
from brownie import accounts
from signing import Row, key_of
from world import EXIT_DELAY_S, MIN_STAKE, RICH, UNBONDING_S, World, fee_rounded_up, refused

BURST = 10_000_000
SYBILS = 8
HONEST = 7_000_000
DEPOSIT = 20_000_000


def test_cheat_life_ends_with_the_arbiter_and_leaves_others_whole(world: World) -> None:
    cheat, me, before = world.other_payee, {"from": world.other_payee}, world.token.balanceOf(world.payer)
    world.join(cheat, world.other_node_key)
    clock.next_epoch()
    clock.pass_by(60)
    _earn_honestly(world)
    _burst(world, cheat)
    claimed_at = clock.now()

    world.nodes.unbond(MIN_STAKE, me)
    due = world.nodes.nodeOf(cheat)["unbondedAt"]
    for _ in range(2):
        with refused("Channels_NothingToRelease"):
            world.channels.release.call(cheat, me)
        clock.next_epoch()
    assert clock.now() < due, "the stake is still there when the money matures"
    assert tuple(world.channels.pendingOf(cheat)) == (0, _net(SYBILS * BURST))
    with refused("Channels_NothingToRelease"):
        world.channels.release.call(cheat, me)

    _punish(world, cheat)
    clock.go_to(max(due, claimed_at + EXIT_DELAY_S))
    with refused("NodeRegistry_NothingUnbonding"):
        world.nodes.withdrawUnbonded.call(me)
    assert world.token.balanceOf(cheat) == RICH - MIN_STAKE - SYBILS * BURST

    assert world.channels.release(world.payee, {"from": world.payee}).return_value == _net(HONEST)
    world.channels.withdraw(world.payee, world.signer.address, {"from": world.payer})
    assert world.token.balanceOf(world.payer) == before - HONEST
    for payee in (world.payee, cheat):
        world.channels.burn(payee, {"from": world.stranger})
    assert world.token.balanceOf(world.channels) == 0
    assert world.nodes.isActive(world.payee)


def test_jail_holds_mature_money_and_unbonded_stake(world: World) -> None:
    cheat, me = world.payee, {"from": world.payee}
    world.open(DEPOSIT)
    world.claim(world.row(BURST))
    world.nodes.unbond(MIN_STAKE // 2, me)
    clock.next_epoch(4)
    free_at = clock.now() + UNBONDING_S
    world.nodes.jail(cheat, free_at, {"from": world.arbiter})

    with refused("Channels_PayeeJailed"):
        world.channels.release.call(cheat, me)
    with refused("NodeRegistry_Jailed"):
        world.nodes.withdrawUnbonded.call(me)
    for act in (world.nodes.slash, world.nodes.jail):
        with refused("NodeRegistry_CallerNotArbiter"):
            act.call(world.other_payee, 1, me)
    with refused("Channels_CallerNotArbiter"):
        world.channels.forfeit.call(world.other_payee, me)

    # Jail alone takes nothing: cleared, the node gets all of it.
    clock.go_to(free_at)
    world.nodes.withdrawUnbonded(me)
    assert world.channels.release(cheat, me).return_value == _net(BURST)


@pytest.mark.parametrize("change", [Row.other_parity, Row.other_half, Row.other_r])
def test_changed_signature_pays_no_second_time(world: World, change: Any) -> None:
    world.open(DEPOSIT)
    row = world.row(BURST)

    first = world.claim(change(row))
    assert first.return_value == 0
    assert first.events["RowsSkipped"]["bitmap"] == 1

    assert world.claim(row).return_value == BURST
    assert world.claim(change(row), row).return_value == 0


def test_old_vouchers_pay_nothing_in_any_order(world: World) -> None:
    world.open(DEPOSIT)
    rows = [world.row(step * 1_000_000, jobs=step) for step in range(1, 6)]
    world.claim(rows[4])

    replayed = world.claim(*reversed(rows), *rows)

    assert replayed.return_value == 0
    assert replayed.events["RowsSkipped"]["bitmap"] == 0b11_1111_1111
    assert world.slot()[1] == 5_000_000


def test_foreign_rows_pay_only_whom_they_name(world: World) -> None:
    cheat = world.other_payee
    world.join(cheat, world.other_node_key)
    world.open(DEPOSIT)
    world.open(DEPOSIT, payee=cheat)
    row = world.row(BURST)

    stolen = world.claim(row, payee=cheat)
    assert stolen.return_value == 0
    assert world.channels.accountOf(cheat)["earned"] == 0

    # Anybody may bring a row; it pays its payee.
    assert world.claim(row, sender=cheat).return_value == BURST
    assert world.channels.accountOf(world.payee)["earned"] == BURST


def test_row_in_the_name_of_another_payer_pays_nothing(world: World) -> None:
    world.open(DEPOSIT)
    world.open(DEPOSIT, payer=world.other_payer, signer=world.other_signer)

    taken = world.claim(world.row(BURST, payer=world.other_payer), world.row(BURST, key=world.node_key))

    assert taken.return_value == 0
    assert taken.events["RowsSkipped"]["bitmap"] == 0b11


def test_key_of_another_node_cannot_be_had(world: World) -> None:
    cheat, me, key = world.other_payee, {"from": world.other_payee}, world.node_key
    world.join(cheat, world.other_node_key)

    with refused("NodeRegistry_KeyTaken"):
        world.nodes.addServiceKey.call(key.address, *world.key_proof(key, cheat), me)
    world.nodes.revokeServiceKey(key.address, {"from": world.payee})
    with refused("NodeRegistry_KeyTaken"):
        world.nodes.addServiceKey.call(key.address, *world.key_proof(key, cheat), me)
    fresh = key_of("fresh")
    with refused("NodeRegistry_BadKeyProof"):
        world.nodes.addServiceKey.call(fresh.address, *world.key_proof(fresh, world.payee), me)
    with refused("NodeRegistry_KeyNotOwned"):
        world.nodes.revokeServiceKey.call(key.address, me)
    assert world.nodes.serviceKey(key.address)[0] == world.payee


def _earn_honestly(world: World) -> None:
    world.open(DEPOSIT)
    world.claim(world.row(HONEST))
    world.channels.exit(world.payee, world.signer.address, {"from": world.payer})


def _burst(world: World, cheat: Any) -> None:
    """Claim at once what made-up payers signed; the cheat brought all of that money itself."""
    rows = []
    for index in range(SYBILS):
        signer = key_of(f"sybil {index}")
        payer = accounts.add(signer.key)
        accounts[0].transfer(payer, "1 ether", silent=True)
        world.token.transfer(payer, BURST, {"from": cheat})
        world.token.approve(world.channels, BURST, {"from": payer})
        world.open(BURST, payer=payer, payee=cheat, signer=signer)
        rows.append(world.row(BURST, key=signer, payer=payer, payee=cheat))
    assert world.claim(*rows, payee=cheat).return_value == SYBILS * BURST


def _punish(world: World, cheat: Any) -> None:
    arbiter = {"from": world.arbiter}
    score = world.reputation.scoreOf(cheat)
    world.nodes.jail(cheat, clock.now() + UNBONDING_S, arbiter)
    slashed = world.nodes.slash(cheat, 2**96 - 1, arbiter)
    forfeited = world.channels.forfeit(cheat, arbiter)

    net = _net(SYBILS * BURST)
    assert (slashed.return_value, forfeited.return_value) == (MIN_STAKE, net)
    assert world.token.balanceOf(world.arbiter) == MIN_STAKE + net
    assert tuple(world.channels.pendingOf(cheat)) == (0, 0)
    assert (score, world.reputation.scoreOf(cheat)) == (fee_rounded_up(SYBILS * BURST), 0)
    with refused("Channels_NothingPending"):
        world.channels.forfeit.call(cheat, arbiter)


def _net(amount: int) -> int:
    return amount - fee_rounded_up(amount)
