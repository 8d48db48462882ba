"""Stopping politely: nothing new, what runs is finished within a limit, a second signal ends at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

from plait_node.app.drain import Drain, Stopping


class Role:
    """A role with jobs that take a while."""

    def __init__(self) -> None:
        self.closed = 0
        self.jobs = 1

    async def close(self) -> None:
        self.closed += 1

    def busy(self) -> bool:
        return self.jobs > 0


def drain_of(*roles: Role) -> Drain:
    drain = Drain()
    for role in roles:
        drain.add(close=role.close, busy=role.busy)
    return drain


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what is looked at has no event
            await asyncio.sleep(0.01)


async def test_drain_closes_every_role_and_waits_for_their_jobs() -> None:
    one, two = Role(), Role()
    drain = drain_of(one, two)
    running = asyncio.create_task(drain.run(60.0))
    await until(lambda: (one.closed, two.closed) == (1, 1))
    assert drain.begun
    one.jobs = 0
    await asyncio.sleep(0.8)
    assert not running.done()
    two.jobs = 0
    assert await running


async def test_drain_waits_for_work_that_is_held() -> None:
    drain = Drain()
    with drain.held():
        running = asyncio.create_task(drain.run(60.0))
        await asyncio.sleep(0.8)
        assert not running.done()
    assert await running


async def test_drain_gives_up_at_its_limit() -> None:
    async with asyncio.timeout(60):
        assert not await drain_of(Role()).run(0.2)


async def test_drain_goes_on_where_one_role_cannot_withdraw() -> None:
    failing, other = Role(), Role()
    failing.jobs = other.jobs = 0

    async def fail() -> None:
        raise ConnectionError("the broker is away")

    drain = Drain()
    drain.add(close=fail, busy=failing.busy)
    drain.add(close=other.close, busy=other.busy)
    assert await drain.run(5.0)
    assert other.closed == 1


async def node(stages: list[str], *, ready: asyncio.Event) -> None:
    """Do what a node does around its roles."""
    serving = asyncio.current_task()
    assert serving is not None
    stopping = Stopping(serving)
    stopping.listen()
    try:
        ready.set()
        await stopping.asked()
        stages.append("draining")
        await asyncio.sleep(600.0)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().remove_signal_handler(number)
        stages.append("ended")


async def test_second_signal_ends_a_drain_at_once() -> None:
    stages: list[str] = []
    ready = asyncio.Event()
    running = asyncio.create_task(node(stages, ready=ready))
    await ready.wait()
    await asyncio.sleep(0)
    os.kill(os.getpid(), signal.SIGTERM)
    await until(lambda: stages == ["draining"])
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait({running}, timeout=60.0)
    assert running.cancelled()
    assert stages == ["draining", "ended"]


async def test_signal_during_the_start_ends_it() -> None:
    async def starting() -> None:
        serving = asyncio.current_task()
        assert serving is not None
        Stopping(serving).signalled()
        await asyncio.sleep(600.0)

    running = asyncio.create_task(starting())
    await asyncio.wait({running}, timeout=60.0)
    assert running.cancelled()
