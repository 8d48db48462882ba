"""Stop politely: take nothing new, finish what runs within a time limit, then stop; a second signal ends at once."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager

_LOOK_S = 0.1
_QUIET_S = 0.5  # a job's last payment comes when its answer has ended
_CLOSE_S = 5.0

log = logging.getLogger(__name__)


class Drain:
    """What the roles of a node do, and wait for, before it stops."""

    def __init__(self) -> None:
        self._closing: list[Callable[[], Awaitable[None]]] = []
        self._busy: list[Callable[[], bool]] = []
        self._held = 0
        self.begun = False

    def add(self, *, close: Callable[[], Awaitable[None]], busy: Callable[[], bool]) -> None:
        """Have `close` called when nothing new is to be taken, and wait while `busy` says so."""
        self._closing.append(close)
        self._busy.append(busy)

    @contextmanager
    def held(self) -> Generator[None]:
        """Count as work that is to be finished what the block does."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1

    async def run(self, limit_s: float) -> bool:
        """Close every role and wait until none is busy any more; tell whether that came within `limit_s` seconds."""
        self.begun = True
        await asyncio.gather(*(self._close(each) for each in self._closing))
        try:
            async with asyncio.timeout(limit_s):
                await self._quiet()
        except TimeoutError:
            return False
        return True

    async def _quiet(self) -> None:
        loop = asyncio.get_running_loop()
        busy_at = loop.time()
        while loop.time() - busy_at < _QUIET_S:
            await asyncio.sleep(_LOOK_S)
            if self._held or any(busy() for busy in self._busy):
                busy_at = loop.time()

    async def _close(self, close: Callable[[], Awaitable[None]]) -> None:
        """Let one role close; what cannot be told to others now lapses by itself."""
        try:
            async with asyncio.timeout(_CLOSE_S):
                await close()
        except Exception as error:  # noqa: BLE001  the other roles are to close all the same
            log.warning("not everything was withdrawn error=%r", error)


class Stopping:
    """What SIGTERM and Ctrl-C ask of a node: the first to stop, one more, or one during the start, to end at once."""

    def __init__(self, serving: asyncio.Task[None]) -> None:
        """Cancel `serving` for an end at once."""
        self._serving = serving
        self._asked = asyncio.Event()
        self._ready = False

    def listen(self) -> None:
        """Take the signals of this process."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.signalled)

    def signalled(self) -> None:
        """Take one signal."""
        if not self._ready or self._asked.is_set():
            self._serving.cancel()
        self._asked.set()

    def ready(self) -> None:
        """Say that the node serves: from now on one signal has it drain."""
        self._ready = True

    async def asked(self) -> None:
        """Wait, as a node that is ready, until it is to stop."""
        self.ready()
        await self._asked.wait()
