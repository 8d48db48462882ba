"""Refused calls that say when to come back: `Retry-After` is kept, within the caller's own time."""

from __future__ import annotations

import asyncio
from asyncio import sleep
from collections.abc import Awaitable, Callable
from typing import TypeVar

from plait.protocol.errors import PlaitError

T = TypeVar("T")


async def patient(act: Callable[[], Awaitable[T]], *, patience_s: float) -> T:
    """Make a call, again whenever its refusal says to come back within `patience_s` seconds from now."""
    loop = asyncio.get_running_loop()
    until = loop.time() + patience_s
    while True:
        try:
            return await act()
        except PlaitError as error:
            if not error.retry or error.retry_after_s <= 0 or loop.time() + error.retry_after_s > until:
                raise
            await sleep(error.retry_after_s)
