"""Payments to stages: in order, again after a lost link, and not lost with the process."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.node.stage.network import Node
from tests.node.wire.peers import DOMAIN
from tests.node.worker.world import ACK_S, World, leaf_of, until, world

from plait.ledger import Journal, PayerBook
from plait.protocol.ids import to_hex
from plait_node.wire import WireError
from plait_node.worker import HopDesk

PROMPT = [token % 60 for token in range(20)]


def head_of(made: World, node: Node) -> int:
    return made.book.channel(node.identity.owner).cumulative


async def test_hop_payments_of_a_restarted_worker_go_on_where_the_stage_stands(tmp_path: Path) -> None:
    """The journal is all that is left; the stage takes what it knows as repeated, and then what is new."""
    async with world(tmp_path) as made:
        await (await made.asking(PROMPT, max_tokens=4)).run()
        await made.settled()
        node = made.net.nodes[0]
        book = PayerBook(Journal(tmp_path / "worker.db"), DOMAIN, made.who.key, payer=made.who.owner)
        desk = HopDesk(channel=book.channel, pool=made.pool, domain=DOMAIN, directory=made.net.directory, ack_s=ACK_S)
        made.pool.take_acks(desk.take_ack)
        asked = await made.asking(PROMPT, max_tokens=4)
        await desk.send(node.identity.owner, lambda channel: channel.pay(asked.digest, 5, 0), None)
        assert await desk.acknowledged(node.identity.owner)


async def test_hop_payment_the_stage_never_saw_is_sent_first_on_the_next_link(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        await (await made.asking(PROMPT, max_tokens=4)).run()
        await made.settled()
        node = made.net.nodes[0]
        lost = await made.asking(PROMPT, max_tokens=4)
        link = next(each for each in node.role._neighbours.all() if each.peer == made.who.owner)
        await link.close("gone")
        await until(lambda: not made.pool.alive(node.identity.owner))
        with pytest.raises(WireError):
            await made.desk.send(node.identity.owner, lambda channel: channel.pay(lost.digest, 7, 0), None)
        asked = await made.asking(PROMPT, max_tokens=4)
        assert await asked.run() == asked.expected(4)
        await made.settled()
        assert leaf_of(made, asked, node) is not None


async def test_hop_payments_of_two_jobs_reach_a_stage_in_the_order_of_its_channel(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        pair = [await made.asking([n, *PROMPT], max_tokens=70) for n in range(2)]
        await asyncio.gather(*(asked.run() for asked in pair))
        await made.settled()
        for node in made.net.nodes:
            leaves = [leaf_of(made, asked, node) for asked in pair]
            assert all(leaf is not None for leaf in leaves)
            assert head_of(made, node) == sum(leaf.hop_amount for leaf in leaves if leaf is not None)


class SilentTill:
    """Takes money and says nothing."""

    async def take(self, *_: object) -> object:
        await asyncio.sleep(3_600)
        raise AssertionError


async def test_stage_that_never_acknowledges_is_blamed(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        made.desk.ack_s = 0.5
        node = made.net.nodes[1]
        node.role._till = SilentTill()  # type: ignore[assignment]
        asked = await made.asking(PROMPT, max_tokens=4)
        await asked.run()
        assert asked.error is not None
        assert to_hex(node.identity.owner) in asked.error.error.text
        assert "acknowledge" in asked.error.error.text


async def test_stage_whose_link_ends_is_not_waited_for(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        made.desk.ack_s = 60
        node = made.net.nodes[1]
        node.role._till = SilentTill()  # type: ignore[assignment]
        asked = await made.asking(PROMPT, max_tokens=4)
        answering = asyncio.create_task(asked.run())
        await until(lambda: any(job.hash for job in node.role._jobs))
        link = next(each for each in node.role._neighbours.all() if each.peer == made.who.owner)
        await link.close("gone")
        async with asyncio.timeout(50):
            await answering
        assert asked.error is not None
        assert to_hex(node.identity.owner) in asked.error.error.text
