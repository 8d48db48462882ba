"""A worker follows its class and its owner's tier into the right group, and leaves no job behind that it may do."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from plait.protocol.errors import PlaitError
from plait.protocol.ids import Address, Group, Hash, group_id
from plait.protocol.pb import gateway_pb2
from plait_node.broker import MemoryBroker
from plait_node.worker import Membership

MODEL, OWNER = Hash(bytes(32)), Address(b"\7" * 20)
FAST, SLOW = 0.01, 1.0


class Tiers:
    def __init__(self) -> None:
        self.now = 2
        self.down = False

    async def tier(self, owner: Address) -> int:
        if self.down:
            raise PlaitError("the RPC is down")
        return self.now


class Desk:
    def __init__(self, path: Path) -> None:
        self.time = 0.0
        self.path = path
        self.tiers = Tiers()
        self.broker = MemoryBroker(time.time, ack_wait_s=30.0)
        self.start()

    def start(self, model: Hash = MODEL) -> None:
        """Start a worker from what the last one left on disk."""
        self.member = Membership(model, "cpu", owner=OWNER, tiers=self.tiers, clock=lambda: self.time, path=self.path)
        self.jobs = self.member.jobs(self.broker)

    async def restart(self, model: Hash = MODEL) -> None:
        await self.jobs.aclose()
        self.start(model)

    async def publish(self, group: Group) -> bytes:
        request = secrets.token_bytes(32)
        await self.broker.publish_job(group, 1, gateway_pb2.JobCall(), request=request)
        return request

    async def taken(self, deadline_s: float = 30.0) -> bytes | None:
        """Return the next job's request, None when none comes."""
        try:
            async with asyncio.timeout(deadline_s):
                delivery = await anext(self.jobs)
        except TimeoutError:
            self.jobs = self.member.jobs(self.broker)
            return None
        await delivery.ack()
        return delivery.request


@pytest_asyncio.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    made = Desk(tmp_path / "groups.json")
    yield made
    await made.jobs.aclose()
    await made.broker.close()


def group_of(name: str, tier: int) -> Group:
    return group_id(MODEL, name, tier, 0)


async def test_worker_takes_jobs_of_the_group_that_measure_and_chain_put_it_in(desk: Desk) -> None:
    waiting = asyncio.create_task(desk.taken())
    group = await desk.member.observe(room=5_000, step_s=FAST)
    assert group == group_of("cpu-medium-fast", 2)
    request = await desk.publish(group)
    await desk.publish(group_of("cpu-short-fast", 2))
    assert await waiting == request
    assert await desk.taken(0.2) is None


async def test_worker_that_waits_moves_at_once_when_its_class_changes(desk: Desk) -> None:
    await desk.member.observe(room=100, step_s=SLOW)
    waiting = asyncio.create_task(desk.taken())
    await asyncio.sleep(0.05)
    group = await desk.member.observe(room=100, step_s=FAST)
    request = await desk.publish(group)
    assert await waiting == request


async def test_worker_still_takes_what_was_quoted_for_the_class_it_left(desk: Desk) -> None:
    left = await desk.member.observe(room=100, step_s=SLOW)
    now_in = await desk.member.observe(room=100, step_s=FAST)
    requests = [await desk.publish(left), await desk.publish(now_in), await desk.publish(left)]
    assert {await desk.taken() for _ in requests} == set(requests)
    late = await desk.publish(left)
    waiting = asyncio.create_task(desk.taken())
    assert await waiting == late
    desk.time += 301.0
    await desk.publish(left)
    assert await desk.taken(0.5) is None


async def test_worker_whose_owner_lost_the_tier_takes_no_job_of_it(desk: Desk) -> None:
    high = await desk.member.observe(room=100, step_s=FAST)
    waiting = asyncio.create_task(desk.taken())
    await asyncio.sleep(0.05)
    desk.tiers.now = 0
    low = await desk.member.observe(room=100, step_s=FAST)
    await desk.publish(high)
    request = await desk.publish(low)
    assert await waiting == request
    assert await desk.taken(0.5) is None
    assert await desk.broker.backlog(high) == 1


async def test_worker_keeps_its_tier_while_the_chain_is_away(desk: Desk) -> None:
    group = await desk.member.observe(room=100, step_s=FAST)
    desk.tiers.down = True
    assert await desk.member.observe(room=100, step_s=FAST) == group


async def test_look_that_is_given_up_strands_no_job(desk: Desk) -> None:
    group = await desk.member.observe(room=100, step_s=FAST)
    for _ in range(20):
        looking = asyncio.create_task(desk.taken())
        await asyncio.sleep(secrets.randbelow(4) / 1_000)
        request = await desk.publish(group)
        looking.cancel()
        await asyncio.wait({looking})
        if looking.cancelled():
            desk.jobs = desk.member.jobs(desk.broker)
            assert await desk.taken() == request


async def test_worker_that_died_finds_what_waits_in_its_group_though_its_class_is_another_now(desk: Desk) -> None:
    first = await desk.member.observe(room=100, step_s=SLOW)
    second = await desk.member.observe(room=100, step_s=FAST)
    requests = {await desk.publish(first), await desk.publish(second)}
    await desk.restart()
    await desk.member.observe(room=5_000, step_s=FAST)
    assert {await desk.taken(), await desk.taken()} == requests
    desk.time += 301.0
    await desk.publish(second)
    assert await desk.taken(0.5) is None


async def test_worker_that_died_and_lost_its_tier_meanwhile_takes_no_job_of_it(desk: Desk) -> None:
    high = await desk.member.observe(room=100, step_s=FAST)
    await desk.publish(high)
    desk.tiers.now = 1
    await desk.restart()
    await desk.member.observe(room=100, step_s=FAST)
    assert await desk.taken(0.5) is None


async def test_worker_of_another_model_takes_no_job_of_the_one_before(desk: Desk) -> None:
    await desk.publish(await desk.member.observe(room=100, step_s=FAST))
    await desk.restart(Hash(b"\1" * 32))
    await desk.member.observe(room=100, step_s=SLOW)
    assert await desk.taken(0.5) is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"model": "00"}', "[" * 100_000, '{"model": "%s", "tier": 1, "groups": ["00"]}']
)
async def test_worker_whose_file_is_damaged_takes_new_jobs(desk: Desk, text: str) -> None:
    desk.path.write_text(text.replace("%s", MODEL.hex()), encoding="utf-8")
    await desk.restart()
    request = await desk.publish(await desk.member.observe(room=100, step_s=FAST))
    assert await desk.taken() == request


async def test_worker_whose_file_cannot_be_written_works_on(desk: Desk) -> None:
    desk.path = desk.path / "nowhere" / "groups.json"
    await desk.restart()
    request = await desk.publish(await desk.member.observe(room=100, step_s=FAST))
    assert await desk.taken() == request
