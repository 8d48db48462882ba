"""When a reader of the broker looks again: at once when something was stored, and now and then in any case."""

from __future__ import annotations

import asyncio
from contextlib import suppress

__all__ = ["Wake"]

# After this time a reader looks again though nobody rang: a ring may be lost, or come before the copy that is asked.
_LOOK_S = 0.5
# Where it finds nothing it takes twice as long each time, up to this: hundreds may wait for an answer to begin.
_LONGEST_S = 5.0


class Wake:
    """A reader's bell. Clear it, look, and wait where nothing was found."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._wait_s = _LOOK_S

    def ring(self) -> None:
        """Have the reader look at once, and again soon after."""
        self._event.set()
        self._wait_s = _LOOK_S

    def clear(self) -> None:
        """Forget the rings so far, before a look."""
        self._event.clear()

    async def wait(self, *, steady: bool = False) -> None:
        """Wait for a ring, or for as long as a reader may go without a look: `steady` is as long every time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._wait_s):
                await self._event.wait()
                return
        if not steady:
            self._wait_s = min(_LONGEST_S, 2 * self._wait_s)
