"""A worker of another owner at a gateway: quoted on terms that spoil nothing, paid for what passed, succeeded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import pytest
from tests.node.gateway.hop_desks import Deposits
from tests.node.gateway.stand import CALL_S, DOMAIN, OUTPUT, PROMPT, Asked, Stand, fault
from tests.node.gateway.test_takeover import finish, last_payment
from tests.sdk.swarm import Answer, Event, KnownKey, Node

from plait.ledger import Journal, PayeeBook, PayerBook
from plait.protocol import codec
from plait.protocol.errors import Fault
from plait.protocol.ids import HASH_ZERO, Address, channel_id, to_hex
from plait.protocol.messages import Finish, Job, Quote, Receipt
from plait.protocol.money import MILLION, job_price
from plait.protocol.pb import gateway_pb2
from plait.protocol.receipts import ABORTED, RECEIPT, ReceiptLeaf
from plait.protocol.sealing import seal_capsule
from plait.protocol.typed import Key, Signed
from plait_node.gateway import Strangers
from plait_node.policy import Guests

pytestmark = pytest.mark.asyncio(loop_scope="session")

SHARE = 900_000


@dataclass(slots=True)
class Hiring:
    """A stand whose worker is a stranger, and what that worker gets."""

    stand: Stand
    folder: Path
    deposits: Deposits = field(default_factory=Deposits)
    workers: Guests = field(default_factory=Guests)
    most_share: int = MILLION

    def strangers(self, journal: Journal, key: Key) -> Strangers:
        book = PayerBook(journal, DOMAIN, key, clock=self.stand.clock)
        return Strangers(book=book, deposits=self.deposits, workers=self.workers, most_share=self.most_share)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[httpx.AsyncClient]:
        async with self.stand.running(strangers=self.strangers) as client:
            yield client

    async def submitted(self, client: httpx.AsyncClient) -> Asked:
        await self.stand.offer(share=SHARE)
        asked = self.stand.ask(await self.stand.quote(client))
        response = await self.stand.submit(client, asked)
        assert response.status_code == 200, fault(response)
        return asked

    async def taken(self, owner: Address, count: int) -> list[codec.Payment]:
        """Return the first payments that an owner got, once there are so many; a till would take them in order."""
        found: list[codec.Payment] = []
        async with asyncio.timeout(CALL_S):
            async for notice in self.stand.broker.payments(owner, HASH_ZERO):
                found.append(codec.payment_from_pb(notice.notice.hop))
                if len(found) == count:
                    break
        with Journal(self.folder / f"{owner.hex()}-{count}.sqlite") as journal:
            book = PayeeBook(journal, DOMAIN, owner)
            for payment in found:
                book.accept(payment, deposit=1 << 60, claimed=0, exit_at=0, now=self.stand.now)
        return found


@pytest.fixture
def hiring(tmp_path: Path) -> Hiring:
    stand = Stand(tmp_path)
    stand.swarm.worker = hire(stand)
    stand.prekey = stand.swarm.prekey()
    return Hiring(stand, tmp_path)


def hire(stand: Stand) -> Node:
    made = Node(owner=Key.generate().address, service=Key.generate())
    stand.swarm.directory.keys[made.service.address] = KnownKey(owner=made.owner)
    return made


def part(stand: Stand, tokens: int, *, before: int = 0) -> int:
    """Return a worker's share of what an answer's price grows by between two numbers of tokens."""
    price = job_price(stand.swarm.terms, input_tokens=len(PROMPT), output_tokens=tokens)
    earlier = job_price(stand.swarm.terms, input_tokens=len(PROMPT), output_tokens=before) if before else 0
    return (price - earlier) * SHARE // MILLION


async def ended(stand: Stand, client: httpx.AsyncClient, asked: Asked, leaf: ReceiptLeaf, to: int) -> None:
    """End a job as its payer does."""
    payment = stand.payer.channel(stand.me).end_job(asked.name, leaf, to=to)
    response = await stand.send(client, payment)
    assert response.status_code == 200, fault(response)


async def test_prompt_is_paid_ahead_and_the_rest_when_the_payer_has_paid(hiring: Hiring) -> None:
    stand, stranger = hiring.stand, hiring.stand.swarm.worker.owner
    async with hiring.running() as client:
        asked = await hiring.submitted(client)
        events = await stand.work(asked, upto=1)
        (ahead,) = await hiring.taken(stranger, 1)
        assert (ahead.pay.message.amount, ahead.pay.message.to) == (part(stand, 0), 0)

        await finish(stand, asked, events, 1)
        seen = await stand.follow(client, asked)
        receipt: Signed[Receipt] = codec.signed_from_pb(seen[-1].event.receipt, Receipt)
        payment, _ = last_payment(stand, asked, seen[-1])
        assert (await stand.send(client, payment)).status_code == 200
        last = (await hiring.taken(stranger, 2))[-1]  # nothing came between: the payer had not paid
        whole = part(stand, len(OUTPUT))
        assert last.pay.message.amount == whole
        (leaf,) = last.ended
        assert (leaf.kind, leaf.hash, leaf.hop_amount) == (RECEIPT, receipt.digest(DOMAIN), whole)
        hop = channel_id(last.voucher.message.payer, stranger, last.voucher.signer(DOMAIN))
        shown = gateway_pb2.ReceiptListing.FromString((await client.get(f"/v1/receipts/{to_hex(hop)}/0")).content)
        assert [codec.receipt_leaf_from_pb(each.leaf) for each in shown.entries] == [leaf]
        assert codec.signed_from_pb(shown.entries[0].receipt, Receipt) == receipt
        assert leaf.windows_paid == stand.gateway._relays[asked.name]._answer.windows


async def both_quoted(hiring: Hiring, client: httpx.AsyncClient, first: Node, second: Node) -> Asked:
    """Offer two strangers' workers, and submit a job that is sealed for both."""
    stand = hiring.stand
    prekeys = {}
    for worker in (second, first):
        stand.swarm.worker = worker
        stand.prekey = prekeys[worker.owner] = stand.swarm.prekey()
        await stand.offer(share=SHARE)
    quote = await quoted(stand, client)
    assert {worker.node for worker in quote.message.workers} == {first.owner, second.owner}
    asked = stand.ask(quote)
    key = prekeys[second.owner].message
    sealed = seal_capsule(asked.key, prekey_public=key.key, kem=key.kem, request=asked.name, node=second.owner)
    asked.call.capsules.append(gateway_pb2.Capsule(node=second.owner, sealed=sealed))
    assert (await stand.submit(client, asked)).status_code == 200
    return asked


async def test_worker_that_dies_and_its_successor_are_paid_each_for_its_own(hiring: Hiring) -> None:
    stand, first, second = hiring.stand, hiring.stand.swarm.worker, hire(hiring.stand)
    hiring.workers = Guests(allowed=frozenset({first.owner, second.owner}))
    async with hiring.running() as client:
        asked = await both_quoted(hiring, client, first, second)
        answer, played = stand.answer(asked), Played(stand, asked)
        await played.work(answer, OUTPUT[:20], len(PROMPT) + 16)
        done = answer.last_progress.message.to
        await stand.relayed(asked, "progress")
        assert (await stand.pay(client, asked, done)).status_code == 200
        assert (await hiring.taken(first.owner, 2))[-1].pay.message.amount == part(stand, done)

        stand.swarm.worker = played.worker = second
        await played.work(answer, OUTPUT[20:], len(PROMPT) + len(OUTPUT) - 1)
        await played.publish(Event(kind="chunk", body=(answer.job_hash, answer.note())))
        receipt = answer.receipt(Finish.LENGTH)
        await stand.deposit(receipt)
        await played.publish(Event(kind="receipt", body=receipt))
        assert (await stand.follow(client, asked))[-1].kind == "receipt"
        leaf = ReceiptLeaf(kind=RECEIPT, hash=receipt.digest(DOMAIN), hop_amount=receipt.message.price, windows_paid=8)
        await ended(stand, client, asked, leaf, len(OUTPUT))

        mine, others = (await hiring.taken(first.owner, 3))[-1], (await hiring.taken(second.owner, 1))[-1]
        assert (mine.ended[0].kind, mine.ended[0].hash) == (others.ended[0].kind, others.ended[0].hash)
        assert (mine.ended[0].windows_paid, others.ended[0].windows_paid) == (3, 5)
        assert mine.ended[0].hop_amount == part(stand, done)
        paid = len(OUTPUT) - (20 - done)  # what was delivered and died with its window is nobody's
        assert others.ended[0].hop_amount == part(stand, paid, before=done)


async def test_prompt_paid_in_vain_is_credit_for_the_next_job(hiring: Hiring) -> None:
    stand, stranger = hiring.stand, hiring.stand.swarm.worker.owner
    async with hiring.running() as client:
        asked = await hiring.submitted(client)
        await stand.work(asked, upto=1)
        await hiring.taken(stranger, 1)
        await ended(stand, client, asked, ReceiptLeaf(kind=ABORTED, hash=asked.name, hop_amount=0, windows_paid=0), 0)
        vain = (await hiring.taken(stranger, 2))[-1]
        assert vain.ended == (ReceiptLeaf(kind=ABORTED, hash=asked.name, hop_amount=0, windows_paid=0),)

        again = await hiring.submitted(client)
        await stand.work(again, upto=1)
        free = (await hiring.taken(stranger, 3))[-1]
        assert free.pay.message.amount == part(stand, 0)
        assert free.voucher.message.cumulative == vain.voucher.message.cumulative


async def test_prompt_of_an_answer_that_failed_is_credit_though_its_payer_ends_nothing(hiring: Hiring) -> None:
    stand, stranger = hiring.stand, hiring.stand.swarm.worker.owner
    async with hiring.running() as client:
        asked = await hiring.submitted(client)
        await stand.work(asked, upto=1)
        await hiring.taken(stranger, 1)
        failed = gateway_pb2.ResultEvent(request=asked.name)
        failed.error.CopyFrom(codec.fault_to_pb(Fault(code="stage_failed", text="no route is left", retry=True)))
        await stand.broker.publish_result(stand.me, asked.name, stranger, failed, key="1.9")
        vain = (await hiring.taken(stranger, 2))[-1]
        assert vain.ended == (ReceiptLeaf(kind=ABORTED, hash=asked.name, hop_amount=0, windows_paid=0),)
        leaf = ReceiptLeaf(kind=ABORTED, hash=asked.name, hop_amount=0, windows_paid=0)
        await ended(stand, client, asked, leaf, 0)  # late, and nothing more comes of it

        again = await hiring.submitted(client)
        await stand.work(again, upto=1)
        free = (await hiring.taken(stranger, 3))[-1]
        assert free.voucher.message.cumulative == vain.voucher.message.cumulative


@pytest.mark.parametrize("spoilt", ["nobody", "refused", "share", "jailed"])
async def test_stranger_that_may_not_serve_is_not_quoted(hiring: Hiring, spoilt: str) -> None:
    stand, stranger = hiring.stand, hiring.stand.swarm.worker.owner
    if spoilt == "refused":
        hiring.workers = Guests(refused=frozenset({stranger}))
    if spoilt == "share":
        hiring.most_share = SHARE - 1
    if spoilt == "jailed":
        stand.swarm.directory.jailed.add(stranger)
    async with stand.running(strangers=None if spoilt == "nobody" else hiring.strangers) as client:
        await stand.offer(share=SHARE)
        call = gateway_pb2.QuoteCall(model=stand.swarm.manifest.model_id)
        response = await client.post("/v1/quotes", content=call.SerializeToString())
        assert fault(response).code == "no_route"


@pytest.mark.parametrize(
    ("changes", "joins"),
    [
        ({}, True),
        ({"max_input": 512, "max_output": 256}, True),
        ({"max_input": 511}, False),
        ({"max_output": 1}, False),
        ({"output_price": 8_000_001}, False),
        ({"input_price": 2_000_001}, False),
        ({"input_price": 1}, True),
    ],
)
async def test_stranger_joins_a_quote_only_where_it_spoils_nothing(
    hiring: Hiring, changes: dict[str, int], joins: bool
) -> None:
    stand = hiring.stand
    stranger, terms = stand.swarm.worker, stand.swarm.terms
    hiring.workers = Guests(allowed=frozenset({stranger.owner}))
    async with hiring.running() as client:
        prices = {name: value for name, value in changes.items() if name.endswith("price")}
        limits = {name: value for name, value in changes.items() if not name.endswith("price")}
        await stand.offer(share=SHARE, terms=[codec.to_pb(replace(terms, **prices))], **limits)
        stand.swarm.worker = Node(owner=stand.me, service=stand.swarm.gateway.service)
        stand.prekey = stand.swarm.prekey()
        await stand.offer()
        quote = (await quoted(stand, client)).message
        assert {worker.node for worker in quote.workers} == {stand.me} | ({stranger.owner} if joins else set())
        assert quote.terms == (terms,)


@pytest.mark.parametrize("ours", [True, False])
async def test_owners_that_nobody_vouches_for_are_quoted_one_by_one(hiring: Hiring, ours: bool) -> None:
    stand, stranger = hiring.stand, hiring.stand.swarm.worker
    async with hiring.running() as client:
        await stand.offer(share=SHARE)
        other = Node(owner=stand.me, service=stand.swarm.gateway.service) if ours else hire(stand)
        stand.swarm.worker = other
        stand.prekey = stand.swarm.prekey()
        await stand.offer(share=SHARE)
        quote = (await quoted(stand, client)).message
        expected = stand.me if ours else min(stranger.owner, other.owner)
        assert [worker.node for worker in quote.workers] == [expected]


async def quoted(stand: Stand, client: httpx.AsyncClient) -> Signed[Quote]:
    call = gateway_pb2.QuoteCall(model=stand.swarm.manifest.model_id)
    response = await client.post("/v1/quotes", content=call.SerializeToString())
    assert response.status_code == 200, fault(response)
    return codec.signed_from_pb(gateway_pb2.QuoteReply.FromString(response.content).quote, Quote)


@dataclass(slots=True)
class Played:
    """Publishes one answer's events, by whichever worker has it."""

    stand: Stand
    asked: Asked
    worker: Node = field(init=False)
    attempt: int = 0
    count: int = 0

    def __post_init__(self) -> None:
        self.worker = self.stand.swarm.worker

    async def work(self, answer: Answer, ids: Sequence[int], end: int) -> None:
        """Run an attempt: its job, its tokens, and a progress over the windows up to a step."""
        signed: Signed[Job] = answer.job()
        self.attempt, self.count = signed.message.attempt, 0
        await self.stand.deposit(signed)
        await self.publish(Event(kind="job", body=signed))
        await self.publish(Event(kind="chunk", body=(answer.job_hash, answer.chunk(ids))))
        await self.publish(Event(kind="progress", body=answer.progress(end)))
        answer.segment()

    async def publish(self, event: Event) -> None:
        self.count += 1
        key = f"{self.attempt}.{self.count}"
        await self.stand.publish(self.asked, event, key, worker=self.worker.owner)
