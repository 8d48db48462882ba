"""One timer for many short waits: a wait that ends in time costs two assignments, and no timer of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["SharedDeadline"]


class SharedDeadline:
    """Calls `late` once a wait has lasted `seconds`; one wait at a time."""

    def __init__(self, seconds: float, late: Callable[[], None]) -> None:
        self._seconds = seconds
        self._late = late
        self._loop = asyncio.get_running_loop()
        self._since: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Note that a wait begins."""
        self._since = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(self._seconds, self._look)

    def end(self) -> None:
        """Note that it is over; the timer stays for the next one."""
        self._since = None

    def stop(self) -> None:
        """End: no wait follows."""
        self._since = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self._since is None:
            return
        left = self._since + self._seconds - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        else:
            self._since = None
            self._late()
