from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.node.stage.driver import FaultError, driver
from tests.node.stage.network import Slot, network
from tests.node.wire.peers import DOMAIN

from plait.ledger import Journal, PayerBook
from plait.protocol.codec import payment_to_pb, signed_from_pb
from plait.protocol.ids import HASH_ZERO
from plait.protocol.messages import Ack, Stage, Voucher
from plait.protocol.money import stage_fee_of
from plait.protocol.pb import stage_pb2 as pb
from plait.protocol.receipts import RECEIPT, ReceiptLeaf
from plait.protocol.typed import Key, random_hash
from plait.protocol.windows import Cut
from plait_node.disk import Disk
from plait_node.stage.credit import CreditLine

PROMPT = [(3 * at + 2) % 60 for at in range(90)]


async def test_unpaid_work_stops_at_the_credit_line(tmp_path: Path) -> None:
    async with network(tmp_path, credit_windows=2, unpaid_s=0.3) as net, driver(net) as worker:
        task = worker.task(PROMPT[:10], max_tokens=60)
        await task.open()
        await task.start()
        with pytest.raises(FaultError) as caught:
            await task.generate(60)
        assert caught.value.code == "unpaid"
        assert len(task.ids) == 17  # the prompt's window and one of 16 rows
        assert net.nodes[0].engine.calls[-1][1] < 26


async def test_prompt_beyond_the_credit_line_waits_for_its_payment(tmp_path: Path) -> None:
    async with network(tmp_path, credit_windows=1, unpaid_s=30) as net, driver(net) as worker:
        task = worker.task(PROMPT, max_tokens=4)
        await task.open()
        await task.start()
        await task.feed(0, PROMPT)
        assert net.nodes[0].engine.calls == []
        await task.pay_stages(96)
        while not task.ids:
            await task.hear()
        assert task.ids == task.expected(1)


async def test_paid_job_runs_to_its_end_and_the_last_voucher_names_the_receipt(tmp_path: Path) -> None:
    async with network(tmp_path, credit_windows=2, unpaid_s=30) as net, driver(net) as worker:
        task = worker.task(PROMPT, max_tokens=40)
        await task.open()
        await task.pay_stages(96)
        await task.start()
        for count in (1, 16, 32, 40):
            await task.generate(count)
            await task.pay_stages(len(PROMPT) + count + 16)
        end = await task.end()
        task.check_leaves(end)
        assert task.ids == task.expected(40)
        for stage, node in enumerate(net.nodes):
            channel = worker.hop_book().channel(node.identity.owner)
            fee = stage_fee_of(task.job.message.route[stage], end)
            leaf = ReceiptLeaf(kind=RECEIPT, hash=random_hash(), hop_amount=fee, windows_paid=9)
            paid = payment_to_pb(channel.end_job(task.job.message.request, leaf))
            task.acks.clear()
            await task.send(stage, pb.Frame(payment=pb.HopPayment(payment=paid, payer=task.hop_pay_of_payer())))
            while not task.acks:
                await task.hear()
            ack = signed_from_pb(task.acks[0].ack.ack, Ack)
            assert ack.signer(DOMAIN) == node.identity.key.address
            assert task.acks[0].request == task.job.message.request
            assert int.from_bytes(task.acks[0].ack.credit, "big") == channel.credit


async def test_stage_on_a_full_disk_opens_nothing_and_a_payment_it_could_not_journal_is_taken_later(
    tmp_path: Path,
) -> None:
    async with network(tmp_path) as net, driver(net) as worker:
        task = worker.task(PROMPT[:16], max_tokens=8)
        await task.open()
        await task.start()
        disk = Disk(tmp_path, least=1 << 20, free=lambda _: 5)
        net.nodes[0].role._ready = disk.check
        other = worker.task(PROMPT[:16])
        await other.send(0, pb.Frame(open=other.open_frame(0)))
        with pytest.raises(FaultError, match="no room on its disk") as caught:
            await other.hear()
        assert caught.value.code == "busy"

        journal = net.nodes[0].role._till.payees._journal  # type: ignore[attr-defined]  # the book's own
        journal.run(f"PRAGMA max_page_count = {journal.one('PRAGMA page_count')[0]}")
        await task.generate(4)  # what runs goes on until a signature cannot be journalled
        paid, refused = 4, None
        while refused is None:
            paid += 1
            frame = task.hop_pay(0, paid)
            await task.send(0, pb.Frame(payment=frame))
            try:
                acks = len(task.acks)
                while len(task.acks) == acks:
                    await task.hear()
            except FaultError as error:
                refused = error
        assert refused.code == "journal_full"

        journal.run("PRAGMA max_page_count = 100000")
        acks = len(task.acks)
        await task.send(0, pb.Frame(payment=frame))
        while len(task.acks) == acks:
            await task.hear()
        await task.pay_stages(40)
        await task.generate(8)
        task.check_leaves(await task.end())
        assert task.ids == task.expected(8)


async def test_last_voucher_below_the_signed_work_is_refused(tmp_path: Path) -> None:
    async with network(tmp_path) as net, driver(net) as worker:
        task = worker.task(PROMPT[:16], max_tokens=4)
        await task.open()
        await task.start()
        await task.generate(4)
        await task.pay_stages(32)
        await task.end()
        channel = worker.hop_book().channel(net.nodes[0].identity.owner)
        leaf = ReceiptLeaf(kind=RECEIPT, hash=random_hash(), hop_amount=1, windows_paid=9)
        paid = payment_to_pb(channel.end_job(task.job.message.request, leaf))
        await task.send(0, pb.Frame(payment=pb.HopPayment(payment=paid, payer=task.hop_pay_of_payer())))
        with pytest.raises(FaultError, match="earned and paid"):
            await task.hear()


async def test_payer_s_pay_that_does_not_belong_is_told_and_the_money_is_taken(tmp_path: Path) -> None:
    """What comes along must never part the books of a channel: a voucher that is refused stops all that follow."""
    async with network(tmp_path) as net, driver(net) as worker:
        task = worker.task(PROMPT[:16], max_tokens=4)
        await task.open()
        await task.start()
        stranger = Key.generate().signed(DOMAIN, task.pay.message)
        other = worker.payer.signed(
            DOMAIN, type(task.pay.message)(request=HASH_ZERO, voucher=HASH_ZERO, amount=1, to=0)
        )
        for amount, payer in ((3, stranger), (4, other)):
            await task.send(0, pb.Frame(payment=task.hop_pay(0, amount, payer=payer)))
            with pytest.raises(FaultError) as caught:
                await task.hear()
            assert caught.value.code == "bad_payment"
        honest = task.hop_pay(0, 5)
        await task.send(1, pb.Frame(payment=honest))
        with pytest.raises(FaultError, match="another node"):
            await task.hear()
        bare = pb.HopPayment(payment=honest.payment)
        await task.send(0, pb.Frame(payment=bare))
        while not task.acks:
            await task.hear()
        assert await task.generate(4) == task.expected(4)


async def test_payment_that_lacks_one_before_it_is_told_where_the_channel_stands(tmp_path: Path) -> None:
    async with network(tmp_path) as net, driver(net) as worker:
        task = worker.task(PROMPT[:16], max_tokens=4)
        await task.open()
        channel = worker.hop_book().channel(net.nodes[0].identity.owner)
        lost = pb.HopPayment(payment=payment_to_pb(channel.pay(random_hash(), 7, 0)))
        await task.send(0, pb.Frame(payment=task.hop_pay(0, 1)))
        with pytest.raises(FaultError) as caught:
            await task.hear()
        assert caught.value.code == "stale_voucher"
        assert not caught.value.fault.HasField("stands")
        await task.send(0, pb.Frame(payment=lost))
        while not task.acks:
            await task.hear()
        channel.pay(random_hash(), 8, 0)
        await task.send(0, pb.Frame(payment=task.hop_pay(0, 4)))
        with pytest.raises(FaultError) as caught:
            await task.hear()
        stands = signed_from_pb(caught.value.fault.stands, Voucher)
        amounts = [payment.pay.message.amount for payment in channel.recover(stands)]
        assert amounts[-3:] == [1, 8, 4]  # before them what credit may have covered: harmless to send again


async def test_payment_on_a_channel_that_is_not_funded_is_refused(tmp_path: Path) -> None:
    async with network(tmp_path, unpaid_s=0.3) as net, driver(net) as worker:
        task = worker.task(PROMPT[:16], max_tokens=4)
        await task.open()
        frame = task.hop_pay(0, 5)
        key, owner = worker.identity.key.address, net.nodes[0].identity.owner
        net.channels.slots[key, owner, key] = Slot(deposit=0)
        await task.send(0, pb.Frame(payment=frame))
        with pytest.raises(FaultError):
            await task.hear()
        net.channels.slots[key, owner, key] = Slot()
        await task.send(0, pb.Frame(payment=frame))
        while not task.acks:
            await task.hear()


async def test_pair_without_a_channel_is_served_its_credit_line(tmp_path: Path) -> None:
    """A new pair needs no channel for `credit_windows`; beyond them it is told to pay, and nothing else."""
    async with network(tmp_path, credit_windows=2, unpaid_s=0.3) as net, driver(net) as worker:
        task = worker.task(PROMPT[:10], max_tokens=60)
        await task.open()
        await task.start()
        with pytest.raises(FaultError) as caught:
            await task.generate(60)
        assert caught.value.code == "unpaid"
        assert task.ids == task.expected(17)
        assert net.channels.slots.keys() == {(worker.payer.address, worker.gateway.owner, worker.payer.address)}


async def test_payment_waits_for_its_channel_while_the_job_runs_on_credit(tmp_path: Path) -> None:
    async with network(tmp_path, credit_windows=2, unpaid_s=30) as net, driver(net) as worker:
        task = worker.task(PROMPT[:10], max_tokens=60)
        await task.open()
        await task.start()
        frame = task.hop_pay(0, 5)
        key, owner = worker.identity.key.address, net.nodes[0].identity.owner
        del net.channels.slots[key, owner, key]
        await task.send(0, pb.Frame(payment=frame))
        assert await task.generate(8) == task.expected(8)
        assert not task.acks
        net.channels.slots[key, owner, key] = Slot()
        while not task.acks:
            await task.hear()


async def test_payment_beyond_the_deposit_waits_for_a_top_up(tmp_path: Path) -> None:
    async with network(tmp_path, unpaid_s=30) as net, driver(net) as worker:
        task = worker.task(PROMPT[:10], max_tokens=4)
        await task.open()
        small, large = task.hop_pay(0, 5), task.hop_pay(0, 9)
        key, owner = worker.identity.key.address, net.nodes[0].identity.owner
        net.channels.slots[key, owner, key] = Slot(deposit=5)
        await task.send(0, pb.Frame(payment=small))
        while not task.acks:
            await task.hear()
        await task.send(0, pb.Frame(payment=large))
        net.channels.slots[key, owner, key] = Slot(deposit=10)
        while len(task.acks) < 2:
            await task.hear()


async def test_payer_whose_channel_is_missing_holds_up_no_other(tmp_path: Path) -> None:
    async with network(tmp_path, unpaid_s=30) as net, driver(net) as worker, driver(net) as other:
        waiting, task = worker.task(PROMPT[:10]), other.task(PROMPT[:10])
        frame = waiting.hop_pay(0, 5)
        key, owner = worker.identity.key.address, net.nodes[0].identity.owner
        del net.channels.slots[key, owner, key]
        await waiting.send(0, pb.Frame(payment=frame))
        other.book = PayerBook(Journal(tmp_path / "other.db"), DOMAIN, other.identity.key)
        own = other.identity.key.address
        net.channels.slots[own, owner, own] = Slot()
        await task.send(0, pb.Frame(payment=task.hop_pay(0, 5)))
        while not task.acks:
            await task.hear()
        assert not waiting.acks


async def test_payment_for_a_job_that_is_gone_is_taken(tmp_path: Path) -> None:
    async with network(tmp_path) as net, driver(net) as worker:
        task = worker.task(PROMPT[:16], max_tokens=4)
        await task.send(0, pb.Frame(payment=task.hop_pay(0, 5)))
        while not task.acks:
            await task.hear()
        await task.send(0, pb.Frame(payment=task.hop_pay(0, 5)))  # the same again is the same
        while len(task.acks) < 2:
            await task.hear()
        assert net.paid == [net.nodes[0].identity.owner] * 2
        assert task.acks[0].ack.ack.message.voucher == task.acks[1].ack.ack.message.voucher
        assert net.nodes[0].engine.open_jobs == 0


@given(
    prompt=st.integers(1, 200),
    room=st.integers(1, 100),
    price=st.integers(0, 3_000_000),
    blocks=st.integers(1, 40),
    windows=st.integers(0, 8),
    pays=st.lists(st.integers(0, 20_000), max_size=6),
)
def test_credit_line_never_reaches_more_windows_beyond_pay_than_allowed(
    *, prompt: int, room: int, price: int, blocks: int, windows: int, pays: list[int]
) -> None:
    cut = Cut(prompt_end=prompt)
    stage = Stage(node=bytes(20), first=0, last=blocks, price=price)
    line = CreditLine(cut=cut, stage=stage, windows=windows, room=prompt + room)
    for paid in pays:
        before = line.allowed
        line.pay(paid)
        assert line.allowed >= before
    ends = [window.end for window in cut.windows(line.allowed)]
    unpaid = [end for end in ends if end <= prompt + room and stage_fee_of(stage, end) > line.paid]
    assert len(unpaid) <= windows
    assert line.covers(line.allowed)
    assert not line.covers(line.allowed + 1)
    if windows:
        assert line.covers(1)
