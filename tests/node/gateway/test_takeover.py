"""Two gateways of one owner: each channel has one of them at a time, and whoever succeeds knows all that was paid."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from tests.node.gateway.stand import CALL_S, DOMAIN, OUTPUT, Asked, Seen, Stand, fault
from tests.sdk.swarm import Event

from plait.ledger import Journal, SharedBook
from plait.protocol import codec
from plait.protocol.codec import Payment
from plait.protocol.ids import Hash, to_hex
from plait.protocol.messages import Receipt
from plait.protocol.pb import gateway_pb2, signed_pb2
from plait.protocol.receipts import RECEIPT, ReceiptLeaf
from plait.protocol.typed import Signed
from plait_node.broker import BrokerDownError, LogRow
from plait_node.gateway import Gateway, custody

pytestmark = pytest.mark.asyncio(loop_scope="session")

LEASE_S = 60.0


@dataclass(slots=True)
class One:
    """One of the gateways, its book, and a payer's connection to it."""

    stand: Stand
    gateway: Gateway
    book: SharedBook
    client: httpx.AsyncClient
    others: list[One]

    async def freeze(self) -> None:
        """Stop its tasks as if its process were stopped, and let its lease end; nobody hears a goodbye."""
        tasks = list(self.gateway._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.stand.now += 4
        for other in self.others:
            if other is not self:
                await other.gateway._custody.renew()


class Two:
    """The gateways `a` and `b`; `a` takes the first job unless a test says otherwise."""

    def __init__(self, stand: Stand) -> None:
        self.stand = stand
        self.stack = AsyncExitStack()
        self.all: list[One] = []

    async def start(self, name: str) -> One:
        client = await self.stack.enter_async_context(self.stand.running(name))
        gateway = self.stand.gateway
        assert gateway is not None
        self.all.append(One(self.stand, gateway, self.stand.book, client, self.all))
        return self.all[-1]

    @property
    def channel(self) -> Hash:
        return self.stand.payer.channel(self.stand.me).id

    async def log(self) -> list[LogRow]:
        return await self.stand.broker.shared.rows(self.stand.me, self.channel, after=0, most=100)

    async def kinds(self) -> list[str]:
        return [row.record.kind for row in await self.log()]


@pytest_asyncio.fixture(loop_scope="session")
async def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Two]:
    monkeypatch.setattr(custody, "LEASE_LIFE_S", LEASE_S)  # only the test ends leases, however slow this machine is
    made = Two(Stand(tmp_path))
    await made.stand.offer()
    async with made.stack:
        yield made


async def finish(stand: Stand, asked: Asked, events: Sequence[Event], start: int) -> None:
    """Publish the rest of an answer as its worker does."""
    for place, event in enumerate(events[start:], start=start):
        if event.kind == "receipt":
            await stand.deposit(event.body)
        await stand.publish(asked, event, f"1.{place}")


def last_payment(stand: Stand, asked: Asked, seen: Seen) -> tuple[Payment, ReceiptLeaf]:
    """End a job with its receipt, as its payer does."""
    receipt: Signed[Receipt] = codec.signed_from_pb(seen.event.receipt, Receipt)
    amount = receipt.message.price
    leaf = ReceiptLeaf(kind=RECEIPT, hash=receipt.digest(DOMAIN), hop_amount=amount, windows_paid=5)
    return stand.payer.channel(stand.me).end_job(asked.name, leaf, to=len(OUTPUT)), leaf


async def refused(response: httpx.Response, url: str) -> None:
    assert (response.status_code, fault(response).code, fault(response).moved) == (421, "other_gateway", False)
    assert url in fault(response).text.split()


async def test_gateway_that_is_not_the_owner_names_the_one_that_is(two: Two) -> None:
    stand, a, b = two.stand, await two.start("a"), await two.start("b")
    asked = await stand.submitted(a.client)
    path = f"/v1/jobs/{to_hex(asked.name)}"
    state = gateway_pb2.ChannelStateCall(payer=stand.payer.payer, signer=stand.payer.signer).SerializeToString()

    await refused(await stand.submit(b.client, asked), "http://a")
    await refused(await stand.pay(b.client, asked, 16), "http://a")
    await refused(await b.client.post(f"{path}/events", content=stand.resume(asked)), "http://a")
    await refused(await b.client.post(f"{path}/cancel", content=stand.cancel(asked)), "http://a")
    await refused(await b.client.post("/v1/channels/state", content=state), "http://a")
    await refused(await b.client.get(f"/v1/receipts/{to_hex(two.channel)}/0"), "http://a")

    assert a.gateway.owns(two.channel)
    assert not b.gateway.owns(two.channel)
    assert not b.book.known(two.channel)
    assert await stand.broker.backlog(asked.quote.message.group) == 1


async def test_owner_killed_midway_is_succeeded_with_the_same_stream_and_paid_once(two: Two) -> None:
    stand, a, b = two.stand, await two.start("a"), await two.start("b")
    asked = await stand.submitted(a.client)
    events = await stand.work(asked, upto=7)
    stand.gateway = a.gateway
    await stand.relayed(asked, "progress")
    paid = await stand.pay(a.client, asked, 12)
    assert paid.status_code == 200, fault(paid)
    before = [event.sequence for event in a.gateway._relays[asked.name]._events]
    await a.freeze()

    following = asyncio.create_task(stand.follow(b.client, asked))
    await asyncio.sleep(0.05)
    await finish(stand, asked, events, 7)
    seen = await following

    assert [each.kind for each in seen] == [event.kind for event in events]
    assert [each.sequence for each in seen][: len(before)] == before
    # What was accepted there is accepted here, adds nothing, and is acknowledged in the same words.
    again = await stand.pay(b.client, asked, 12)
    assert again.content == paid.content
    payment, leaf = last_payment(stand, asked, seen[-1])
    assert (await stand.send(b.client, payment)).status_code == 200
    (state,) = b.book.channels()
    assert (state.voucher.message.cumulative, state.voucher.message.jobs) == (leaf.hop_amount, 1)
    assert [each.row().cumulative for each in b.book.rounds()] == [leaf.hop_amount]
    assert await two.kinds() == ["pay", "pay", "fence", "receipt", "pay"]
    assert await stand.broker.backlog(asked.quote.message.group) == 1


async def test_old_voucher_for_something_new_is_refused_by_the_successor(two: Two) -> None:
    stand, a, b = two.stand, await two.start("a"), await two.start("b")
    asked = await stand.submitted(a.client)
    old = asked.payment.voucher
    assert (await stand.pay(a.client, asked, 12)).status_code == 200
    await a.freeze()
    other = stand.ask(asked.quote)
    replayed = replace(
        other.payment,
        voucher=old,
        pay=stand.session.signed(DOMAIN, replace(other.payment.pay.message, voucher=old.struct_hash())),
    )
    call = gateway_pb2.JobCall()
    call.CopyFrom(other.call)
    call.payment.CopyFrom(codec.payment_to_pb(replayed))

    response = await b.client.post("/v1/jobs", content=call.SerializeToString())

    assert (response.status_code, fault(response).code) == (409, "stale_voucher")
    assert b.book.owed(other.name).amount == 0
    assert (await stand.submit(b.client, other)).status_code == 200


async def test_frozen_owner_that_wakes_up_accepts_no_voucher(two: Two) -> None:
    stand, a, b = two.stand, await two.start("a"), await two.start("b")
    asked = await stand.submitted(a.client)
    await a.freeze()
    assert (await stand.pay(b.client, asked, 8)).status_code == 200
    logged = await two.log()

    await refused(await stand.pay(a.client, asked, 12), "http://b")
    await refused(await stand.pay(a.client, asked, 12), "http://b")

    assert await two.log() == logged
    (state,) = a.book.channels()
    assert state.voucher == asked.payment.voucher
    assert not a.gateway.owns(two.channel)
    assert (await stand.pay(b.client, asked, 12)).status_code == 200


async def test_owner_whose_lease_lapsed_unseen_goes_on_and_owns_nothing_until_it_looked(two: Two) -> None:
    stand, a = two.stand, await two.start("a")
    asked = await stand.submitted(a.client)
    assert a.gateway.owns(two.channel)
    assert a.gateway._custody._renewed is not None
    a.gateway._custody._renewed -= LEASE_S + 1
    assert not a.gateway.owns(two.channel)

    await a.gateway._custody.renew()
    assert not a.gateway.owns(two.channel)
    assert (await stand.pay(a.client, asked, 12)).status_code == 200
    assert a.gateway.owns(two.channel)
    assert await two.kinds() == ["pay", "pay"]


async def test_gateway_that_stops_gives_its_channels_back_at_once(two: Two) -> None:
    stand, b = two.stand, await two.start("b")
    async with stand.running("a") as client:
        asked = await stand.submitted(client)
    told = stand.notified
    async with asyncio.timeout(CALL_S):
        while asked.name not in b.gateway._relays:  # noqa: ASYNC110 - nobody calls: the gateway looks by itself
            await asyncio.sleep(0.02)

    assert b.gateway.owns(two.channel)
    assert stand.notified == told + 1  # what ended and is not claimed yet is claimed by b
    assert (await stand.pay(b.client, asked, 12)).status_code == 200
    async with stand.running("a") as client:
        await refused(await stand.pay(client, asked, 12), "http://b")


async def test_first_payment_brought_to_both_at_once_is_accepted_once(two: Two) -> None:
    stand, a, b = two.stand, await two.start("a"), await two.start("b")
    asked = stand.ask(await stand.quote(a.client))

    answers = await asyncio.gather(stand.submit(a.client, asked), stand.submit(b.client, asked))

    assert sorted(each.status_code for each in answers) == [200, 421]
    assert await two.kinds() == ["pay"]
    assert a.gateway.owns(two.channel) != b.gateway.owns(two.channel)


async def test_receipts_of_jobs_that_ended_elsewhere_are_listed_by_the_successor(two: Two) -> None:
    stand, a, b = two.stand, await two.start("a"), await two.start("b")
    asked = await stand.submitted(a.client)
    await stand.work(asked)
    seen = await stand.follow(a.client, asked)
    payment, leaf = last_payment(stand, asked, seen[-1])
    assert (await stand.send(a.client, payment)).status_code == 200
    await a.freeze()

    page = await b.client.get(f"/v1/receipts/{to_hex(two.channel)}/0")

    (entry,) = gateway_pb2.ReceiptListing.FromString(page.content).entries
    assert codec.receipt_leaf_from_pb(entry.leaf) == leaf
    assert entry.receipt == seen[-1].event.receipt
    ended = await b.client.post(f"/v1/jobs/{to_hex(asked.name)}/events", content=stand.resume(asked))
    assert (ended.status_code, fault(ended).code) == (404, "unknown_job")


async def test_leaf_below_what_was_earned_at_the_old_owner_is_refused(two: Two) -> None:
    stand, a, b = two.stand, await two.start("a"), await two.start("b")
    asked = await stand.submitted(a.client)
    await stand.work(asked, upto=8)
    stand.gateway = a.gateway
    await stand.relayed(asked, "progress")
    assert (await stand.pay(a.client, asked, 12)).status_code == 200
    earned = a.gateway._store.earned(asked.name)
    assert earned > 0
    await a.freeze()
    await stand.broker.forget_results(stand.me, asked.name)  # so that only the log tells it
    leaf = ReceiptLeaf(kind=1, hash=asked.name, hop_amount=0, windows_paid=0)

    response = await stand.send(b.client, stand.payer.channel(stand.me).end_job(asked.name, leaf))

    assert (response.status_code, fault(response).code) == (400, "bad_request")
    assert "were earned and paid" in fault(response).text


async def test_answer_that_got_lost_on_the_way_to_the_log_is_accepted_once(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand, a = two.stand, await two.start("a")
    asked = await stand.submitted(a.client)
    append = stand.broker.shared.append

    async def stored_unheard(*arguments: object, **named: object) -> int | None:
        await append(*arguments, **named)
        raise BrokerDownError("store a message")

    with monkeypatch.context() as patch:
        patch.setattr(stand.broker.shared, "append", stored_unheard)
        response = await stand.pay(a.client, asked, 12)
    assert (response.status_code, fault(response).code, fault(response).moved) == (503, "broker_away", True)
    assert a.book.channels()[0].voucher == asked.payment.voucher

    again = await stand.pay(a.client, asked, 12)

    assert again.status_code == 200, fault(again)
    assert signed_pb2.Acknowledgement.FromString(again.content).ack.message.at == int(stand.now)
    assert await two.kinds() == ["pay", "pay"]


async def test_journal_from_before_is_written_into_the_log_and_another_gateway_goes_on(two: Two) -> None:
    stand = two.stand
    channel = stand.payer.channel(stand.me)
    first, second = Hash(bytes(31) + b"\1"), Hash(bytes(31) + b"\2")
    with Journal(stand.folder / "a-journal.sqlite") as journal:
        book = SharedBook(journal, DOMAIN, stand.me)
        leaf = ReceiptLeaf(kind=1, hash=first, hop_amount=20, windows_paid=1)
        for payment in (channel.pay(first, 30, 0), channel.pay(second, 5, 0), channel.end_job(first, leaf)):
            book.accept(payment, deposit=1_000, claimed=0, exit_at=0, now=stand.now)
    a = await two.start("a")
    assert (await stand.send(a.client, channel.pay(second, 40, 0))).status_code == 200
    assert await two.kinds() == ["pay"] * 4
    await a.freeze()
    b = await two.start("b")

    assert (await stand.send(b.client, channel.pay(second, 50, 0))).status_code == 200

    (state,) = b.book.channels()
    assert (state.voucher.message.cumulative, state.voucher.message.jobs) == (70, 1)
    assert a.book.channels()[0].voucher.message.cumulative == 60


async def test_log_that_a_broker_lost_is_written_again(two: Two) -> None:
    stand, a = two.stand, await two.start("a")
    asked = await stand.submitted(a.client)
    assert (await stand.pay(a.client, asked, 12)).status_code == 200
    stand.broker.shared._logs.clear()

    assert (await stand.pay(a.client, asked, 16)).status_code == 200
    assert await two.kinds() == ["pay"] * 3


async def test_log_begun_anew_elsewhere_is_read_from_its_start(two: Two) -> None:
    stand, b = two.stand, await two.start("b")
    channel = stand.payer.channel(stand.me)
    payments = [channel.pay(Hash(bytes(31) + bytes([at])), 10, 0) for at in range(1, 7)]
    assert (await stand.send(b.client, payments[0])).status_code == 200
    await b.freeze()
    a = await two.start("a")
    assert (await stand.send(a.client, payments[1])).status_code == 200
    await a.freeze()
    stand.broker.shared._logs.clear()  # the broker lost its disk, and counts from one again
    stand.broker.shared._numbers = itertools.count(1)
    await b.gateway._custody.renew()
    b.gateway._custody._held.clear()
    for payment in payments[:5]:  # the payer brings what b lacks
        assert (await stand.send(b.client, payment)).status_code == 200
    await b.freeze()
    a.gateway._custody._held.clear()
    await a.gateway._custody.renew()

    assert (await stand.send(a.client, payments[5])).status_code == 200

    assert [payment for payment, _ in a.book.payments(two.channel)] == payments
    assert await two.kinds() == ["pay"] * 5 + ["fence", "pay"]


async def test_log_that_contradicts_the_journal_is_not_served(two: Two) -> None:
    stand = two.stand
    channel = stand.payer.channel(stand.me)
    name = Hash(bytes(31) + b"\1")
    with Journal(stand.folder / "b-journal.sqlite") as journal:
        book = SharedBook(journal, DOMAIN, stand.me)
        book.accept(channel.pay(name, 30, 0), deposit=1_000, claimed=0, exit_at=0, now=stand.now)
    with Journal(stand.folder / "other.sqlite") as journal:
        stand.payer = type(stand.payer)(journal, DOMAIN, stand.session, clock=stand.clock)
        a = await two.start("a")
        assert (await stand.submitted(a.client)) is not None
        await a.freeze()
        b = await two.start("b")

        response = await stand.send(b.client, stand.payer.channel(stand.me).pay(name, 90, 0))

    assert (response.status_code, fault(response).code) == (503, "internal")
    assert "its operator must look" in fault(response).text
    assert not b.gateway.owns(two.channel)


async def test_calls_about_channels_and_jobs_that_nobody_knows_leave_nothing_behind(two: Two) -> None:
    stand, a = two.stand, await two.start("a")
    call = gateway_pb2.ChannelStateCall(payer=bytes(20), signer=bytes(19) + b"\1").SerializeToString()

    assert (await a.client.post("/v1/channels/state", content=call)).content == b""
    unknown = await a.client.get(f"/v1/receipts/0x{'7' * 64}/0")
    assert (unknown.status_code, fault(unknown).code) == (404, "channel_unknown")
    stand.chain.slots.clear()
    response = await stand.send(a.client, stand.payer.channel(stand.me).pay(Hash(bytes(32)), 1, 0))
    assert (response.status_code, fault(response).code) == (404, "channel_unknown")

    assert a.gateway._custody._held == {}
    assert await stand.broker.shared.channels(stand.me) == []
