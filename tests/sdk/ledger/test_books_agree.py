"""Payer and payee agree after any sequence of jobs, deaths, crashes, replays and reorderings."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.sdk.ledger_cases import SIGNER, Pair, aborted_leaf, receipt_leaf, request

from plait.ledger import ChannelState, PaymentError
from plait.protocol.codec import Payment
from plait.protocol.messages import Pay
from plait.protocol.tree import tree_root

DEPOSIT = 1 << 60


@dataclass(slots=True)
class Job:
    """What the test knows of a request on its own, in base units."""

    paid: int = 0
    to: int = 0
    price: int | None = None


@dataclass(slots=True)
class World:
    """Both ends, the messages between them, and a plain re-statement of what must hold."""

    pair: Pair
    jobs: dict[int, Job] = field(default_factory=dict)
    sent: list[Payment] = field(default_factory=list)
    accepted: list[Pay] = field(default_factory=list)
    arrived: int = 0

    @property
    def running(self) -> list[int]:
        return [number for number, job in self.jobs.items() if job.price is None]


class Books(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.world = World(pair=Pair.make(Path(self.folder.name)))

    def teardown(self) -> None:
        self.world.pair.close()
        self.folder.cleanup()

    @rule(amount=st.integers(0, 1_000))
    def begin(self, amount: int) -> None:
        number = len(self.world.jobs)
        self.world.jobs[number] = Job(paid=amount)
        self._send(self.world.pair.channel.pay(request(number), amount, 0))

    @precondition(lambda self: self.world.running)
    @rule(data=st.data(), more=st.integers(0, 500), tokens=st.integers(0, 64))
    def pay_on(self, data: st.DataObject, more: int, tokens: int) -> None:
        number = data.draw(st.sampled_from(self.world.running))
        job = self.world.jobs[number]
        job.paid, job.to = job.paid + more, job.to + tokens
        self._send(self.world.pair.channel.pay(request(number), job.paid, job.to))

    @precondition(lambda self: self.world.running)
    @rule(data=st.data(), died=st.booleans(), more=st.integers(0, 500))
    def end(self, data: st.DataObject, died: bool, more: int) -> None:
        number = data.draw(st.sampled_from(self.world.running))
        job = self.world.jobs[number]
        job.price = data.draw(st.integers(0, job.paid)) if died else job.paid + more
        job.paid = max(job.paid, job.price)
        leaf = aborted_leaf(number, job.price) if died else receipt_leaf(number, job.price)
        self._send(self.world.pair.channel.end_job(request(number), leaf))

    @precondition(lambda self: self.world.arrived < len(self.world.sent))
    @rule()
    def deliver_next(self) -> None:
        self.world.pair.accept(self.world.sent[self.world.arrived], deposit=DEPOSIT)
        self.world.accepted.append(self.world.sent[self.world.arrived].pay.message)
        self.world.arrived += 1

    @precondition(lambda self: self.world.arrived + 1 < len(self.world.sent))
    @rule(data=st.data())
    def deliver_out_of_order(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(self.world.arrived + 1, len(self.world.sent) - 1))
        before = self._payee_state()
        try:
            self.world.pair.accept(self.world.sent[at], deposit=DEPOSIT)
        except PaymentError:
            assert self._payee_state() == before
        else:  # what was skipped is contained in it
            self._resynchronise()

    @precondition(lambda self: self.world.arrived)
    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, self.world.arrived - 1))
        before = self._payee_state()
        try:
            assert self.world.pair.accept(self.world.sent[at], deposit=DEPOSIT).repeated
        except PaymentError:
            assert self.world.sent[at].pay.message not in self.world.accepted
        assert self._payee_state() == before

    @rule()
    def crash(self) -> None:
        self.world.pair.reopen()

    @precondition(lambda self: self.world.sent)
    @rule()
    def recover(self) -> None:
        self._resynchronise()

    @invariant()
    def money_adds_up(self) -> None:
        channel = self.world.pair.channel
        ended = sum(job.price for job in self.world.jobs.values() if job.price is not None)
        running = sum(job.paid for job in self.world.jobs.values() if job.price is None)
        assert channel.cumulative == ended + running + channel.credit

    @invariant()
    def both_ends_agree_once_all_arrived(self) -> None:
        if not self.world.sent or self.world.arrived < len(self.world.sent):
            return
        state = self._payee_state()
        assert state is not None
        assert state.voucher.message.cumulative == self.world.pair.channel.cumulative
        assert state.credit == self.world.pair.channel.credit
        leaves = [each.leaf.encode() for each in self.world.pair.channel.account.store.leaves()]
        assert state.voucher.message.receipts_root == tree_root(leaves)
        for number, job in self.world.jobs.items():
            paid = self.world.pair.payee.owed(request(number))
            assert (paid.amount, paid.ended) == (job.paid, job.price is not None)
            assert paid.to <= job.to  # a Pay over more tokens for no more money may be overtaken

    def _send(self, payment: Payment) -> None:
        if payment not in self.world.sent:  # the same wish again is the same message
            self.world.sent.append(payment)

    def _payee_state(self) -> ChannelState | None:
        return self.world.pair.payee.state(SIGNER.address, SIGNER.address)

    def _resynchronise(self) -> None:
        state = self._payee_state()
        for payment in self.world.pair.channel.recover(state.voucher if state else None):
            self.world.pair.accept(payment, deposit=DEPOSIT)
            self.world.accepted.append(payment.pay.message)
        self.world.arrived = len(self.world.sent)


def test_books_agree_after_any_story() -> None:
    run_state_machine_as_test(
        Books,
        settings=settings(
            max_examples=30,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
