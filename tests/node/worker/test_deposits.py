"""New pairs: the stage's credit serves while the channel is opened, and what is owed is paid once it is."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.node.stage.network import Node, Slot
from tests.node.worker.world import World, leaf_of, until, world

from plait.protocol.ids import Address

PROMPT = [token % 60 for token in range(20)]


class Ledger:
    """An opener that has read a channel only when the test says so."""

    def __init__(self) -> None:
        self.held: dict[Address, int] = {}
        self.asked: list[tuple[Address, int]] = []

    def covers(self, payee: Address, cumulative: int, /) -> bool:
        self.asked.append((payee, cumulative))
        return cumulative <= self.held.get(payee, -1)


def watched(made: World) -> Ledger:
    """Take all channels of the worker away, and let it know what is open."""
    ledger = Ledger()
    made.desk._deposits = ledger
    for node in made.net.nodes:
        del made.net.channels.slots[slot_of(made, node)]
    return ledger


def slot_of(made: World, node: Node) -> tuple[Address, Address, Address]:
    return made.who.owner, node.identity.owner, made.who.key.address


async def open_all(made: World, ledger: Ledger, deposit: int) -> None:
    for node in made.net.nodes:
        made.net.channels.slots[slot_of(made, node)] = Slot(deposit=deposit)
        ledger.held[node.identity.owner] = deposit
        await made.desk.funded(node.identity.owner)


async def test_new_pair_works_on_credit_and_is_paid_when_its_channel_opens(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        ledger = watched(made)
        asked = await made.asking_long(PROMPT, max_tokens=12)
        assert await asked.run() == asked.expected(12)
        await until(lambda: not made.role.busy)
        assert made.net.paid == []
        assert {owner for owner, _ in ledger.asked} == {node.identity.owner for node in made.net.nodes}

        await open_all(made, ledger, 10_000)

        for node in made.net.nodes:
            assert await made.desk.acknowledged(node.identity.owner)
            leaf = leaf_of(made, asked, node)
            assert leaf is not None
            assert made.book.channel(node.identity.owner).cumulative == leaf.hop_amount


async def test_prompt_beyond_the_credit_line_goes_on_once_the_channel_is_open(tmp_path: Path) -> None:
    async with world(tmp_path, unpaid_s=5.0) as made:
        ledger = watched(made)
        asked = await made.asking_long([token % 60 for token in range(100)], max_tokens=12)
        running = asyncio.create_task(asked.run())
        await until(lambda: len({owner for owner, _ in ledger.asked}) == len(made.net.nodes))
        await asyncio.sleep(0.5)
        assert not asked.verifier.ids
        await open_all(made, ledger, 10_000)
        assert await running == asked.expected(12)
        await made.settled()


async def test_voucher_beyond_the_deposit_is_held_back_until_the_top_up(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        ledger = watched(made)
        await open_all(made, ledger, 1)
        asked = await made.asking_long(PROMPT, max_tokens=12)
        assert await asked.run() == asked.expected(12)
        await until(lambda: not made.role.busy)
        assert made.net.paid == []

        await open_all(made, ledger, 10_000)

        for node in made.net.nodes:
            assert await made.desk.acknowledged(node.identity.owner)
        assert set(made.net.paid) == {node.identity.owner for node in made.net.nodes}


async def test_channel_funded_while_its_stage_is_away_is_paid_with_the_next_link(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        ledger, node = watched(made), made.net.nodes[0]
        asked = await made.asking_long(PROMPT, max_tokens=12)
        await asked.run()
        await until(lambda: not made.role.busy)
        link = next(each for each in node.role._neighbours.all() if each.peer == made.who.owner)
        await link.close("gone")
        await until(lambda: not made.pool.alive(node.identity.owner))
        await open_all(made, ledger, 10_000)
        again = await made.asking_long(PROMPT, max_tokens=12)
        assert await again.run() == again.expected(12)
        await made.settled()
        assert leaf_of(made, asked, node) is not None
        assert node.identity.owner in made.net.paid
