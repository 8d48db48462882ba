"""From a quote to the last voucher, and every way in which an answer may not end."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from tests.node.gateway.stand import DOMAIN, OUTPUT, PROMPT, ChainAwayError, Stand, fault, until
from tests.sdk.swarm import Event, Node

from plait.protocol import codec
from plait.protocol.ids import to_hex
from plait.protocol.messages import Ack, Receipt
from plait.protocol.money import job_price
from plait.protocol.pb import gateway_pb2, signed_pb2
from plait.protocol.receipts import RECEIPT, ReceiptLeaf
from plait_node.broker import BrokerError, MemoryBroker
from plait_node.gateway import relay as relays

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def stand(tmp_path: Path) -> Stand:
    return Stand(tmp_path)


async def test_answer_honest_arrives_whole_and_in_order(stand: Stand) -> None:
    async with stand.running() as client:
        asked = await stand.submitted(client)
        events = await stand.work(asked)
        seen = await stand.follow(client, asked)
    assert [each.kind for each in seen] == [event.kind for event in events]
    assert seen[-1].kind == "receipt"
    assert [each.sequence for each in seen] == sorted({each.sequence for each in seen})
    sealed = [each.event.chunk.sealed for each in seen if each.kind == "chunk"]
    assert sealed == [event.body[1] for event in events if event.kind == "chunk"]


async def test_job_reaches_its_group_once_with_request_as_name(stand: Stand) -> None:
    async with stand.running() as client:
        asked = await stand.submitted(client)
        again = await stand.submit(client, asked)
        assert again.status_code == 200
        group = asked.quote.message.group
        assert await stand.broker.backlog(group) == 1
        jobs = stand.broker.jobs(group)
        delivery = await anext(jobs)
        assert delivery.request == asked.name
        assert delivery.call == asked.call
        await delivery.ack()


async def test_answer_with_a_forged_receipt_record_withholds_the_final_chunk(stand: Stand) -> None:
    async with stand.running() as client:
        asked = await stand.submitted(client)
        events = await stand.work(asked, forge=True)
        seen = await stand.follow(client, asked)
        chunks = [event.body[1] for event in events if event.kind == "chunk"]
        got = [each.event.chunk.sealed for each in seen if each.kind == "chunk"]
        # Neither the note nor the last tokens come: the last progress said that nothing follows.
        assert got == chunks[:-2]
        assert seen[-1].kind == "error"
        assert seen[-1].event.error.code == "answer_withheld"
        assert "another one" in seen[-1].event.error.text
        assert "receipt" not in {each.kind for each in seen}
        assert seen[-1].sequence > seen[-2].sequence  # a client that skips what it has seen must not skip this
        assert [each.kind for each in await stand.follow(client, asked, after=seen[-2].sequence)] == ["error"]


async def test_answer_without_a_receipt_record_withholds_the_final_chunk(stand: Stand) -> None:
    async with stand.running() as client:
        asked = await stand.submitted(client)
        events = await stand.work(asked)
        stand.dht.shelf.clear()
        await stand.deposit(events[0].body)  # only the job stays in the table
        seen = await stand.follow(client, asked)
    assert seen[-1].event.error.code == "answer_withheld"
    assert len([each for each in seen if each.kind == "chunk"]) == len(OUTPUT) // 5 - 1


async def test_answer_whose_receipt_names_a_higher_price_is_withheld(stand: Stand) -> None:
    async with stand.running() as client:
        asked = await stand.submitted(client)
        events = await stand.work(asked, upto=-1)
        message = events[-1].body.message
        dearer = stand.swarm.worker.service.signed(DOMAIN, replace(message, price=message.price + 1))
        await stand.deposit(dearer)
        await stand.publish(asked, Event(kind="receipt", body=dearer), "1.last")
        seen = await stand.follow(client, asked)
    assert seen[-1].event.error.code == "answer_withheld"
    assert "price" in seen[-1].event.error.text


async def test_receipt_that_spreads_late_in_the_table_is_waited_for(tmp_path: Path) -> None:
    stand = Stand(tmp_path, patience_s=60.0)
    async with stand.running() as client:
        asked = await stand.submitted(client)
        events = await stand.work(asked)
        late = dict(stand.dht.shelf)
        stand.dht.shelf.clear()
        await stand.deposit(events[0].body)
        following = asyncio.create_task(stand.follow(client, asked))
        await asyncio.sleep(0.3)
        stand.dht.shelf.update(late)
        assert (await following)[-1].kind == "receipt"


async def test_final_chunk_is_held_until_the_receipt_is_there(stand: Stand) -> None:
    async with stand.running() as client:
        asked = await stand.submitted(client)
        events = await stand.work(asked, upto=-1)
        following = asyncio.create_task(stand.follow(client, asked))
        relay, most = stand.gateway._relays[asked.name], len(OUTPUT) // 5 - 1  # all but the last tokens and the note

        def chunks() -> int:
            return [event.kind for event in relay._events].count("chunk")

        await until(lambda: chunks() == most)
        await asyncio.sleep(0.2)
        assert chunks() == most
        await stand.deposit(events[-1].body)
        await stand.publish(asked, events[-1], "1.last")
        assert [each.kind for each in await following] == [event.kind for event in events]


async def test_job_of_an_unstaked_stage_ends_the_stream_before_the_first_token(stand: Stand) -> None:
    async with stand.running() as client:
        asked = await stand.submitted(client)
        stand.swarm.directory.jailed.add(stand.swarm.stages[1].owner)
        await stand.work(asked)
        seen = await stand.follow(client, asked)
    assert [each.kind for each in seen] == ["error"]
    assert "no stake or is jailed" in seen[0].event.error.text
    assert not seen[0].event.error.moved


async def test_job_that_is_not_in_the_table_ends_the_stream_before_the_first_token(stand: Stand) -> None:
    async with stand.running() as client:
        asked = await stand.submitted(client)
        events = list(stand.answer(asked).events(OUTPUT))
        for place, event in enumerate(events):
            await stand.publish(asked, event, f"1.{place}")
        seen = await stand.follow(client, asked)
    assert [each.kind for each in seen] == ["error"]
    assert seen[0].event.error.code == "answer_withheld"


async def test_events_of_strangers_and_junk_are_dropped(stand: Stand) -> None:
    async with stand.running() as client:
        asked = await stand.submitted(client)
        stranger = stand.swarm.node()
        answer = stand.answer(asked)
        forged = replace(answer.job().message, worker=stranger.owner)
        await stand.publish(
            asked, Event(kind="job", body=stranger.service.signed(DOMAIN, forged)), "x.0", worker=stranger.owner
        )
        worker = stand.swarm.worker.owner
        junk = gateway_pb2.ResultEvent(request=asked.name, job=signed_pb2.SignedJob(signature=b"short"))
        await stand.broker.publish_result(stand.me, asked.name, worker, junk, key="x.1")
        await stand.broker.publish_result(stand.me, asked.name, worker, gateway_pb2.ResultEvent(), key="x.2")
        fault_of_stranger = gateway_pb2.ResultEvent(error=signed_pb2.Fault(code="busy", text="no"))
        await stand.broker.publish_result(stand.me, asked.name, stranger.owner, fault_of_stranger, key="x.3")
        events = await stand.work(asked)
        seen = await stand.follow(client, asked)
        assert [each.kind for each in seen] == [event.kind for event in events]
        page = (await client.get("/metrics")).text
    assert 'plait_gateway_dropped_events_total{reason="stranger"} 2.0' in page
    assert 'plait_gateway_dropped_events_total{reason="malformed"} 1.0' in page


async def test_later_attempt_from_the_delivered_tokens_fences_the_older_one(stand: Stand) -> None:
    async with stand.running() as client:
        asked = await stand.submitted(client)
        answer = stand.answer(asked)
        old_job = answer.job()
        await stand.deposit(old_job)
        await stand.publish(asked, Event(kind="job", body=old_job), "1.0")
        await stand.publish(asked, Event(kind="chunk", body=(answer.job_hash, answer.chunk(OUTPUT[:5]))), "1.1")
        old_hash, old_sealer = answer.job_hash, answer.sealer
        await stand.relayed(asked, "job")
        new_job = answer.job()
        assert new_job.message.start == 5
        await stand.deposit(new_job)
        await stand.publish(asked, Event(kind="job", body=new_job), "2.0")
        await stand.publish(asked, Event(kind="chunk", body=(old_hash, old_sealer.seal(OUTPUT[5:9]))), "1.2")
        await stand.publish(asked, Event(kind="chunk", body=(answer.job_hash, answer.chunk(OUTPUT[5:]))), "2.1")
        await stand.publish(asked, Event(kind="progress", body=answer.progress(len(PROMPT) + 39)), "2.2")
        answer.segment()
        await stand.publish(asked, Event(kind="chunk", body=(answer.job_hash, answer.note())), "2.3")
        receipt = answer.receipt(1)
        await stand.deposit(receipt)
        await stand.publish(asked, Event(kind="receipt", body=receipt), "2.4")
        seen = await stand.follow(client, asked)
    assert [each.kind for each in seen] == ["job", "chunk", "job", "chunk", "progress", "chunk", "receipt"]


async def test_attempt_replaced_before_it_was_confirmed_is_confirmed_by_the_newer_one(stand: Stand) -> None:
    """The table keeps a worker's newest job record alone."""
    async with stand.running() as client:
        asked = await stand.submitted(client)
        abandoned = stand.answer(asked).job()
        await stand.publish(asked, Event(kind="job", body=abandoned), "0.0")
        answer = stand.answer(asked)
        answer.attempt = 1
        for place, event in enumerate(answer.events(OUTPUT)):
            if event.kind in ("job", "receipt"):
                await stand.deposit(event.body)
            await stand.publish(asked, event, f"1.{place}")
        seen = await stand.follow(client, asked)
    assert [each.event.job.message.attempt for each in seen if each.kind == "job"] == [1, 2]
    assert seen[-1].kind == "receipt"


async def test_later_attempt_that_starts_elsewhere_ends_the_stream(stand: Stand) -> None:
    async with stand.running() as client:
        asked = await stand.submitted(client)
        answer = stand.answer(asked)
        job = answer.job()
        await stand.deposit(job)
        await stand.publish(asked, Event(kind="job", body=job), "1.0")
        await stand.publish(asked, Event(kind="chunk", body=(answer.job_hash, answer.chunk(OUTPUT[:5]))), "1.1")
        again = stand.answer(asked)
        again.attempt = 1
        await stand.publish(asked, Event(kind="job", body=again.job()), "2.0")  # from token 0 once more
        seen = await stand.follow(client, asked)
    assert [each.kind for each in seen] == ["job", "error"]
    assert "5 were delivered" in seen[-1].event.error.text


async def test_fault_of_the_worker_reaches_the_payer_after_what_was_delivered(stand: Stand) -> None:
    async with stand.running() as client:
        asked = await stand.submitted(client)
        events = await stand.work(asked, upto=6)
        failed = signed_pb2.Fault(code="stage_failed", text="the holder of blocks 10-19 is gone; ask again", retry=True)
        event = gateway_pb2.ResultEvent(request=asked.name, error=failed)
        await stand.broker.publish_result(stand.me, asked.name, stand.swarm.worker.owner, event, key="1.fault")
        seen = await stand.follow(client, asked)
        assert [each.kind for each in seen] == [*(event.kind for event in events[:6]), "error"]
        assert (seen[-1].event.error.code, seen[-1].event.error.moved) == ("stage_failed", True)
        assert [each.kind for each in await stand.follow(client, asked, after=seen[-1].sequence)] == ["error"]


async def test_deadline_ends_a_stream_that_no_worker_answers(stand: Stand) -> None:
    async with stand.running() as client:
        asked = await stand.submitted(client)
        relay = stand.gateway._relays.pop(asked.name)
        relay.passing = True
        stand.now = asked.request.message.deadline - 0.2  # the relay made now has a second at least
        seen = await stand.follow(client, asked)
    assert [(each.kind, each.sequence) for each in seen] == [("error", 1)]
    assert seen[0].event.error.code == "deadline"


@pytest.mark.parametrize("begun", [False, True], ids=["nobody took it", "in the middle"])
async def test_job_whose_workers_have_all_left_ends_long_before_its_deadline(
    stand: Stand, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    monkeypatch.setattr(relays, "_LOOK_S", 0.02)
    async with stand.running() as client:
        asked = await stand.submitted(client)
        following = asyncio.create_task(stand.follow(client, asked))
        events = await stand.work(asked, upto=6) if begun else []
        stand.now += 110  # its offer lived for 60 s of them
        await asyncio.sleep(0.2)
        await stand.offer()
        stand.now += 50  # it came back for a while
        await asyncio.sleep(0.2)
        stand.now += 100
        await asyncio.sleep(0.2)
        assert not following.done()
        stand.now += 100
        async with asyncio.timeout(30):
            seen = await following
        *delivered, last = seen
        assert [each.kind for each in delivered] == [event.kind for event in events[: len(delivered)]]
        assert bool(delivered) == begun
        error = last.event.error
        assert (error.code, error.retry, error.moved) == ("no_route", True, begun)
        assert stand.now < asked.request.message.deadline


async def test_job_of_a_broker_that_is_away_is_not_taken_for_deserted(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away() -> list[gateway_pb2.WorkerOffer]:
        raise BrokerError("no server")

    monkeypatch.setattr(relays, "_LOOK_S", 0.02)
    async with stand.running() as client:
        asked = await stand.submitted(client)
        following = asyncio.create_task(stand.follow(client, asked))
        with monkeypatch.context() as patch:
            patch.setattr(stand.broker, "offers", away)
            stand.now += 400
            await asyncio.sleep(0.2)
        events = await stand.work(asked)
        async with asyncio.timeout(30):
            assert [each.kind for each in await following] == [event.kind for event in events]


async def test_chain_away_while_an_answer_is_judged_passes_and_may_be_resumed(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(directory: object, owner: object) -> bool:
        raise ChainAwayError("the RPC is down")

    async with stand.running() as client:
        asked = await stand.submitted(client)
        with monkeypatch.context() as patch:
            patch.setattr(type(stand.swarm.directory), "active", away)
            events = await stand.work(asked)
            seen = await stand.follow(client, asked)
            assert [each.kind for each in seen] == ["error"]
            assert (seen[0].event.error.code, seen[0].event.error.retry) == ("busy", True)
        assert [each.kind for each in await stand.follow(client, asked)] == [event.kind for event in events]


async def test_vouchers_paid_in_step_are_acknowledged_and_reach_the_worker(stand: Stand) -> None:
    async with stand.running() as client:
        asked = await stand.submitted(client)
        await stand.work(asked)
        await stand.follow(client, asked)
        response = await stand.pay(client, asked, 16)
        assert response.status_code == 200, fault(response)
        acknowledged = signed_pb2.Acknowledgement.FromString(response.content)
        ack = codec.signed_from_pb(acknowledged.ack, Ack)
        assert ack.signer(DOMAIN) == stand.swarm.gateway.service.address
        again = await stand.pay(client, asked, 16)
        assert again.content == response.content
        notices = stand.broker.payments(stand.swarm.worker.owner, asked.name)
        notice = (await anext(notices)).notice
        assert codec.payment_from_pb(notice.payment).pay.message.to == 16
        assert ack.message.voucher == codec.payment_from_pb(notice.payment).voucher.struct_hash()


async def test_job_ended_with_its_receipt_tells_settlement_and_drops_the_answer(stand: Stand) -> None:
    async with stand.running() as client:
        asked = await stand.submitted(client)
        await stand.work(asked)
        receipt = codec.signed_from_pb((await stand.follow(client, asked))[-1].event.receipt, Receipt)
        price = job_price(stand.swarm.terms, input_tokens=len(PROMPT), output_tokens=len(OUTPUT))
        assert receipt.message.price == price
        channel = stand.payer.channel(stand.me)
        leaf = ReceiptLeaf(kind=RECEIPT, hash=receipt.digest(DOMAIN), hop_amount=price, windows_paid=5)
        response = await stand.send(client, channel.end_job(asked.name, leaf, to=len(OUTPUT)))
        assert response.status_code == 200, fault(response)
        assert stand.notified == 1
        [round_] = stand.book.rounds()
        assert (round_.row().cumulative, round_.row().jobs) == (price, 1)
        broker = stand.broker
        assert isinstance(broker, MemoryBroker)
        await until(lambda: ("result", stand.me, asked.name) not in broker._logs)

        page = await client.get(f"/v1/receipts/{to_hex(channel.id)}/0")
        listing = gateway_pb2.ReceiptListing.FromString(page.content)
        assert [codec.receipt_leaf_from_pb(entry.leaf) for entry in listing.entries] == [leaf]
        assert codec.signed_from_pb(listing.entries[0].receipt, Receipt) == receipt
        rest = await client.get(f"/v1/receipts/{to_hex(channel.id)}/1")
        assert gateway_pb2.ReceiptListing.FromString(rest.content) == gateway_pb2.ReceiptListing()


async def test_leaf_other_than_the_receipt_that_was_relayed_is_refused(stand: Stand) -> None:
    async with stand.running() as client:
        asked = await stand.submitted(client)
        await stand.work(asked)
        await stand.follow(client, asked)
        leaf = ReceiptLeaf(kind=RECEIPT, hash=asked.request.message.seed, hop_amount=40, windows_paid=0)
        response = await stand.send(client, stand.payer.channel(stand.me).end_job(asked.name, leaf, to=len(OUTPUT)))
    assert response.status_code == 400
    assert fault(response).code == "bad_request"
    assert stand.notified == 0


async def test_cancel_signed_by_the_payer_reaches_the_worker_and_no_other_does(stand: Stand) -> None:
    async with stand.running() as client:
        asked = await stand.submitted(client)
        path = f"/v1/jobs/{to_hex(asked.name)}/cancel"
        other = Node(owner=stand.me, service=stand.swarm.gateway.service)
        refused = await client.post(path, content=stand.cancel(asked, other.service))
        assert (refused.status_code, fault(refused).code) == (401, "bad_signature")
        assert (await client.post(path, content=stand.cancel(asked))).status_code == 202
        notice = await anext(stand.broker.payments(stand.swarm.worker.owner, asked.name))
        assert notice.notice.cancel.message.to == 5
