from __future__ import annotations

import asyncio

from plait_node.wire.deadline import SharedDeadline


async def test_deadline_tells_of_a_wait_that_lasts_and_of_none_that_ends() -> None:
    told = asyncio.Event()
    deadline = SharedDeadline(0.1, told.set)
    for _ in range(30):
        deadline.begin()
        await asyncio.sleep(0.005)
        deadline.end()
    assert not told.is_set()
    deadline.begin()
    async with asyncio.timeout(10):
        await told.wait()
    told.clear()
    deadline.begin()
    async with asyncio.timeout(10):
        await told.wait()


async def test_deadline_of_a_wait_begins_with_it_and_not_with_the_one_before() -> None:
    loop = asyncio.get_running_loop()
    told: asyncio.Future[float] = loop.create_future()
    deadline = SharedDeadline(0.2, lambda: told.set_result(loop.time()))
    deadline.begin()
    await asyncio.sleep(0.15)
    deadline.end()
    deadline.begin()
    began = loop.time()
    async with asyncio.timeout(10):
        assert await told - began >= 0.2


async def test_stopped_deadline_tells_of_nothing() -> None:
    told: list[int] = []
    deadline = SharedDeadline(0.02, lambda: told.append(1))
    deadline.begin()
    deadline.stop()
    await asyncio.sleep(0.1)
    assert not told
