"""When a reader of the broker looks again: at once when something was stored, and now and then in any case."""

from __future__ import annotations

import asyncio
from contextlib import suppress

__all__ = ["Wake"]

# After this time a reader looks again though nobody rang: a ring may be lost.
_LOOK_S = 0.5
# The same after a look that was rung for and found nothing: the ring came before the consumer or the copy knew.
_AGAIN_S = 0.05
# Where it finds nothing it takes twice as long each time, up to this: hundreds may wait for an answer to begin.
_LONGEST_S = 5.0


class Wake:
    """A reader's bell. Clear it, look, and wait where nothing was found."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._wait_s = _LOOK_S
        self._rung = False  # for the look that is being made

    def ring(self) -> None:
        """Have the reader look at once, and again soon after."""
        self._event.set()
        self._wait_s = _LOOK_S

    def clear(self) -> None:
        """Forget the rings so far, before a look."""
        self._rung = self._event.is_set()
        self._event.clear()

    async def wait(self, *, steady: bool = False) -> None:
        """Wait for a ring, or for as long as a reader may go without a look: `steady` is as long every time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_AGAIN_S if self._rung else self._wait_s):
                await self._event.wait()
                return
        if not steady and not self._rung:
            self._wait_s = min(_LONGEST_S, 2 * self._wait_s)
