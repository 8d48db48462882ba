"""Back-pressure: who is refused, with which status, and when a refused one should come back."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st
from tests.node.gateway.stand import Stand, fault

from plait.protocol import codec
from plait.protocol.errors import BusyError, PlaitError, TooManyCallsError
from plait.protocol.ids import Group, keccak
from plait.protocol.pb import gateway_pb2
from plait_node.broker import LocalServer, MemoryBroker, NatsBroker
from plait_node.gateway import offers
from plait_node.gateway.limits import CallLimiter, retry_after_s
from plait_node.gateway.queues import GroupQueues, ServiceRate, limit_of

GROUP = Group(bytes(8))


@pytest_asyncio.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    made = Stand(tmp_path)
    await made.offer(room=1)
    yield made
    await made.broker.close()


class FarBroker(MemoryBroker):
    """A broker whose answers take their time."""

    delay_s = 0.0

    async def backlog(self, group: bytes) -> int:
        await asyncio.sleep(self.delay_s)
        found = await super().backlog(group)
        await asyncio.sleep(self.delay_s)
        return found


class Line:
    """A group's queue in memory under a clock that the test moves, and a worker that ends jobs when it is told."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.broker = FarBroker(lambda: self.now, ack_wait_s=1_000.0)
        self.queues = GroupQueues(self.broker, lambda: self.now)

    async def publish(self, room: int) -> None:
        async with self.queues.place(GROUP, room):
            await self.broker.publish_job(GROUP, 1, gateway_pb2.JobCall(), request=secrets.token_bytes(32))

    async def end(self, count: int) -> None:
        async with aclosing(self.broker.jobs(GROUP)) as jobs:
            for _ in range(count):
                await (await anext(jobs)).ack()

    async def refused(self, room: int) -> BusyError:
        with pytest.raises(BusyError) as caught:
            await self.publish(room)
        return caught.value


@pytest.mark.parametrize("delay_s", [0.0, 0.004])
async def test_queue_takes_what_it_advertises_and_no_more_however_many_come_at_once(delay_s: float) -> None:
    line = Line()
    line.broker.delay_s = delay_s

    outcomes = await asyncio.gather(*(line.publish(2) for _ in range(60)), return_exceptions=True)

    refused = [each for each in outcomes if each is not None]
    assert len(outcomes) - len(refused) == limit_of(2) == await line.broker.backlog(GROUP)
    assert all(isinstance(each, BusyError) and "it takes 18" in each.text for each in refused)


async def test_queue_tells_when_a_place_comes_free_by_measured_rate() -> None:
    line = Line()
    for _ in range(limit_of(1)):
        await line.publish(1)
    for _ in range(10):  # it ends two jobs in four seconds, and gets two again
        line.now += 4.0
        await line.end(2)
        for _ in range(2):
            await line.publish(1)

    waits = [(await line.refused(1)).retry_after_s for _ in range(3)]

    assert waits == pytest.approx([2.0, 4.0, 6.0])  # 0.5 jobs a second: one place after another


async def test_queue_without_a_measure_guesses_ten_seconds_a_job() -> None:
    line = Line()
    for _ in range(limit_of(2)):
        await line.publish(2)
    assert (await line.refused(2)).retry_after_s == pytest.approx(5.0)


async def test_queue_never_tells_to_wait_for_more_than_a_minute() -> None:
    line = Line()
    for _ in range(limit_of(1)):
        await line.publish(1)
    waits = [(await line.refused(1)).retry_after_s for _ in range(20)]
    assert waits[-1] == 60.0
    line.now += 61.0
    assert (await line.refused(1)).retry_after_s == pytest.approx(10.0)  # those who were told are forgotten by then


async def test_place_whose_job_was_not_published_is_free_again() -> None:
    line = Line()
    for _ in range(limit_of(1) + 3):
        with pytest.raises(ZeroDivisionError):
            async with line.queues.place(GROUP, 1):
                raise ZeroDivisionError
    await line.publish(1)
    assert await line.broker.backlog(GROUP) == 1


@given(st.lists(st.tuples(st.floats(0.1, 30), st.integers(0, 50), st.booleans()), max_size=60))
def test_rate_is_between_the_slowest_and_the_fastest_that_was_seen(steps: list[tuple[float, int, bool]]) -> None:
    rate, now, ended = ServiceRate(), 0.0, 0
    for passed, done, saturated in steps:
        now, ended = now + passed, ended + done
        rate.observe(now, ended, saturated=saturated)
    assert rate.per_s is None or 0 <= rate.per_s <= max(done / passed for passed, done, _ in steps) * (1 + 1e-6)


def test_rate_ignores_idle_times() -> None:
    rate = ServiceRate()
    for second, ended, saturated in ((0, 0, True), (10, 20, True), (100, 21, False), (200, 22, False)):
        rate.observe(second, ended, saturated=saturated)
    assert rate.per_s == 2.0


async def test_full_group_is_answered_503_with_the_seconds_to_wait(stand: Stand) -> None:
    async with stand.running() as client:
        quote = await stand.quote(client)
        job = gateway_pb2.JobCall(quote=codec.signed_to_pb(quote))
        for number in range(limit_of(1)):
            await stand.broker.publish_job(quote.message.group, 1, job, request=keccak(bytes([number])))
        responses = [await stand.submit(client, stand.ask(quote)) for _ in range(3)]
    assert [(each.status_code, fault(each).code, fault(each).retry) for each in responses] == [(503, "busy", True)] * 3
    assert [each.headers["retry-after"] for each in responses] == ["10", "20", "30"]


async def test_quote_says_how_many_jobs_its_group_takes(stand: Stand) -> None:
    call = gateway_pb2.QuoteCall(model=stand.swarm.manifest.model_id).SerializeToString()
    async with stand.running() as client:
        response = await client.post("/v1/quotes", content=call)
    assert response.headers["plait-queue-limit"] == str(limit_of(1))


async def test_jobs_sent_at_once_are_taken_up_to_the_advertised_limit(stand: Stand) -> None:
    async with stand.running() as client:
        quote = await stand.quote(client)
        asked = [stand.ask(quote) for _ in range(20)]
        outcomes = await asyncio.gather(*(stand.submit(client, each) for each in asked))
    codes = Counter(200 if each.status_code == 200 else fault(each).code for each in outcomes)
    assert codes[200] <= limit_of(1)
    assert set(codes) <= {200, "busy", "stale_voucher"}  # a channel's vouchers are taken in their order
    assert codes[200] + codes["busy"] + codes["stale_voucher"] == 20


async def test_payer_who_sends_too_many_jobs_is_answered_429_and_may_come_back(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offers, "JOBS_PER_S", 0.25)
    monkeypatch.setattr(offers, "JOBS_BURST", 2.0)
    async with stand.running() as client:
        quote = await stand.quote(client)
        for _ in range(2):
            assert (await stand.submit(client, stand.ask(quote))).status_code == 200
        asked = stand.ask(quote)
        refused = await stand.submit(client, asked)
        assert (refused.status_code, fault(refused).code, refused.headers["retry-after"]) == (
            429,
            "too_many_calls",
            "4",
        )
        assert "payer 0x" in fault(refused).text
        stand.now += 4.0
        await stand.offer(room=1)
        assert (await stand.submit(client, asked)).status_code == 200


async def test_group_without_a_worker_and_broker_away_say_when_to_come_back(stand: Stand) -> None:
    async with stand.running() as client:
        quote = await stand.quote(client)
        stand.now += 61.0
        gone = await stand.submit(client, stand.ask(quote))
        assert (gone.status_code, fault(gone).code, gone.headers["retry-after"]) == (503, "no_route", "5")
        stand.now += 2.0
        await stand.broker.close()
        away = await stand.submit(client, stand.ask(quote))
    assert (away.status_code, fault(away).code, away.headers["retry-after"]) == (503, "broker_away", "3")


async def test_refusal_that_cannot_be_mended_by_waiting_names_no_time(stand: Stand) -> None:
    async with stand.running() as client:
        response = await client.post("/v1/jobs", content=b"\xff")
    assert response.status_code == 400
    assert "retry-after" not in response.headers


def test_limiter_lets_hundreds_of_callers_behind_one_address_begin_at_once() -> None:
    limiter = CallLimiter(lambda: 0.0)
    for _ in range(3 * 200):  # each looks at the models, asks for a quote, and compares its channel
        limiter.check("a")
        limiter.charge("a")


def test_limiter_says_when_the_next_call_is_there() -> None:
    now = [0.0]
    limiter = CallLimiter(lambda: now[0], per_s=2.0, burst=3.0)
    for _ in range(3):
        limiter.check("a")
        limiter.charge("a")
    with pytest.raises(TooManyCallsError) as caught:
        limiter.check("a")
    assert caught.value.retry_after_s == pytest.approx(0.5)
    now[0] += caught.value.retry_after_s
    limiter.check("a")


def test_retry_after_is_whole_seconds_and_never_too_early() -> None:
    error = BusyError("full")
    for seconds, said in ((0.0, 1), (0.2, 1), (1.0, 1), (1.01, 2), (59.5, 60)):
        error.retry_after_s = seconds
        assert retry_after_s(error) == said
    assert retry_after_s(PlaitError("never")) == 0


async def test_broker_that_is_silent_is_told_of_before_the_payer_leaves(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(_: MemoryBroker) -> list[gateway_pb2.WorkerOffer]:
        await asyncio.sleep(60)
        return []

    monkeypatch.setattr(offers, "_READ_S", 0.05)
    monkeypatch.setattr(MemoryBroker, "offers", silent)
    async with stand.running() as client, asyncio.timeout(50):
        response = await client.get("/v1/models")
    assert (response.status_code, fault(response).code, response.headers["retry-after"]) == (503, "broker_away", "3")


async def test_job_refused_while_the_broker_is_away_is_taken_once_it_is_back(tmp_path: Path) -> None:
    server = await LocalServer.start(tmp_path / "nats")
    broker = await NatsBroker.connect(server.url)
    stand = Stand(tmp_path, broker)
    async with stand.running() as client:
        await stand.offer()
        asked = stand.ask(await stand.quote(client))
        await server.stop()
        away = await stand.submit(client, asked)
        assert (away.status_code, fault(away).code, away.headers["retry-after"]) == (503, "broker_away", "3")

        back = await LocalServer.start(server.directory, port=server.port)
        stand.now += 2.0
        async with asyncio.timeout(60):
            while (response := await stand.submit(client, asked)).status_code == 503:
                assert response.headers["retry-after"] == "3"
        assert response.status_code == 200, fault(response)
        assert await broker.backlog(asked.quote.message.group) == 1
    await broker.close()
    await back.stop()
