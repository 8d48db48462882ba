"""Whatever dies or fails on the way: no worker is paid twice, none more than it earned, none of it is lost."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.node.gateway.hop_desks import Operator, end_of

from plait.protocol.errors import Fault
from plait.protocol.ids import Address
from plait.protocol.money import MILLION, worker_share_rounded_down
from plait.protocol.receipts import ABORTED, RECEIPT
from plait_node.gateway.parts import Part, covered

LEAD = 40
SHARE = 700_000

steps = st.lists(
    st.one_of(
        st.tuples(st.just("work"), st.integers(0, 1), st.integers(1, 300)),
        st.tuples(st.just("attempt"), st.integers(0, 1), st.integers(0, 2)),
        st.tuples(st.just("pay"), st.integers(0, 1), st.integers(0, 100)),
        st.tuples(st.just("end"), st.integers(0, 1), st.sampled_from([RECEIPT, ABORTED])),
        st.tuples(st.sampled_from(["restart", "switch", "die", "before", "behind", "unsent"]), st.just(0), st.just(0)),
    ),
    min_size=4,
    max_size=24,
)


@dataclass(slots=True)
class Asked:
    """One request as the test knows it."""

    parts: list[Part]
    paid: int = LEAD
    ended: bool = False
    led: set[Address] = field(default_factory=set)  # whose prompt was paid ahead

    @property
    def earned(self) -> int:
        return sum(part.amount for part in self.parts)


class Story:
    """Plays steps and keeps a plain re-statement of what must hold."""

    def __init__(self, operator: Operator) -> None:
        self.all = operator
        self.asked = [Asked(parts=[self._part(1, operator.workers[1])]) for _ in operator.jobs]

    def _part(self, attempt: int, worker: Address) -> Part:
        return Part(attempt=attempt, worker=worker, amount=0, windows=0, lead=LEAD)

    async def begin(self) -> None:
        await self.all.awake()
        for number, job in enumerate(self.all.jobs):
            await self.all.pay(self.all.channel.pay(job.name, LEAD, 0))
            await self._tell(number)

    async def _tell(self, number: int) -> None:
        asked = self.asked[number]
        if not asked.ended and not asked.earned:
            asked.led.add(asked.parts[-1].worker)
        await self.all.told(number, asked.parts)

    async def play(self, what: str, number: int, value: int) -> None:
        asked, job = self.asked[number], self.all.jobs[number]
        match what:
            case "work" if not asked.ended:
                last = asked.parts[-1]
                amount = last.amount + value + (0 if asked.earned else LEAD)
                asked.parts[-1] = replace(last, amount=amount, windows=last.windows + 1)
            case "attempt" if not asked.ended:
                asked.parts.append(self._part(len(asked.parts) + 1, self.all.workers[value]))
            case "pay" if not asked.ended:
                asked.paid = max(asked.paid, asked.paid + (asked.earned - asked.paid) * value // 100)
                await self.all.pay(self.all.channel.pay(job.name, asked.paid, len(asked.parts)))
            case "end" if not asked.ended:
                amount = asked.earned if value == RECEIPT else min(asked.paid, asked.earned)
                asked.ended, asked.paid = True, amount or asked.paid
                leaf = end_of(job.name, value, amount)
                await self.all.pay(self.all.channel.end_job(job.name, leaf))
            case "restart":
                self.all.restart()
                return
            case "switch" | "die":
                await self.all.switch(dies=what == "die")
                return
            case "before" | "behind" | "unsent":
                self.all.faults.next.append(what)
                return
            case _:
                return
        await self._tell(number)  # what failed is not tried again before the next step

    def check(self, *, final: bool, late: bool = False) -> None:
        brought = {worker: self.all.income(worker) for worker in self.all.workers[1:]}
        assert self.all.income(self.all.me) == {}
        for number, asked in enumerate(self.asked):
            money = covered(asked.paid, asked.parts, ended=asked.ended or late)
            got = {worker: brought[worker].get(self.all.jobs[number].name, 0) for worker in brought}
            for worker, amount in got.items():
                due = worker_share_rounded_down(money.get(worker, 0), SHARE)
                ahead = worker_share_rounded_down(LEAD, SHARE) if worker in asked.led else 0
                assert amount <= max(due, ahead)
                assert not final or amount >= due
            leads = sum(amount for worker, amount in got.items() if not money.get(worker))
            assert sum(got.values()) - leads <= asked.paid * SHARE // MILLION


async def tell(folder: Path, story: Sequence[tuple[str, int, int]]) -> None:
    operator = Operator(folder, SHARE)
    try:
        made = Story(operator)
        await made.begin()
        for step in story:
            await made.play(*step)
        made.check(final=False)
        operator.faults.next.clear()
        for number in range(len(made.asked)):
            await made._tell(number)
        await operator.settled()
        made.check(final=True)
        await operator.late(*operator.jobs)
        made.check(final=True, late=True)
        assert operator.running() == []
    finally:
        operator.close()


@settings(max_examples=40, deadline=None)
@given(story=steps)
def test_no_worker_is_paid_twice_or_beyond_what_the_payer_paid(story: list[tuple[str, int, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(tell(Path(folder), story))


@pytest.mark.parametrize("fault", ["before", "behind", "unsent"])
@pytest.mark.parametrize("then", ["restart", "switch"])
@pytest.mark.parametrize("after", [0, 1], ids=["same job", "other job"])
async def test_payment_that_failed_midway_is_the_same_one_after_restart_and_takeover(
    tmp_path: Path, fault: str, then: str, after: int
) -> None:
    story = [("work", 0, 100), (fault, 0, 0), ("pay", 0, 100), (then, 0, 0), ("work", after, 60), ("pay", after, 50)]
    again = [("switch", 0, 0), ("work", after, 20), ("pay", after, 100), ("attempt", 0, 2), ("work", 0, 30)]
    await tell(tmp_path, [*story, *again, ("end", 0, RECEIPT)])


@pytest.mark.parametrize("fault", ["behind", "unsent"])
async def test_payment_that_its_gateway_never_sent_is_sent_by_the_successor(tmp_path: Path, fault: str) -> None:
    story = [("work", 0, 100), (fault, 0, 0), ("pay", 0, 100), ("die", 0, 0), ("work", 0, 60), ("pay", 0, 100)]
    await tell(tmp_path, [*story, ("end", 0, RECEIPT)])


async def test_payment_waits_for_its_deposit_and_leaves_when_it_is_there(tmp_path: Path) -> None:
    operator = Operator(tmp_path, SHARE)
    stranger = operator.workers[1]
    operator.deposits.deposit = 0
    story = Story(operator)
    await story.begin()
    assert operator.income(stranger) == {}
    assert operator.desk.hops.promised(stranger) == worker_share_rounded_down(LEAD, SHARE)
    operator.deposits.deposit = 1_000
    await operator.desk.hops.funded(stranger)
    await operator.desk.work()
    story.check(final=True)
    assert operator.deposits.asked
    operator.close()


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    made = Operator(tmp_path, SHARE)
    yield made
    made.close()


async def test_job_that_a_dead_gateway_left_open_is_ended_and_its_money_counts_once(
    operator: Operator,
) -> None:
    story, worker = Story(operator), operator.workers[1]
    await story.begin()
    for step in [("work", 0, 100), ("pay", 0, 100), ("die", 0, 0), ("work", 0, 60), ("pay", 0, 100)]:
        await story.play(*step)
    await story.play("end", 0, RECEIPT)
    await operator.settled()
    first, second = (desk.payer.channel(worker).paid(operator.jobs[0].name) for desk in operator.desks)
    assert (first.ended, second.ended) == (False, True)
    dead = operator.desks[0].payer.channel(worker).cumulative

    await operator.late(*operator.jobs)

    channel = operator.desks[0].payer.channel(worker)
    leaf = channel.account.store.ended(operator.jobs[0].name)
    assert leaf is not None
    assert leaf.leaf.hop_amount == first.amount
    assert channel.cumulative == dead  # nothing more is promised
    story.check(final=True, late=True)
    assert operator.income(worker)[operator.jobs[0].name] == first.amount + second.amount


@pytest.mark.parametrize("how", ["verdict", "late", "forgotten"])
async def test_prompt_paid_in_vain_is_credit_though_the_payer_never_ends_its_job(operator: Operator, how: str) -> None:
    story, worker = Story(operator), operator.workers[1]
    await story.begin()
    ahead = worker_share_rounded_down(LEAD, SHARE)
    channel = operator.desk.payer.channel(worker)
    assert (channel.paid(operator.jobs[0].name).amount, channel.credit) == (ahead, 0)
    if how == "verdict":
        operator.desk.store.set_verdict(operator.jobs[0].name, 1, Fault(code="answer_withheld", text="it was wrong"))
        operator.desk.hops.wake(operator.jobs[0].name)
        await operator.desk.work()
    else:
        if how == "forgotten":
            for job in operator.jobs:
                operator.desk.store.drop(job.name)
        await operator.late(*operator.jobs if how == "late" else ())
    channel = operator.desk.payer.channel(worker)
    assert channel.paid(operator.jobs[0].name).ended
    assert channel.credit == ahead * (1 if how == "verdict" else 2)
    assert operator.income(worker)[operator.jobs[0].name] == 0


async def test_work_that_its_payer_may_still_pay_for_stays_open_until_it_is_too_late(operator: Operator) -> None:
    story, worker, name = Story(operator), operator.workers[1], operator.jobs[0].name
    await story.begin()
    await story.play("work", 0, 100)
    operator.desk.store.set_verdict(name, 1, Fault(code="deadline", text="it was too late"))
    await operator.settled()
    assert not operator.desk.payer.channel(worker).paid(name).ended
    await story.play("pay", 0, 100)
    assert operator.desk.payer.channel(worker).paid(name).amount == worker_share_rounded_down(140, SHARE)
    await operator.late(*operator.jobs)
    assert operator.running() == []
    assert operator.income(worker)[name] == worker_share_rounded_down(140, SHARE)
