"""What the flood counts: refusals that break their promises, queues that were not full, memory that grows."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from bench.swarm.crowd import Usage, by_minute, growth_a_minute, worst_growth
from bench.swarm.tally import Answered, Caller, Tally, share, waits

from plait.protocol.pb import signed_pb2

FULL = "72 jobs wait or run in this group, it takes 72; come back when some are done"


def refusal(code: str, text: str, *, retry_after: str | None = "3") -> httpx.Response:
    body = signed_pb2.Fault(code=code, text=text, retry=True).SerializeToString()
    return httpx.Response(503, content=body, headers={"retry-after": retry_after} if retry_after else {})


def quoted(limit: int) -> httpx.Response:
    return httpx.Response(200, headers={"plait-queue-limit": str(limit)})


def crowd(count: int) -> set[Caller]:
    return {asyncio.ensure_future(asyncio.sleep(0)) for _ in range(count)}


def answered(*, called: float, accepted: float, first: float) -> Answered:
    return Answered(
        request="0x", called=called, accepted=accepted, first=first, ended=9.0, tokens=1, paid=1, acknowledged=True
    )


async def test_refusal_for_a_full_queue_is_counted_and_nothing_is_wrong_with_it() -> None:
    tally = Tally(queued=crowd(71), posting={asyncio.current_task()})
    tally.saw("/v1/quotes", quoted(72), 0.0)
    tally.saw("/v1/jobs", refusal("busy", FULL), 0.0)
    assert tally.refused == {"503 busy at /v1/jobs": 1}
    assert (tally.broken, tally.early, tally.fullness) == ([], [], [1.0])
    assert [post.status for post in tally.posts] == [503]


@pytest.mark.parametrize(
    ("queued", "limit", "text"), [(40, 72, FULL), (72, 90, FULL), (72, 72, "come back later")], ids=str
)
async def test_refusal_before_the_advertised_queue_is_full_is_early(queued: int, limit: int, text: str) -> None:
    tally = Tally(queued=crowd(queued))
    tally.saw("/v1/quotes", quoted(limit), 0.0)
    tally.saw("/v1/jobs", refusal("busy", text), 0.0)
    assert len(tally.early) == 1


@pytest.mark.parametrize(
    "response",
    [
        refusal("busy", FULL, retry_after=None),
        refusal("busy", FULL, retry_after="soon"),
        refusal("broker_away", ""),
        httpx.Response(500, text="oops"),
    ],
    ids=["no time", "a time that is none", "no reason", "no fault"],
)
async def test_refusal_without_reason_or_time_is_broken(response: httpx.Response) -> None:
    tally = Tally(queued=crowd(72), limit=72)
    tally.saw("/v1/jobs", response, 0.0)
    assert len(tally.broken) == 1


def test_waits_are_from_acceptance_and_from_the_call() -> None:
    found = waits([answered(called=0.0, accepted=first - 1.0, first=first) for first in (2.0, 3.0, 5.0)])
    assert found["queueing_s"] == {"p50": 1.0, "p99": 1.0, "most": 1.0}
    assert found["waiting_s"] == {"p50": 3.0, "p99": 5.0, "most": 5.0}
    assert waits([]) == {}
    assert share([], 0.5) == 0.0


def test_growth_leaves_the_first_third_out() -> None:
    at = [10.0 * step for step in range(61)]
    warming = [min(100.0 + second, 300.0) for second in at]
    assert growth_a_minute(at, warming) == pytest.approx(0.0, abs=1e-9)
    leaking = [200.0 + second / 10 for second in at]  # six a minute, 240 in the middle of the rest
    assert growth_a_minute(at, leaking) == pytest.approx(6 / 240)
    assert growth_a_minute([], []) == growth_a_minute([0.0, 1.0], [1.0, 2.0]) == 0.0
    assert by_minute(at, leaking)[:2] == [202.5, 208.5]


def test_growth_counts_of_nodes_and_broker_alone() -> None:
    leaking = Usage(at=[0.0, 60.0, 120.0, 180.0, 240.0], mib=[100.0, 100.0, 110.0, 120.0, 130.0])
    steady = Usage(at=[0.0, 60.0, 120.0, 180.0, 240.0], mib=[100.0] * 5)
    assert worst_growth({"gateway": steady, "anvil": leaking, "callers": leaking}) == pytest.approx(0.0, abs=1e-9)
    assert worst_growth({"gateway": steady, "worker": leaking}) > 0.05
