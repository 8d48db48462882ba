"""A worker takes a job when it has room for it: what waits stays with the group, and is not counted as tried."""

from __future__ import annotations

import asyncio
import secrets
import time

from plait.protocol.pb import gateway_pb2
from plait_node.broker import Delivery, MemoryBroker
from plait_node.worker import WorkerConfig, WorkerRole

GROUP = bytes(8)
LEASE_S = 2.0


class Slow(WorkerRole):
    """Holds every job until it is let go."""

    def __init__(self, broker: MemoryBroker) -> None:
        super().__init__(
            WorkerConfig(group=GROUP, parallel_jobs=1),
            tools=None,
            planner=None,
            admission=None,
            announcer=None,
            broker=broker,
        )
        self.held: list[Delivery] = []
        self.go = asyncio.Event()

    async def take(self, delivery: Delivery) -> None:
        self.held.append(delivery)
        async with delivery.working():
            await self.go.wait()
        await delivery.ack()


async def test_jobs_beyond_a_workers_room_stay_with_the_group_for_others() -> None:
    broker = MemoryBroker(time.time, ack_wait_s=LEASE_S)
    busy, other = Slow(broker), Slow(broker)
    for _ in range(3):
        await broker.publish_job(GROUP, 1, gateway_pb2.JobCall(), request=secrets.token_bytes(32))
    running = [asyncio.create_task(busy.run())]
    await asyncio.sleep(1.5 * LEASE_S)
    assert len(busy.held) == 1

    running.append(asyncio.create_task(other.run()))
    async with asyncio.timeout(0.9 * LEASE_S):  # at once, not after a lease
        while not other.held:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)

    busy.go.set()
    other.go.set()
    async with asyncio.timeout(60):
        while await broker.backlog(GROUP):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
    assert [each.deliveries for each in busy.held + other.held] == [1, 1, 1]
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await broker.close()
