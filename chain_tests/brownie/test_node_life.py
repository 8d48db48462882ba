"""A node's life: registered, staked, paid by epochs, given a new key, unbonded, gone."""

from __future__ import annotations

from typing import Any

import clock
from eth_account import Account
from signing import encoded
from world import GATEWAY, MIN_STAKE, UNBONDING_S, World, fee_rounded_up, refused

PER_EPOCH = 60_000_000
EPOCHS = 3
MORE_STAKE = 20_000_000


def test_node_life_brings_stake_and_net_earnings_home(world: World) -> None:
    node, key = world.other_payee, world.other_node_key
    me, before = {"from": node}, world.token.balanceOf(node)
    _join(world, node, key)
    world.open(EPOCHS * PER_EPOCH, payee=node)
    clock.next_epoch()
    for epoch in range(1, EPOCHS + 1):
        world.claim(world.row(epoch * PER_EPOCH, epoch, payee=node), payee=node)
        clock.next_epoch()

    paid = _release_all(world, node)

    net = EPOCHS * (PER_EPOCH - fee_rounded_up(PER_EPOCH))
    assert paid == [MIN_STAKE // 2] * 3 + [net - 3 * MIN_STAKE // 2]
    world.nodes.unbond(MIN_STAKE, me)
    assert (world.nodes.nodeCount(), world.nodes.isActive(node)) == (1, False)
    due = world.nodes.nodeOf(node)["unbondedAt"]
    clock.go_to(due - 1)
    with refused("NodeRegistry_StillUnbonding"):
        world.nodes.withdrawUnbonded.call(me)
    clock.next_block_at(due)
    world.nodes.withdrawUnbonded(me)
    assert world.token.balanceOf(node) == before + net

    world.channels.burn(node, me)
    assert world.token.balanceOf(world.channels) == 0
    assert world.token.balanceOf(world.nodes) == MIN_STAKE, "the other node's"


def test_release_pays_half_of_the_stake_that_an_epoch_has_seen(world: World) -> None:
    node, me = world.payee, {"from": world.payee}
    world.open(4 * MIN_STAKE)
    world.claim(world.row(4 * MIN_STAKE))
    clock.next_epoch()
    with refused("Channels_NothingToRelease"):
        world.channels.release.call(node, me)
    clock.next_epoch()

    assert world.channels.release(node, me).return_value == MIN_STAKE // 2
    with refused("Channels_NothingToRelease"):
        world.channels.release.call(node, me)
    world.nodes.stake(MORE_STAKE, me)
    assert world.channels.release(node, me).return_value == MORE_STAKE // 2
    # Unbonding and staking the same money again buys nothing within the epoch.
    world.nodes.unbond(MORE_STAKE, me)
    world.nodes.stake(MORE_STAKE, me)
    with refused("Channels_NothingToRelease"):
        world.channels.release.call(node, me)

    clock.next_epoch()
    assert world.channels.release(node, me).return_value == (MIN_STAKE + MORE_STAKE) // 2
    clock.next_epoch()
    world.nodes.unbond(MIN_STAKE + MORE_STAKE, me)
    with refused("Channels_NothingToRelease"):
        world.channels.release.call(node, me)


def test_rotated_key_keeps_old_evidence_readable(world: World) -> None:
    node, me, old, new = world.payee, {"from": world.payee}, world.node_key, world.other_node_key
    world.open(MIN_STAKE)
    due = world.channels.exit(node, world.signer.address, {"from": world.payer}).events[0]["exitAt"]
    consent = world.consent(old, 0, due)
    signed_at = clock.now()

    clock.pass_by(60)
    world.nodes.addServiceKey(new.address, *world.key_proof(new, node), me)
    assert world.nodes.nodeOf(node)["serviceKey"] == new.address
    revoked_at = world.nodes.revokeServiceKey(old.address, me).timestamp

    owner, valid_from, revoked = world.nodes.serviceKey(_who_signed(world, consent))
    assert owner == node
    assert valid_from <= signed_at < revoked == revoked_at
    assert list(world.nodes.serviceKeysOf(node)) == [old.address, new.address]
    # Evidence stays; the right to act does not.
    with refused("Channels_BadClose"):
        world.channels.close.call(*consent, {"from": world.payer})
    with refused("NodeRegistry_KeyTaken"):
        world.nodes.addServiceKey.call(old.address, *world.key_proof(old, node), me)
    world.channels.close(*world.consent(new, 0, due), {"from": world.payer})

    world.nodes.revokeServiceKey(new.address, me)
    assert int(world.nodes.nodeOf(node)["serviceKey"], 16) == 0
    assert world.nodes.serviceKey(new.address)[0] == node


def test_second_unbonding_makes_the_first_wait_too(world: World) -> None:
    me = {"from": world.payee}
    world.nodes.stake(MIN_STAKE, me)
    first = world.nodes.unbond(MIN_STAKE, me).timestamp
    assert world.nodes.isActive(world.payee), "the minimum is left"
    clock.go_to(first + UNBONDING_S - 1)
    second = world.nodes.unbond(1, me).events["Unbonded"]

    assert second["unbondedAt"] >= first + 2 * UNBONDING_S - 1
    assert not world.nodes.isActive(world.payee)
    clock.go_to(first + UNBONDING_S)
    with refused("NodeRegistry_StillUnbonding"):
        world.nodes.withdrawUnbonded.call(me)
    clock.go_to(second["unbondedAt"])
    assert world.nodes.withdrawUnbonded(me).events["StakeWithdrawn"]["amount"] == MIN_STAKE + 1


def _join(world: World, node: Any, key: Any) -> None:
    """Register a node step by step: it serves once it has the minimum stake, not before."""
    me = {"from": node}
    with refused("NodeRegistry_UnknownNode"):
        world.nodes.stake.call(MIN_STAKE, me)
    world.nodes.register(GATEWAY, "http://127.0.0.1:2", b"\x02" * 32, me)
    world.nodes.addServiceKey(key.address, *world.key_proof(key, node), me)
    world.nodes.stake(MIN_STAKE - 1, me)
    assert (world.nodes.nodeCount(), world.nodes.serves(node, GATEWAY)) == (1, False)
    world.nodes.stake(1, me)
    assert (world.nodes.nodeCount(), world.nodes.serves(node, GATEWAY)) == (2, True)


def _release_all(world: World, node: Any) -> list[int]:
    """Release once an epoch until nothing is pending; return what each epoch paid."""
    paid = []
    while sum(world.channels.pendingOf(node)):
        paid.append(world.channels.release(node, {"from": world.stranger}).return_value)
        clock.next_epoch()
    return paid


def _who_signed(world: World, consent: tuple[Any, ...]) -> str:
    """Recover the key from a consent to close before any claim, as an auditor does."""
    *who, r, vs = consent
    message = dict(zip(("payer", "payee", "signer"), who, strict=True))
    exit_at = world.slot()[2]
    whole = int.from_bytes(vs, "big")
    parts = (27 + (whole >> 255), int.from_bytes(r, "big"), whole % (1 << 255))
    signable = encoded(world.channels.address, "Close", {**message, "claimed": 0, "exitAt": exit_at})
    return Account.recover_message(signable, vrs=parts)
