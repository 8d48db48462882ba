"""One answer as it comes, followed by a task of its own: it is read, paid and settled whatever its listener does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from plait.client.answers import ChatCompletion
from plait.client.purse import Purse
from plait.client.run import Run
from plait.client.stream import AsyncStream
from plait.protocol.errors import PlaitError
from plait.proxy.errors import CutShortError, FailedError
from plait.proxy.spending import Hold

_LOG = logging.getLogger(__name__)
GRACE_S = 1.0  # after its listener left, an answer's next words are awaited this long before the wait is broken off


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A gateway took the request; `created` in Unix seconds."""

    id: str
    model: str
    created: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """More text; `fingerprint` names the model and the numerics it was computed under."""

    text: str
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The whole answer, checked and settled; `cost` in base units."""

    whole: ChatCompletion
    finish: Literal["stop", "length"]
    fingerprint: str
    cost: int


Event = Begun | Piece | Ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A request that was handed over, and the money held back for it."""

    run: Run
    stream: AsyncStream
    purse: Purse
    hold: Hold

    def begun(self, now: float) -> Begun:
        """Return what is known of the answer before its first word."""
        name = self.run.prepared.served.manifest.name
        return Begun(id=self.stream.id, model=name, created=int(now))

    def fingerprint(self) -> str:
        """Return the beginnings of the model's and of the profile's id."""
        job = self.run.verifier.job
        profile = job.profile if job else self.run.prepared.request.profiles[0]
        return f"plait_{self.run.prepared.request.model.hex()[:10]}_{profile.hex()[:10]}"

    def settle(self) -> int:
        """Book what the request cost, and return it in base units; what became credit again is no cost."""
        job = self.purse.job(self.run.request)
        cost = 0 if job is None else job.leaf.hop_amount if job.leaf else job.paid
        self.hold.settle(cost)
        return cost


class Answer:
    """Events of one answer. `leave` stops its job, pays what was checked, and ends its listener with an error."""

    def __init__(self, begin: Callable[[], Awaitable[Running]], *, clock: Callable[[], float]) -> None:
        self._begin, self._clock = begin, clock
        self._events: asyncio.Queue[Event | PlaitError] = asyncio.Queue()
        self._left = False
        self._listening = False  # to the swarm; nothing else may be broken off
        self._id, self._cost = "", 0
        self.task = asyncio.get_running_loop().create_task(self._work())

    async def next(self, *, patience_s: float) -> Event | None:
        """Return what comes next, None when that takes longer; raise the `PlaitError` that ended the answer."""
        try:
            async with asyncio.timeout(patience_s):
                event = await self._events.get()
        except TimeoutError:
            return None
        if isinstance(event, PlaitError):
            raise event
        return event

    def leave(self, why: PlaitError) -> None:
        """Stop the answer; `why` is what its listener gets to hear."""
        if self._left or self.task.done():
            return
        self._left = True
        self._events.put_nowait(why)
        asyncio.get_running_loop().call_later(GRACE_S, self._break_off)

    def _break_off(self) -> None:
        if self._listening:
            self.task.cancel()

    async def _work(self) -> None:
        """Follow the request from its offer to its last payment; a deadline lies on each step of it."""
        outcome = "left"
        try:
            running = await self._begin()
            self._id = running.stream.id
            outcome = await self._follow(running)
        except PlaitError as error:
            outcome = error.code
            self._events.put_nowait(error)
        except Exception:  # noqa: BLE001 - a failure here must reach the listener, too
            outcome = "failed"
            _LOG.exception("answer failed here job=%s", self._id)
            self._events.put_nowait(FailedError("the proxy failed; its log says why"))
        finally:
            _LOG.info("answer ended job=%s outcome=%s cost=%d", self._id, outcome, self._cost)

    async def _follow(self, running: Running) -> str:
        self._events.put_nowait(running.begun(self._clock()))
        try:
            await self._read(running)
            if self._left:
                return "left"
            ended = self._ended(running)
        except PlaitError as error:
            error.moved = running.settle() > 0 or error.moved
            raise
        finally:
            self._cost = running.settle()
        self._events.put_nowait(ended)
        return ended.finish

    async def _read(self, running: Running) -> None:
        async with running.stream as stream:
            while not self._left:
                self._listening = True
                try:
                    chunk = await anext(stream, None)
                finally:
                    self._listening = False
                if chunk is None:
                    return
                if text := chunk.choices[0].delta.content:
                    self._events.put_nowait(Piece(text=text, fingerprint=running.fingerprint()))

    def _ended(self, running: Running) -> Ended:
        whole = running.stream.completion
        finish = whole.choices[0].finish_reason
        if finish == "cancelled":
            count = whole.usage.completion_tokens
            raise CutShortError(f"the swarm stopped after {count} checked tokens, before the answer was complete")
        return Ended(whole=whole, finish=finish, fingerprint=running.fingerprint(), cost=running.settle())
