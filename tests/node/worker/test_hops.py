"""Payments to stages: in order, again after a lost link, and not lost with the process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from tests.node.stage.network import Node, Slot
from tests.node.wire.peers import DOMAIN
from tests.node.worker.test_takeover import dies, restarted
from tests.node.worker.world import ACK_S, World, leaf_of, until, world

from plait.ledger import Journal, PayerBook, PayerChannel
from plait.protocol.codec import fault_to_pb, signed_to_pb, to_pb
from plait.protocol.errors import Fault
from plait.protocol.ids import Hash, to_hex
from plait.protocol.pb import signed_pb2, stage_pb2
from plait.protocol.typed import Key
from plait_node.stage.payments import HopPay
from plait_node.wire import Link, WireError
from plait_node.worker import HopDesk

PROMPT = [token % 60 for token in range(20)]


def channel_of(made: World, node: Node) -> PayerChannel:
    return made.book.channel(node.identity.owner)


def head_of(made: World, node: Node) -> int:
    return channel_of(made, node).cumulative


async def test_hop_payments_of_a_restarted_worker_go_on_where_the_stage_stands(tmp_path: Path) -> None:
    """The journal is all that is left; the stage takes what it knows as repeated, and then what is new."""
    async with world(tmp_path) as made:
        await (await made.asking(PROMPT, max_tokens=4)).run()
        await made.settled()
        node = made.net.nodes[0]
        book = PayerBook(Journal(tmp_path / "worker.db"), DOMAIN, made.who.key, payer=made.who.owner)
        desk = HopDesk(channel=book.channel, pool=made.pool, domain=DOMAIN, directory=made.net.directory, ack_s=ACK_S)
        made.pool.report_to(desk)
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


def deafen(node: Node) -> Callable[[], None]:
    """Let a stage lose all payments, as a link that ends does; return how to mend it."""
    hears = node.role._pay

    async def lose(_link: object, _paid: object) -> None:
        pass

    node.role._pay = lose  # type: ignore[method-assign, assignment]

    def mend() -> None:
        node.role._pay = hears  # type: ignore[method-assign]

    return mend


@pytest.mark.parametrize("lost", [1, 3], ids=["one-job", "more-than-are-sent-again"])
async def test_payments_lost_with_the_worker_are_made_good_while_the_stage_still_keeps_the_jobs(
    tmp_path: Path, lost: int
) -> None:
    """The new process has the vouchers in its journal, and nothing of what the payers signed."""
    async with world(tmp_path) as made:
        made.desk.ack_s = 0.3
        node = made.net.nodes[0]
        await (await made.asking(PROMPT, max_tokens=4)).run()
        await made.settled()
        mend = deafen(node)
        for _ in range(lost):
            unpaid = await made.asking(PROMPT, max_tokens=4)
            await unpaid.run()
            assert unpaid.error is not None
        await until(lambda: not made.role.busy)
        await dies(made)
        mend()
        restarted(made)
        made.serving = asyncio.create_task(made.role.run())
        asked = await made.asking(PROMPT, max_tokens=4)
        assert await asked.run() == asked.expected(4)
        await made.settled()
        assert leaf_of(made, asked, node) is not None


async def test_stage_that_forgot_everything_is_sent_the_whole_channel_bit_by_bit(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        node = made.net.nodes[0]
        channel = channel_of(made, node)
        for number in range(1, 61):
            channel.pay(Hash(bytes([number]) * 32), number, 0)
        asked = await made.asking(PROMPT, max_tokens=4)
        assert await asked.run() == asked.expected(4)
        await made.settled()
        assert not node.blames
        assert made.pool.number(node.identity.owner) == 1  # no link was lost over it


async def test_channel_that_was_not_funded_while_many_jobs_came_is_paid_once_it_is(tmp_path: Path) -> None:
    """The operator opens channels by hand: what was refused is sent again over the same link."""
    async with world(tmp_path, unpaid_s=0.0) as made:
        made.desk.ack_s = 0.3
        node = made.net.nodes[0]
        await (await made.asking(PROMPT, max_tokens=4)).run()
        await made.settled()
        slot = (made.who.owner, node.identity.owner, made.who.key.address)
        made.net.channels.slots[slot] = Slot(deposit=1)
        node.role._till._till._slots.clear()
        for number in range(1, 21):
            request = Hash(bytes([number]) * 32)
            await made.desk.send(node.identity.owner, partial(PayerChannel.pay, request=request, amount=9, to=0), None)
        assert not await made.desk.acknowledged(node.identity.owner)
        made.desk.ack_s = ACK_S
        for each in made.desk._counter(node.identity.owner).under_way:
            each.due_at -= 2 * ACK_S  # as if it had been sent long ago
        made.net.channels.slots[slot] = Slot()
        asked = await made.asking(PROMPT, max_tokens=4)
        assert await asked.run() == asked.expected(4)
        await made.settled()
        assert made.pool.number(node.identity.owner) == 1


async def test_stage_that_lacks_the_same_payments_again_is_not_sent_them_again(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        made.desk.ack_s = 0.5
        node = made.net.nodes[0]
        await (await made.asking(PROMPT, max_tokens=4)).run()
        await made.settled()
        heard = 0

        async def refuse(link: Link, paid: HopPay) -> None:
            nonlocal heard
            heard += 1
            fault = Fault(code="stale_voucher", text="never enough", retry=False)
            told = stage_pb2.JobFault(job=paid.payment.pay.message.request, fault=fault_to_pb(fault))
            await link.send(stage_pb2.Frame(fault=told))

        node.role._pay = refuse  # type: ignore[method-assign, assignment]
        asked = await made.asking(PROMPT, max_tokens=4)
        await asked.run()
        assert asked.error is not None
        assert to_hex(node.identity.owner) in asked.error.error.text
        await until(lambda: not made.role.busy)
        assert heard < 6 * len(channel_of(made, node).recover(None))


async def test_stage_that_stands_where_no_voucher_of_ours_leads_is_sent_nothing_and_the_worker_lives(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as made:
        made.desk.ack_s = 0.5
        node = made.net.nodes[0]
        await (await made.asking(PROMPT, max_tokens=4)).run()
        await made.settled()
        voucher = channel_of(made, node).latest(1)[0].voucher
        stranger = Key.generate().signed(DOMAIN, voucher.message)
        further = made.who.key.signed(DOMAIN, replace(voucher.message, cumulative=1_000_000))
        short = signed_pb2.SignedVoucher(message=to_pb(voucher.message), signature=b"short")
        short.message.receipts_root = b"short"
        link = next(each for each in node.role._neighbours.all() if each.peer == made.who.owner)
        fault = fault_to_pb(Fault(code="stale_voucher", text="where is it?", retry=False))
        for stands in (signed_to_pb(stranger), signed_to_pb(further), short):
            told = stage_pb2.JobFault(job=bytes(32), fault=fault, stands=stands)
            await link.send(stage_pb2.Frame(fault=told))
        await until(lambda: link.closed)  # what has not the form of a voucher is accused
        assert channel_of(made, node).latest(1)[0].voucher == voucher
        asked = await made.asking(PROMPT, max_tokens=4)
        assert await asked.run() == asked.expected(4)


class SilentTill:
    """Takes money and says nothing."""

    async def take(self, *_: object, **__: object) -> object:
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
        hears = node.role._till
        node.role._till = SilentTill()  # type: ignore[assignment]
        asked = await made.asking(PROMPT, max_tokens=4)
        answering = asyncio.create_task(asked.run())
        await until(lambda: any(job.hash for job in node.role._jobs))
        link = next(each for each in node.role._neighbours.all() if each.peer == made.who.owner)
        node.role._till = hears
        await link.close("gone")
        async with asyncio.timeout(50):
            assert await answering == asked.expected(4)  # it was asked again over the next link
        assert asked.error is None
