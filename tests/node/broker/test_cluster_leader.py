"""The leader of a three-server cluster dies while jobs are published, taken and answered."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from contextlib import aclosing, suppress
from itertools import pairwise
from time import monotonic

import pytest
from tests.node.broker.cluster import Cluster
from tests.node.broker.test_cluster import call_of, emptied
from tests.node.broker.waiting import SOON_S

from plait.protocol.pb import gateway_pb2
from plait_node.broker import BrokerError, NatsBroker
from plait_node.broker.subjects import JOBS

pytestmark = pytest.mark.timeout(240)

WORK_S = 0.05
OUTAGE_S = 15.0


class Load:
    """A gateway that never stops publishing and two workers that never stop answering."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.published: dict[bytes, float] = {}  # when the broker had it
        self.begun: dict[bytes, float] = {}
        self.taken: Counter[bytes] = Counter()
        self.completed: Counter[bytes] = Counter()
        self.refused = 0
        self.stopping = False

    async def publish(self, broker: NatsBroker) -> None:
        while not self.stopping:
            request = secrets.token_bytes(32)
            self.begun[request] = monotonic()
            while request not in self.published:
                try:
                    await broker.publish_job(self.cluster.group, 1, call_of(self.cluster), request=request)
                except BrokerError:
                    self.refused += 1  # a gateway answers 503; its payer makes the same call again
                else:
                    self.published[request] = monotonic()
            await asyncio.sleep(0.02)

    async def work(self, broker: NatsBroker, me: bytes) -> None:
        async with aclosing(broker.jobs(self.cluster.group)) as jobs:
            async for delivery in jobs:
                self.taken[delivery.request] += 1
                # As a worker does: an acknowledgement may have died with the leader, what it acknowledged did not.
                if delivery.deliveries > 1 and await self.answers(broker, delivery.request):
                    await delivery.ack()
                    continue
                async with delivery.working():
                    await asyncio.sleep(WORK_S)
                    event = gateway_pb2.ResultEvent(request=delivery.request)
                    await broker.publish_result(self.cluster.gateway, delivery.request, me, event, key="1.0")
                await delivery.ack()
                self.completed[delivery.request] += 1

    async def answers(self, broker: NatsBroker, request: bytes, *, first_s: float = 3.0) -> int:
        """Count what the broker keeps of an answer; the copy that is asked may be behind for `first_s` seconds."""
        found = 0
        async with aclosing(broker.results(self.cluster.gateway, request)) as results:
            with suppress(TimeoutError):
                while True:
                    async with asyncio.timeout(0.5 if found else first_s):
                        await anext(results)
                    found += 1
        return found

    def longest_gap(self) -> float:
        times = sorted(self.published.values())
        return max(after - before for before, after in pairwise(times))

    async def under_way(self, count: int, deadline_s: float) -> None:
        """Wait until more jobs than that are done."""
        async with asyncio.timeout(deadline_s):
            while len(self.completed) <= count:  # noqa: ASYNC110 - the other side is a server
                await asyncio.sleep(0.1)

    async def drained(self, deadline_s: float) -> None:
        async with asyncio.timeout(deadline_s):
            while set(self.published) - set(self.completed):  # noqa: ASYNC110 - the other side is a server
                await asyncio.sleep(0.1)

    async def published_after(self, moment: float, deadline_s: float) -> float:
        """Wait for a job whose publishing began after a moment; return when the broker had it."""
        async with asyncio.timeout(deadline_s):
            while True:
                for request, begun in self.begun.items():
                    if begun > moment and request in self.published:
                        return self.published[request]
                await asyncio.sleep(0.02)


async def test_leader_killed_under_load_loses_no_job_and_completes_none_twice(cluster: Cluster) -> None:
    load = Load(cluster)
    brokers = [await cluster.as_gateway(), await cluster.as_worker(0), await cluster.as_worker(1)]
    publishing = asyncio.create_task(load.publish(brokers[0]))
    hired = zip(brokers[1:], cluster.workers[:2], strict=True)
    working = [asyncio.create_task(load.work(broker, owner)) for broker, owner in hired]
    await load.under_way(10, 60)
    leader = await cluster.leader(JOBS.name)
    cluster.kill(leader)
    killed = monotonic()
    first = await load.published_after(killed, 60) - killed
    await asyncio.sleep(5.0)
    load.stopping = True
    await publishing
    await load.drained(60)
    again = cluster.restart(leader)
    for task in working:
        task.cancel()
    await asyncio.gather(*working, return_exceptions=True)

    gap = load.longest_gap()
    retaken = [request for request, count in load.taken.items() if count > 1]
    print(  # noqa: T201 - the measure that the issue asks for
        f"\nleader {leader} of {JOBS.name} killed under load: {len(load.published)} jobs, published again after "
        f"{first:.2f} s (longest gap {gap:.2f} s), {load.refused} refusals, {len(retaken)} handed out again"
    )
    try:
        assert set(load.completed) == set(load.published)
        assert set(load.completed.values()) == {1}
        sample = [*retaken, *list(load.published)[::20]]
        assert [await load.answers(brokers[0], request, first_s=SOON_S) for request in sample] == [1] * len(sample)
        await emptied(brokers[0], cluster)
        assert gap <= OUTAGE_S
    finally:
        for broker in brokers:
            await broker.close()
        again.terminate()
        again.wait(timeout=60)
