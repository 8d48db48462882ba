"""A gateway of another owner pays the worker: so far the answer goes, and no further than the credit line."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.node.stage.network import Slot
from tests.node.stage.tiny import CONTEXT
from tests.node.wire.peers import DOMAIN
from tests.node.worker.asked import TERMS, Asked
from tests.node.worker.world import PATIENT, UNPAID, World, until, world

from plait.ledger import DebtBook, Journal, PayeeBook, PayerBook
from plait.ledger.payer import PayerChannel
from plait.protocol.codec import Payment, payment_to_pb, signed_from_pb
from plait.protocol.ids import HASH_ZERO, Address
from plait.protocol.messages import Ack, Finish
from plait.protocol.money import job_price
from plait.protocol.pb import gateway_pb2
from plait.protocol.receipts import RECEIPT, ReceiptLeaf
from plait.protocol.typed import Key, random_hash
from plait_node.worker import Patience, arrears, income
from plait_node.worker.arrears import Arrears

SHARE = 800_000
SHORT, LONG = [(3 * at + 2) % 60 for at in range(20)], [(5 * at + 1) % 60 for at in range(90)]


@dataclass(slots=True, kw_only=True)
class Gateway:
    """A gateway that pays what the test says."""

    world: World
    channel: PayerChannel
    sent: list[Payment] = field(default_factory=list)

    async def pay(self, asked: Asked, amount: int, to: int = 0) -> None:
        await self.send(self.channel.pay(asked.digest, amount, to))

    async def send(self, payment: Payment) -> None:
        self.sent.append(payment)
        notice = gateway_pb2.PayNotice(hop=payment_to_pb(payment))
        await self.world.broker.publish_pay(self.world.who.owner, HASH_ZERO, notice, key=str(len(self.sent)))

    def share_of(self, asked: Asked, tokens: int) -> int:
        price = job_price(TERMS, input_tokens=len(asked.prompt), output_tokens=tokens)
        return price * SHARE // 1_000_000

    async def follow(self, asked: Asked) -> None:
        """Pay for all that the payer has verified, again and again."""
        while asked.receipt is None and asked.error is None:
            due = self.share_of(asked, asked.verifier.paid_output)
            if due > self.channel.paid(asked.digest).amount:
                await self.pay(asked, due, asked.verifier.verified)
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def hired(folder: Path, *, patience: Patience = PATIENT) -> AsyncIterator[tuple[World, Gateway]]:
    """Run a worker for a gateway of another owner, whose channel holds enough."""
    async with world(folder, patience=patience) as made:
        made.share = SHARE
        key = made.gateway.key
        made.net.channels.slots[key.address, made.who.owner, key.address] = Slot()
        book = PayerBook(Journal(folder / "gateway.db"), DOMAIN, key)
        taking = asyncio.create_task(made.income.run())
        try:
            yield made, Gateway(world=made, channel=book.channel(made.who.owner))
        finally:
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)


def booked(made: World) -> PayeeBook:
    return PayeeBook(made.book._journal, DOMAIN, made.who.owner)


async def stays(so: Callable[[], bool], *, for_s: float = 0.5) -> None:
    loop = asyncio.get_running_loop()
    until_ = loop.time() + for_s
    while loop.time() < until_:
        assert so()
        await asyncio.sleep(0.02)


async def test_paid_answer_runs_to_its_end_and_each_payment_is_journalled_and_acknowledged(tmp_path: Path) -> None:
    async with hired(tmp_path) as (made, gateway):
        asked = await made.asking_long(SHORT, max_tokens=150)
        paying = asyncio.create_task(gateway.follow(asked))
        assert await asked.run() == asked.expected(150)
        assert asked.receipt is not None
        assert asked.receipt.message.finish == Finish.LENGTH
        await paying
        price = gateway.share_of(asked, 150)
        leaf = ReceiptLeaf(kind=RECEIPT, hash=asked.receipt.digest(DOMAIN), hop_amount=price, windows_paid=11)
        await gateway.send(gateway.channel.end_job(asked.digest, leaf, to=150))
        await until(lambda: bool(booked(made).rounds()))
        state = booked(made).state(made.gateway.key.address, made.gateway.key.address)
        assert state is not None
        assert (state.voucher.message.cumulative, state.voucher.message.jobs) == (price, 1)
        ack = await anext(made.broker.acks(made.gateway.owner, asked.digest))
        assert signed_from_pb(ack.ack.ack, Ack).signer(DOMAIN) == made.who.key.address
        await made.settled()
        assert made.income.serves(made.gateway.owner)


async def test_unpaid_answer_stops_at_the_credit_line_and_its_gateway_is_served_no_more(tmp_path: Path) -> None:
    async with hired(tmp_path, patience=UNPAID) as (made, gateway):
        asked = await made.asking_long(SHORT, max_tokens=150)
        await asked.run()
        assert asked.receipt is not None
        assert asked.receipt.message.finish == Finish.FAILED
        # The prompt's two windows are on credit as well: the line ends at step 64.
        assert len(SHORT) + len(asked.verifier.ids) <= 65
        await until(lambda: not made.role.busy)
        assert not made.income.serves(made.gateway.owner)

        owed = gateway.share_of(asked, asked.verifier.paid_output)
        await gateway.pay(asked, owed - 1, 1)
        await stays(lambda: not made.income.serves(made.gateway.owner))
        await gateway.pay(asked, owed, 1)
        await until(lambda: made.income.serves(made.gateway.owner))


@pytest.mark.parametrize("pays", [True, False])
async def test_gateway_that_owes_is_served_no_more_after_the_worker_died_and_started_again(
    tmp_path: Path, pays: bool
) -> None:
    async with hired(tmp_path) as (made, gateway):
        asked = await made.asking_long(SHORT, max_tokens=150)
        await asked.run()
        await until(lambda: not made.role.busy)
        assert not made.income.serves(made.gateway.owner)
        owed = gateway.share_of(asked, asked.verifier.paid_output)
        if pays:
            await gateway.pay(asked, owed, 1)
            await until(lambda: made.income.paid(asked.digest) == owed)

        made.hire()
        assert made.income.serves(made.gateway.owner) == pays  # what was paid before need not be heard again
        assert made.income.serves(Address(bytes(20)))
        taking = asyncio.create_task(made.income.run())
        if not pays:
            await gateway.pay(asked, owed, 1)
        await until(lambda: made.income.paid(asked.digest) == owed)
        assert made.income.serves(made.gateway.owner)
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)


def test_arrears_are_bounded_and_forgotten_after_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrears, "_MOST_GATEWAYS", 20)
    monkeypatch.setattr(arrears, "_MOST_REQUESTS", 5)
    with Journal(tmp_path / "worker.db") as journal:
        book = DebtBook(journal, "gateway")
        known = Arrears(book, now=0.0)
        for number in range(100):
            known.note(Address(number.to_bytes(20, "big")), random_hash(), 1, now=float(number))
            known.note(Address(b"1" * 20), random_hash(), 1, now=float(number))
        assert len(book.all()) <= 19 + 5
        assert known.owes(Address(b"1" * 20), lambda _: 0, now=100.0)
        assert not Arrears(book, now=100_000.0).owes(Address(b"1" * 20), lambda _: 0, now=100_000.0)
        assert book.all() == []


async def test_answer_is_not_owed_for_what_its_payer_did_not_pay(tmp_path: Path) -> None:
    async with hired(tmp_path, patience=UNPAID) as (made, gateway):
        asked = await made.asking_long(SHORT, max_tokens=150)
        asked.pays = False
        await gateway.pay(asked, gateway.share_of(asked, 0))
        await asked.run()
        assert asked.receipt is not None
        assert asked.receipt.message.finish == Finish.FAILED
        await until(lambda: not made.role.busy)
        assert made.income.serves(made.gateway.owner)


async def test_prompt_beyond_the_credit_line_waits_for_the_gateway(tmp_path: Path) -> None:
    async with hired(tmp_path) as (made, gateway):
        asked = await made.asking(LONG, max_tokens=4)
        running = asyncio.create_task(asked.run())
        await until(lambda: asked.job is not None)
        await stays(lambda: not asked.verifier.ids)
        assert all(not node.engine.calls for node in made.net.nodes)
        await gateway.pay(asked, gateway.share_of(asked, 0))
        await running
        assert asked.receipt is not None
        assert asked.error is None


async def test_prompt_that_is_never_paid_is_refused(tmp_path: Path) -> None:
    async with hired(tmp_path, patience=UNPAID) as (made, _):
        asked = await made.asking(LONG, max_tokens=4)
        await asked.run()
        assert asked.error is not None
        assert asked.error.error.code == "unpaid"
        assert len(LONG) < CONTEXT


async def test_payments_come_in_order_after_a_deposit_that_comes_late(tmp_path: Path) -> None:
    async with hired(tmp_path) as (made, gateway):
        key = made.gateway.key.address
        made.net.channels.slots[key, made.who.owner, key] = Slot(deposit=0)
        asked = await made.asking(SHORT, max_tokens=4)
        for amount in (1, 2, 3):
            await gateway.pay(asked, amount)
        await stays(lambda: not booked(made).channels())
        made.net.channels.slots[key, made.who.owner, key] = Slot()
        await until(lambda: made.income.paid(asked.digest) == 3)


async def test_payment_that_the_journal_has_no_room_for_is_taken_once_there_is_however_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(income, "_TRIES", 2)
    monkeypatch.setattr(income, "_RETRY_S", 0.02)
    async with hired(tmp_path) as (made, gateway):
        asked = await made.asking(SHORT, max_tokens=4)
        journal = made.book._journal
        pages = journal.one("PRAGMA page_count")
        assert pages is not None
        journal.run(f"PRAGMA max_page_count = {pages[0]}")  # SQLite then answers as on a full disk
        for amount in range(1, 200):
            await gateway.pay(asked, amount)
        await stays(lambda: made.income.paid(asked.digest) < 199)
        journal.run("PRAGMA max_page_count = 100000")
        await until(lambda: made.income.paid(asked.digest) == 199)


async def test_hundreds_of_payments_at_once_are_all_taken_in_order_beside_a_channel_that_is_never_funded(
    tmp_path: Path,
) -> None:
    async with hired(tmp_path) as (made, gateway):
        asked = await made.asking(SHORT, max_tokens=4)
        poor = PayerBook(Journal(tmp_path / "poor.db"), DOMAIN, Key.generate()).channel(made.who.owner)
        for amount in range(1, 81):
            await gateway.send(poor.pay(asked.digest, amount, 0))
        for amount in range(1, 301):
            await gateway.pay(asked, amount)
        await until(lambda: made.income.paid(asked.digest) == 300)


async def test_job_ends_no_lower_than_what_the_payer_says_it_got(tmp_path: Path) -> None:
    async with hired(tmp_path) as (made, gateway):
        asked = await made.asking_long(SHORT, max_tokens=150)
        paying = asyncio.create_task(gateway.follow(asked))
        await asked.run()
        await paying
        assert asked.receipt is not None
        leaf = ReceiptLeaf(kind=RECEIPT, hash=asked.receipt.digest(DOMAIN), hop_amount=1, windows_paid=11)
        await gateway.send(gateway.channel.end_job(asked.digest, leaf, to=150))
        await stays(lambda: not booked(made).rounds())


@pytest.mark.parametrize("share", [SHARE - 1, SHARE])
async def test_quote_below_the_asked_share_is_refused(tmp_path: Path, share: int) -> None:
    async with hired(tmp_path) as (made, gateway):
        made.role._admission = type(made.role._admission)(
            owner=made.who.owner,
            domain=DOMAIN,
            directory=made.net.directory,
            prekeys=made.prekeys,
            manifest=made.role._admission.manifest,
            share=SHARE,
        )
        made.share = share
        asked = await made.asking(SHORT, max_tokens=4)
        await gateway.pay(asked, gateway.share_of(asked, 4))
        await asked.run()
        assert (asked.error is None) == (share == SHARE)
        assert asked.error is None or asked.error.error.code == "price_too_low"
