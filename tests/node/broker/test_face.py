"""What both brokers promise, over a real nats-server and in memory."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TypeVar

import pytest
from tests.node.broker.waiting import SOON_S

from plait.protocol.pb import gateway_pb2, signed_pb2
from plait_node.broker import Broker, BrokerClosedError, Delivery, MemoryBroker, MessageTooLargeError, waking
from plait_node.broker.face import MAX_DELIVERIES, PROMPT_LIFE_S, PROMPTS_KEPT

pytestmark = pytest.mark.asyncio(loop_scope="session")

T = TypeVar("T")
QUIET_S = 0.25


def call_of(text: bytes = b"sealed", gateway: bytes = bytes(20)) -> gateway_pb2.JobCall:
    quote = signed_pb2.SignedQuote(message=signed_pb2.Quote(gateway=gateway))
    return gateway_pb2.JobCall(prompt=text, quote=quote)


def event_of(request: bytes, sealed: bytes) -> gateway_pb2.ResultEvent:
    return gateway_pb2.ResultEvent(request=request, chunk=gateway_pb2.Chunk(job=bytes(32), sealed=sealed))


def notice_of(to: int) -> gateway_pb2.PayNotice:
    cancel = signed_pb2.SignedCancel(message=signed_pb2.Cancel(request=bytes(32), to=to))
    return gateway_pb2.PayNotice(cancel=cancel)


async def take(items: AsyncIterator[T], count: int) -> list[T]:
    """Take exactly `count` items, or time out."""
    taken: list[T] = []
    async with asyncio.timeout(SOON_S):
        while len(taken) < count:
            taken.append(await anext(items))
    return taken


async def nothing_comes(items: AsyncIterator[object]) -> bool:
    try:
        async with asyncio.timeout(QUIET_S):
            await anext(items)
    except TimeoutError:
        return True
    return False


@pytest.fixture
def group() -> bytes:
    return secrets.token_bytes(8)


@pytest.fixture
def request_id() -> bytes:
    return secrets.token_bytes(32)


async def test_job_published_reaches_one_worker_of_the_group(broker: Broker, group: bytes, request_id: bytes) -> None:
    assert await broker.publish_job(group, 1, call_of(b"one"), request=request_id)

    async with aclosing(broker.jobs(group)) as first, aclosing(broker.jobs(group)) as second:
        [delivery] = await take(first, 1)
        assert (delivery.call.prompt, delivery.request, delivery.deliveries) == (b"one", request_id, 1)
        assert await broker.backlog(group) == 1

        async with delivery.working():
            assert await nothing_comes(second)
        await delivery.ack()
    assert await broker.backlog(group) == 0


async def test_job_published_while_a_worker_waits_wakes_it(
    broker: Broker, group: bytes, request_id: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waking, "_LOOK_S", 60.0)  # what `take` gets in its time did not wait for it
    async with aclosing(broker.jobs(group)) as jobs:
        waiting = asyncio.create_task(take(jobs, 1))
        await asyncio.sleep(0.1)
        await broker.publish_job(group, 0, call_of(), request=request_id)
        [delivery] = await waiting
        await delivery.ack()


async def test_job_of_another_group_is_not_seen(broker: Broker, group: bytes, request_id: bytes) -> None:
    await broker.publish_job(group, 1, call_of(), request=request_id)
    async with aclosing(broker.jobs(secrets.token_bytes(8))) as jobs:
        assert await nothing_comes(jobs)


async def test_job_repeated_with_the_same_request_is_dropped(broker: Broker, group: bytes, request_id: bytes) -> None:
    assert await broker.publish_job(group, 1, call_of(), request=request_id)
    assert not await broker.publish_job(group, 1, call_of(), request=request_id)
    assert await broker.backlog(group) == 1


async def test_jobs_waiting_are_handed_out_by_priority(broker: Broker, group: bytes) -> None:
    for priority, text in ((2, b"last"), (1, b"middle"), (0, b"first")):
        await broker.publish_job(group, priority, call_of(text), request=secrets.token_bytes(32))
    async with aclosing(broker.jobs(group)) as jobs:
        taken = await take(jobs, 3)
    assert [delivery.call.prompt for delivery in taken] == [b"first", b"middle", b"last"]


async def test_job_priority_unknown_raises(broker: Broker, group: bytes, request_id: bytes) -> None:
    with pytest.raises(ValueError, match="priority"):
        await broker.publish_job(group, 7, call_of(), request=request_id)


async def test_job_not_acknowledged_is_handed_out_again(brief: Broker, group: bytes, request_id: bytes) -> None:
    await brief.publish_job(group, 1, call_of(), request=request_id)
    async with aclosing(brief.jobs(group)) as jobs:
        first, second = await take(jobs, 2)
        assert (first.deliveries, second.deliveries) == (1, 2)
        await second.ack()
    assert await brief.backlog(group) == 0


async def test_job_extended_is_not_handed_out_again(brief: Broker, group: bytes, request_id: bytes) -> None:
    await brief.publish_job(group, 1, call_of(), request=request_id)
    async with aclosing(brief.jobs(group)) as jobs, aclosing(brief.jobs(group)) as others:
        [delivery] = await take(jobs, 1)
        async with delivery.working(), asyncio.timeout(SOON_S):
            waiting = asyncio.ensure_future(anext(others))
            await asyncio.sleep(4.5)  # more than two leases
            assert not waiting.done()
            await delivery.ack()
            waiting.cancel()
            await asyncio.wait({waiting})
    assert await brief.backlog(group) == 0


async def test_job_given_back_is_handed_out_at_once(broker: Broker, group: bytes, request_id: bytes) -> None:
    await broker.publish_job(group, 1, call_of(), request=request_id)
    async with aclosing(broker.jobs(group)) as jobs:
        [first] = await take(jobs, 1)
        await first.nak()
        [second] = await take(jobs, 1)  # which waits for less than a lease
        assert second.deliveries == 2
        await second.ack()


async def test_job_given_back_with_delay_waits(broker: Broker, group: bytes, request_id: bytes) -> None:
    await broker.publish_job(group, 1, call_of(), request=request_id)
    async with aclosing(broker.jobs(group)) as jobs:
        [first] = await take(jobs, 1)
        started = asyncio.get_running_loop().time()
        await first.nak(delay_s=0.4)
        [second] = await take(jobs, 1)
        assert asyncio.get_running_loop().time() - started >= 0.35
        await second.ack()


async def test_deliveries_that_ended_are_counted_however_they_ended(broker: Broker, group: bytes) -> None:
    assert await broker.turnover(group) == 0
    for priority in (0, 2):
        await broker.publish_job(group, priority, call_of(), request=secrets.token_bytes(32))
    async with aclosing(broker.jobs(group)) as jobs:
        [first] = await take(jobs, 1)
        before = await broker.turnover(group)
        await first.nak()
        [again] = await take(jobs, 1)
        await again.ack()
        [last] = await take(jobs, 1)
        await last.ack()
    assert (before, await broker.turnover(group)) == (0, 3)


async def test_job_given_up_is_kept_and_its_follower_told(broker: Broker, group: bytes, request_id: bytes) -> None:
    gateway = secrets.token_bytes(20)
    await broker.publish_job(group, 1, call_of(b"bad", gateway), request=request_id)
    async with aclosing(broker.jobs(group)) as jobs:
        [delivery] = await take(jobs, 1)
        await delivery.dead("the capsule\ndoes not open")
    assert await broker.backlog(group) == 0
    letter = next(letter for letter in await broker.dead_letters() if letter.request == request_id)
    assert letter.call.prompt == b"bad"
    assert (letter.group, letter.priority, letter.deliveries) == (group, 1, 1)
    assert "does not open" in letter.reason
    async with aclosing(broker.results(gateway, request_id)) as results:
        [result] = await take(results, 1)
    assert result.event.error.code == "job_given_up"
    assert result.worker == bytes(20)


async def test_job_handed_out_too_often_becomes_a_dead_letter(broker: Broker, group: bytes, request_id: bytes) -> None:
    gateway = secrets.token_bytes(20)
    await broker.publish_job(group, 1, call_of(b"poison", gateway), request=request_id)
    async with aclosing(broker.jobs(group)) as jobs:
        for _ in range(MAX_DELIVERIES):
            [delivery] = await take(jobs, 1)
            await delivery.nak()
        burying = asyncio.ensure_future(anext(jobs))
        async with aclosing(broker.results(gateway, request_id)) as results:
            [result] = await take(results, 1)
        assert result.event.error.code == "job_given_up"
        async with asyncio.timeout(SOON_S):
            while await broker.backlog(group):  # noqa: ASYNC110 - the other side is a server
                await asyncio.sleep(0.01)
        burying.cancel()
        await asyncio.wait({burying})
    assert request_id in {letter.request for letter in await broker.dead_letters()}


async def test_reader_cancelled_while_it_fetches_strands_no_job(broker: Broker, group: bytes) -> None:
    requests = [secrets.token_bytes(32) for _ in range(12)]
    seen: list[bytes] = []
    for request in requests:
        jobs = broker.jobs(group)
        reading = asyncio.ensure_future(anext(jobs))
        await asyncio.sleep(secrets.randbelow(20) / 1000)
        await broker.publish_job(group, 1, call_of(), request=request)
        reading.cancel()
        await asyncio.wait({reading})
        if not reading.cancelled():
            await reading.result().ack()
            seen.append(reading.result().request)
        await jobs.aclose()  # type: ignore[attr-defined]
    left = len(requests) - len(seen)
    async with aclosing(broker.jobs(group)) as jobs, asyncio.timeout(SOON_S):  # below one lease
        for _ in range(left):
            delivery: Delivery = await anext(jobs)
            await delivery.ack()
            seen.append(delivery.request)
    assert sorted(seen) == sorted(requests)


async def test_results_are_read_in_order_and_resumed(broker: Broker, request_id: bytes) -> None:
    gateway, worker = secrets.token_bytes(20), secrets.token_bytes(20)
    for number in range(5):
        await broker.publish_result(gateway, request_id, worker, event_of(request_id, b"%d" % number), key=str(number))
    async with aclosing(broker.results(gateway, request_id)) as results:
        first = await take(results, 3)
    async with aclosing(broker.results(gateway, request_id, after=first[-1].sequence)) as results:
        rest = await take(results, 2)
        assert await nothing_comes(results)
    sealed = [result.event.chunk.sealed for result in first + rest]
    assert sealed == [b"0", b"1", b"2", b"3", b"4"]
    assert {result.worker for result in first + rest} == {worker}


async def test_result_published_again_is_not_doubled(broker: Broker, request_id: bytes) -> None:
    gateway, worker = secrets.token_bytes(20), secrets.token_bytes(20)
    for _ in range(3):
        await broker.publish_result(gateway, request_id, worker, event_of(request_id, b"a"), key="1.0")
    await broker.publish_result(gateway, request_id, worker, event_of(request_id, b"b"), key="1.1")
    async with aclosing(broker.results(gateway, request_id)) as results:
        assert [result.event.chunk.sealed for result in await take(results, 2)] == [b"a", b"b"]
        assert await nothing_comes(results)


async def test_results_of_two_workers_are_told_apart(broker: Broker, request_id: bytes) -> None:
    gateway, workers = secrets.token_bytes(20), [secrets.token_bytes(20) for _ in range(2)]
    for worker in workers:
        await broker.publish_result(gateway, request_id, worker, event_of(request_id, worker), key="1.0")
    async with aclosing(broker.results(gateway, request_id)) as results:
        taken = await take(results, 2)
    assert [result.worker for result in taken] == workers
    assert [result.event.chunk.sealed for result in taken] == workers


async def test_results_awaited_arrive_without_polling(
    broker: Broker, request_id: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waking, "_LOOK_S", 60.0)
    gateway, worker = secrets.token_bytes(20), secrets.token_bytes(20)
    async with aclosing(broker.results(gateway, request_id)) as results:
        waiting = asyncio.create_task(take(results, 1))
        await asyncio.sleep(0.1)
        await broker.publish_result(gateway, request_id, worker, event_of(request_id, b"x"), key="0")
        await waiting


async def test_results_forgotten_are_gone_and_others_stay(broker: Broker, request_id: bytes) -> None:
    gateway, worker, other = secrets.token_bytes(20), secrets.token_bytes(20), secrets.token_bytes(32)
    for request in (request_id, other):
        await broker.publish_result(gateway, request, worker, event_of(request, b"x"), key="0")
    await broker.forget_results(gateway, request_id)
    async with aclosing(broker.results(gateway, request_id)) as results:
        assert await nothing_comes(results)
    async with aclosing(broker.results(gateway, other)) as results:
        assert len(await take(results, 1)) == 1


async def test_last_payment_takes_the_place_of_those_before_it(broker: Broker, request_id: bytes) -> None:
    worker, other = secrets.token_bytes(20), secrets.token_bytes(32)
    await broker.publish_pay(worker, other, notice_of(4), key="4")
    async with aclosing(broker.payments(worker, request_id)) as notices:
        for to in (4, 8):
            await broker.publish_pay(worker, request_id, notice_of(to), key=str(to))
        before = await take(notices, 2)
        for _ in range(2):
            await broker.publish_pay(worker, request_id, notice_of(16), key="16", last=True)
        assert [item.notice.cancel.message.to for item in before + await take(notices, 1)] == [4, 8, 16]
        assert await nothing_comes(notices)
    for request, to in ((request_id, 16), (other, 4)):
        async with aclosing(broker.payments(worker, request)) as notices:
            assert [item.notice.cancel.message.to for item in await take(notices, 1)] == [to]
            assert await nothing_comes(notices)


async def test_payments_reach_their_worker_once_and_resume(broker: Broker, request_id: bytes) -> None:
    worker = secrets.token_bytes(20)
    for to in (4, 4, 8):
        await broker.publish_pay(worker, request_id, notice_of(to), key=str(to))
    async with aclosing(broker.payments(worker, request_id)) as notices:
        taken = await take(notices, 2)
        assert await nothing_comes(notices)
    assert [item.notice.cancel.message.to for item in taken] == [4, 8]
    async with aclosing(broker.payments(worker, request_id, after=taken[0].sequence)) as notices:
        assert [item.notice.cancel.message.to for item in await take(notices, 1)] == [8]


async def test_acks_reach_their_gateway(broker: Broker, request_id: bytes) -> None:
    gateway = secrets.token_bytes(20)
    await broker.publish_ack(gateway, request_id, signed_pb2.Acknowledgement(credit=bytes(12)), key="1")
    async with aclosing(broker.acks(gateway, request_id)) as acks:
        [taken] = await take(acks, 1)
    assert taken.ack.credit == bytes(12)


async def test_offers_put_replaced_and_withdrawn_are_listed(broker: Broker, group: bytes) -> None:
    first, second, model = secrets.token_bytes(20), secrets.token_bytes(20), secrets.token_bytes(32)
    before = [offer.body for offer in await broker.offers()]
    await broker.offer(first, model, gateway_pb2.WorkerOffer(body=b"old"), group=group)
    await broker.offer(first, model, gateway_pb2.WorkerOffer(body=b"new"), group=group)
    await broker.offer(second, model, gateway_pb2.WorkerOffer(body=b"other"), group=group)
    await broker.offer(first, model, gateway_pb2.WorkerOffer(body=b"elsewhere"), group=secrets.token_bytes(8))
    bodies = [offer.body for offer in await broker.offers()]
    assert sorted(bodies) == sorted([*before, b"new", b"other", b"elsewhere"])
    await broker.withdraw_offer(first, model, group=group)
    await broker.withdraw_offer(second, model, group=group)
    assert sorted(offer.body for offer in await broker.offers()) == sorted([*before, b"elsewhere"])


async def brought(broker: Broker, request: bytes, *prompts: bytes) -> None:
    for prompt in prompts:
        await broker.bring_prompt(request, gateway_pb2.PromptCall(request=request, prompt=prompt))


async def test_prompts_brought_for_a_request_are_read_in_order_and_only_once(broker: Broker, request_id: bytes) -> None:
    other = secrets.token_bytes(32)
    assert await broker.prompts(request_id) == []
    await brought(broker, request_id, b"garbage", b"fits")
    await brought(broker, other, b"another's")

    first = await broker.prompts(request_id)
    await brought(broker, request_id, b"garbage")  # whoever comes later takes nothing away
    later = await broker.prompts(request_id, after=first[-1].sequence)

    assert [each.call.prompt for each in first] == [b"garbage", b"fits"]
    assert [each.call.prompt for each in later] == [b"garbage"]
    assert await broker.prompts(request_id, after=later[-1].sequence) == []
    assert [each.call.prompt for each in await broker.prompts(other)] == [b"another's"]


async def test_prompts_of_one_request_are_bounded_by_the_newest(broker: Broker, request_id: bytes) -> None:
    await brought(broker, request_id, *(b"%d" % number for number in range(PROMPTS_KEPT + 3)))

    kept = [each.call.prompt for each in await broker.prompts(request_id)]

    assert kept == [b"%d" % number for number in range(3, PROMPTS_KEPT + 3)]


async def test_message_above_the_limit_raises(broker: Broker, group: bytes, request_id: bytes) -> None:
    with pytest.raises(MessageTooLargeError):
        await broker.publish_job(group, 1, call_of(bytes(1_000_001)), request=request_id)
    with pytest.raises(MessageTooLargeError):
        await brought(broker, request_id, bytes(1_000_001))


async def test_closed_broker_refuses_calls(broker: Broker, group: bytes, request_id: bytes) -> None:
    await broker.close()
    with pytest.raises(BrokerClosedError):
        await broker.publish_job(group, 1, call_of(), request=request_id)
    with pytest.raises(BrokerClosedError):
        await brought(broker, request_id, b"sealed")
    with pytest.raises(BrokerClosedError):
        await broker.prompts(request_id)


async def test_memory_broker_forgets_prompts_after_their_life(request_id: bytes) -> None:
    now = [0.0]
    broker = MemoryBroker(lambda: now[0])
    await brought(broker, request_id, b"sealed")
    now[0] = PROMPT_LIFE_S - 1
    assert len(await broker.prompts(request_id)) == 1
    now[0] = PROMPT_LIFE_S
    assert await broker.prompts(request_id) == []
    await broker.close()
