"""Repeat a call in the background while a block runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from plait_node.broker.errors import BrokerError


@asynccontextmanager
async def pulse(beat: Callable[[], Awaitable[None]], *, every_s: float) -> AsyncGenerator[None]:
    """Call `beat` every few seconds until the block ends; a beat that fails is only late, the next may succeed."""
    task = asyncio.get_running_loop().create_task(_beat(beat, every_s))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def _beat(beat: Callable[[], Awaitable[None]], every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        with suppress(BrokerError):
            await beat()
