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
    """A reader's bell. Clear it, look, and wait where nothing was found, or where nothing is left."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._wait_s = _LOOK_S
        self._rung = False  # for the look that is being made
        self._named: int | None = None  # the last sequence that was rung for; None: there may be what nobody rang for

    def ring(self, sequence: int | None = None) -> None:
        """Have the reader look at once, and again soon after: for a stored sequence, or for what nobody rang for."""
        self._event.set()
        self._wait_s = _LOOK_S
        if sequence is None:
            self._named = None
        elif self._named is not None:
            self._named = max(self._named, sequence)

    def read(self, last: int) -> None:
        """Note that a look found nothing behind `last`: what comes from now on is named."""
        if self._named is None and not self._rung and not self._event.is_set():
            self._named = last

    def done(self, last: int) -> bool:
        """Tell whether all that was rung for is read with the sequence `last`: a look would find nothing."""
        return self._named is not None and last >= self._named

    def clear(self) -> None:
        """Forget the rings so far, before a look."""
        self._rung = self._event.is_set()
        self._event.clear()

    async def wait(self, *, steady: bool = False, found: bool = False) -> None:
        """Wait for a ring, or for as long as a reader may go without a look: `steady` is as long every time.

        `found`: the look that is over found what it was rung for.
        """
        again = self._rung and not found
        with suppress(TimeoutError):
            async with asyncio.timeout(_AGAIN_S if again else self._wait_s):
                await self._event.wait()
                return
        if not steady and not again:
            self._wait_s = min(_LONGEST_S, 2 * self._wait_s)
