"""A worker that leaves work unpaid gets no credit; one that pays, or has paid much, goes on."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from tests.node.disks import small_disk
from tests.node.stage.driver import Driver, FaultError, Task, driver
from tests.node.stage.network import network, until
from tests.node.stage.tiny import BLOCKS

from plait.ledger import DebtBook, Journal
from plait.protocol.ids import Address
from plait.protocol.pb import stage_pb2 as pb
from plait.protocol.typed import random_hash
from plait_node.stage import debts as module
from plait_node.stage.debts import Debts

PROMPT = [(3 * at + 2) % 60 for at in range(16)]


async def left_unpaid(worker: Driver) -> Task:
    """Have every stage work to its credit line, and pay nothing."""
    task = worker.task(PROMPT, max_tokens=60)
    await task.open()
    await task.start()
    with pytest.raises(FaultError) as caught:
        await task.generate(60)
    assert caught.value.code == "unpaid"
    return task


async def first_fault(task: Task) -> FaultError:
    with pytest.raises(FaultError) as caught:
        while True:
            await task.hear()
    return caught.value


async def test_worker_that_left_work_unpaid_gets_no_credit_until_it_has_paid(tmp_path: Path) -> None:
    async with network(tmp_path, stages=1, credit_windows=2, unpaid_s=0.3) as net, driver(net) as worker:
        debts, owner = net.nodes[0].role._debts, worker.identity.owner
        debt = await left_unpaid(worker)
        await until(lambda: debts.owed(owner, now=time.time()) > 0)
        owed = debts.owed(owner, now=time.time())
        again = worker.task(PROMPT, max_tokens=8)
        await again.open()
        await again.start()
        await again.feed(0, PROMPT)
        assert (await first_fault(again)).code == "unpaid"
        assert again.ids == []

        async with driver(net) as other:  # one worker's debt is nobody else's
            task = other.task(PROMPT, max_tokens=4)
            await task.open()
            await task.start()
            assert await task.generate(4) == task.expected(4)

        last = worker.task(PROMPT, max_tokens=8)
        await last.open()
        await last.start()
        await debt.send(0, pb.Frame(payment=debt.hop_pay(0, owed)))  # of a job that is gone
        while not debt.acks:
            await debt.hear()
        assert await last.generate(8) == last.expected(8)
        assert debts.owed(owner, now=time.time()) == 0


async def test_worker_that_died_pays_for_what_it_left_and_goes_on(tmp_path: Path) -> None:
    async with network(tmp_path, stages=1, credit_windows=2, unpaid_s=0.3, owed_s=0.2) as net, driver(net) as worker:
        debts, owner = net.nodes[0].role._debts, worker.identity.owner
        task = worker.task(PROMPT, max_tokens=60)
        await task.open()
        await task.start()
        await task.generate(17)
        await worker.close()
        await until(lambda: debts.owed(owner, now=time.time()) > 0)

        worker.links.clear()
        worker.inbox = asyncio.Queue()
        await worker.connect()
        fee = debts.owed(owner, now=time.time())
        await task.send(0, pb.Frame(payment=task.hop_pay(0, fee)))
        while not task.acks:
            await task.hear()
        assert debts.owed(owner, now=time.time()) == 0
        again = worker.task(PROMPT, max_tokens=8)
        await again.open()
        await again.start()
        assert await again.generate(8) == again.expected(8)


@pytest.mark.parametrize("dies", [True, False])
async def test_worker_that_left_work_unpaid_gets_no_credit_after_the_stage_started_again(
    tmp_path: Path, dies: bool
) -> None:
    async with network(tmp_path, stages=1, credit_windows=2, unpaid_s=0.3) as net, driver(net) as worker:
        (node,) = net.nodes
        owner = worker.identity.owner
        debt = await left_unpaid(worker)
        await until(lambda: node.role._debts.owed(owner, now=time.time()) > 0)
        owed = node.role._debts.owed(owner, now=time.time())
        net.nodes.clear()
        await (node.die() if dies else node.stop())

        again = await net.add(0, BLOCKS, who=node.identity)
        assert again.role._debts.owed(owner, now=time.time()) == owed
        await worker.close()
        worker.links.clear()
        worker.inbox = asyncio.Queue()
        await worker.connect()
        task = worker.task(PROMPT, max_tokens=8)
        await task.open()
        await task.start()
        await task.feed(0, PROMPT)
        assert (await first_fault(task)).code == "unpaid"

        await debt.send(0, pb.Frame(payment=debt.hop_pay(0, owed)))
        await until(lambda: again.role._debts.owed(owner, now=time.time()) == 0)
        last = worker.task(PROMPT, max_tokens=8)
        await last.open()
        await last.start()
        assert await last.generate(8) == last.expected(8)


async def test_payment_that_has_not_come_when_a_stage_stops_is_a_debt_until_it_does(tmp_path: Path) -> None:
    async with network(tmp_path, stages=1, credit_windows=2) as net, driver(net) as worker:
        (node,) = net.nodes
        task = worker.task(PROMPT, max_tokens=8)
        await task.open()
        await task.start()
        await task.generate(8)
        await task.end()
        await until(lambda: not node.role._jobs.of())
        assert node.role._debts.owed(worker.identity.owner, now=time.time()) == 0
        net.nodes.clear()
        await node.stop()
        again = await net.add(0, BLOCKS, who=node.identity)
        assert again.role._debts.owed(worker.identity.owner, now=time.time()) == (len(PROMPT) + 7) * BLOCKS


def debts_of(folder: Path) -> Debts:
    return Debts(100, DebtBook(Journal(folder / "stage.db"), "worker"), now=0.0)


def test_debts_bear_less_than_a_credit_line_more_of_those_who_paid_and_forget(tmp_path: Path) -> None:
    debts, one, other, request = debts_of(tmp_path), Address(b"1" * 20), Address(b"2" * 20), random_hash()
    debts.note(one, request, 99, now=0.0)
    assert debts.trusts(one, now=1.0)
    debts.note(one, random_hash(), 1, now=1.0)
    assert not debts.trusts(one, now=1.0)
    assert debts.trusts(other, now=1.0)
    debts.paid(one, random_hash(), 20)  # 5 % of it is borne
    assert debts.trusts(one, now=1.0)
    debts.note(one, request, 399, now=2.0)
    debts.paid(one, random_hash(), 10**9)
    assert not debts.trusts(one, now=2.0)  # never more than four lines
    debts.paid(one, request, 398)
    assert debts.owed(one, now=2.0) == 2
    debts.note(one, request, 0, now=3.0)
    assert debts.owed(one, now=3.0) == 1
    assert debts.owed(one, now=602.0) == 0


def test_debts_are_bounded_in_workers_and_requests_and_so_is_what_is_kept_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_WORKERS", 20)
    monkeypatch.setattr(module, "_MOST_REQUESTS", 5)
    debts, one = debts_of(tmp_path), Address(b"1" * 20)
    for number in range(100):
        debts.note(Address(number.to_bytes(20, "big")), random_hash(), 1, now=0.0)
        debts.note(one, random_hash(), 1, now=0.0)
    for known in (debts, debts_of(tmp_path)):
        assert len(known._accounts) == 20
        assert known.owed(one, now=0.0) == 5
    with Journal(tmp_path / "stage.db") as journal:
        assert len(DebtBook(journal, "worker").all()) == 19 + 5
        assert DebtBook(journal, "gateway").all() == []
        Debts(100, DebtBook(journal, "worker"), now=601.0)
        assert DebtBook(journal, "worker").all() == []


def test_debts_on_a_full_disk_hold_until_the_stage_starts_again(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        debts, one, request = debts_of(disk.path), Address(b"1" * 20), random_hash()
        debts.note(one, request, 60, now=0.0)
        disk.fill()
        debts.note(one, random_hash(), 70, now=0.0)
        assert not debts.trusts(one, now=0.0)
        debts.paid(one, request, 60)
        assert debts.owed(one, now=0.0) == 70
