"""One timer for many short waits: a wait that ends in time costs two assignments, and no timer of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

__all__ = ["SharedDeadline"]

_LOOKS: Final = 4  # a deadline; they are counted, not seconds: when this process itself is stalled, they are late too


class SharedDeadline:
    """Calls `late` once a wait has lasted `seconds`, or up to a quarter longer; one wait at a time."""

    def __init__(self, seconds: float, late: Callable[[], None]) -> None:
        self._pause_s = seconds / _LOOKS
        self._late = late
        self._waits = False
        self._looks = 0  # at the wait under way
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Note that a wait begins."""
        self._waits, self._looks = True, 0
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._pause_s, self._look)

    def end(self) -> None:
        """Note that it is over; the timer stays for the next one."""
        self._waits = False

    def stop(self) -> None:
        """End: no wait follows."""
        self._waits = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if not self._waits:
            return
        self._looks += 1
        if self._looks <= _LOOKS:  # the first look may come right behind the beginning
            self._timer = asyncio.get_running_loop().call_later(self._pause_s, self._look)
        else:
            self._waits = False
            self._late()
