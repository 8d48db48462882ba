from __future__ import annotations

import asyncio
import threading
from functools import partial

import pytest

from plait_node.stage.engine_thread import EngineThread


async def test_run_urgent_work_passes_what_waits() -> None:
    thread, gate, order = EngineThread(), threading.Event(), []
    first = asyncio.create_task(thread.run(partial(gate.wait, 5)))
    await asyncio.sleep(0.05)
    waiting = [asyncio.create_task(thread.run(partial(order.append, name))) for name in "ab"]
    await asyncio.sleep(0)
    urgent = asyncio.create_task(thread.run(partial(order.append, "urgent"), urgent=True))
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(first, urgent, *waiting)
    assert order == ["urgent", "a", "b"]
    thread.close()


async def test_run_cancelled_before_its_turn_is_never_done() -> None:
    thread, gate, order = EngineThread(), threading.Event(), []
    first = asyncio.create_task(thread.run(partial(gate.wait, 5)))
    await asyncio.sleep(0.05)
    second = asyncio.create_task(thread.run(partial(order.append, "second")))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    gate.set()
    await first
    await thread.run(partial(order.append, "third"))
    assert order == ["third"]
    thread.close()


async def test_run_error_reaches_the_caller_and_the_next_goes_on() -> None:
    thread = EngineThread()

    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await thread.run(fail)
    assert await thread.run(lambda: 7) == 7
    thread.close()
