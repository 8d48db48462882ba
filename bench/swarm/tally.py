"""What callers saw of a gateway: every reply over HTTP, every answer; and whether its refusals kept their promises."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from plait.protocol.codec import parse
from plait.protocol.errors import MalformedMessageError
from plait.protocol.pb import signed_pb2

__all__ = ["Answered", "Caller", "Post", "Tally", "Watched", "share", "waits"]

_QUEUE: Final = re.compile(r"(\d+) jobs wait or run in this group, it takes (\d+)")
_JOBS: Final = "/v1/jobs"

Caller = asyncio.Task[Any] | None  # who runs now; nobody outside of a task


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """One job as it was handed over: when, in seconds of `time.monotonic`, and with which status."""

    began: float
    ended: float
    status: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One whole answer; moments in seconds of `time.monotonic`, `paid` in base units."""

    request: str
    called: float
    accepted: float
    first: float
    ended: float
    tokens: int
    paid: int
    acknowledged: bool


@dataclass(slots=True, kw_only=True)
class Tally:
    """Counts of one phase, and where its callers are.

    `looking` have no place yet, `posting` are those of them who hand a job over now; the job of those in `queued` was
    accepted and has not ended.
    """

    refused: Counter[str] = field(default_factory=Counter[str])  # by call and code
    broken: list[str] = field(default_factory=list[str])  # refusals that say no reason, or not when to come back
    early: list[str] = field(default_factory=list[str])  # refusals for a full queue that was not full
    fullness: list[float] = field(default_factory=list[float])  # of the queue at each refusal, 1 is what it takes
    posts: deque[Post] = field(default_factory=deque[Post])
    looking: set[Caller] = field(default_factory=set[Caller])
    posting: set[Caller] = field(default_factory=set[Caller])
    queued: set[Caller] = field(default_factory=set[Caller])
    limit: int = 0  # as the last quote advertised it
    tokens: int = 0
    answered: list[Answered] = field(default_factory=list[Answered])
    given_up: Counter[str] = field(default_factory=Counter[str])  # calls that were never accepted, by error
    failed: Counter[str] = field(default_factory=Counter[str])  # accepted jobs that did not end, by error

    def saw(self, path: str, response: httpx.Response, began: float) -> None:
        """Take a reply to the current caller; its body was read where it is a refusal."""
        if path == _JOBS and response.status_code < 300:
            self.looking.discard(asyncio.current_task())
            self.queued.add(asyncio.current_task())
        if path == _JOBS:
            self.posts.append(Post(began=began, ended=time.monotonic(), status=response.status_code))
        if "plait-queue-limit" in response.headers:
            self.limit = int(response.headers["plait-queue-limit"])
        if response.status_code >= 300:
            self._refusal(path, response)

    def _refusal(self, path: str, response: httpx.Response) -> None:
        try:
            fault = parse(signed_pb2.Fault, response.content)
        except MalformedMessageError:
            fault = signed_pb2.Fault()
        name = f"{response.status_code} {fault.code or 'no fault'} at {_short(path)}"
        self.refused[name] += 1
        promised = not fault.retry or response.headers.get("retry-after", "").isdigit()
        if not fault.text or not promised:
            self.broken.append(f"{name}: {fault.text!r}, retry-after {response.headers.get('retry-after')}")
        if fault.code == "busy" and path == _JOBS:
            self._busy(fault.text)

    def _busy(self, text: str) -> None:
        """Compare a refusal with what the callers know of the queue: those on their way count, they hold a place."""
        said = _QUEUE.match(text)
        limit = int(said[2]) if said else self.limit
        here = len(self.queued) + len(self.posting)
        self.fullness.append((int(said[1]) if said else here) / max(1, limit))
        if said is None or self.limit not in (0, limit) or here < limit:
            self.early.append(f"{text} (advertised {self.limit}; accepted or on their way {here})")


class Watched(httpx.AsyncBaseTransport):
    """Passes calls on and shows every reply to a tally, which may be changed between two phases."""

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self._inner = httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=256))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Make the call."""
        path, began, tally, caller = request.url.path, time.monotonic(), self.tally, asyncio.current_task()
        if path == _JOBS:
            tally.posting.add(caller)
        try:
            response = await self._inner.handle_async_request(request)
            if response.status_code >= 300:
                await response.aread()
            tally.saw(path, response, began)
        finally:
            tally.posting.discard(caller)
        return response

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


def share(values: Sequence[float], part: float) -> float:
    """Return the value below which `part` of all lie, 0 where there are none."""
    return sorted(values)[min(len(values) - 1, int(part * len(values)))] if values else 0.0


def waits(answered: Sequence[Answered]) -> dict[str, Any]:
    """Return how long jobs waited, in seconds.

    `queueing`: from the gateway's acceptance to the first piece of text that the caller got, so the queue, the plan,
    the prompt and every relay. `waiting`: from the call, refusals and the waits they asked for included.
    """
    queueing = [each.first - each.accepted for each in answered]
    waiting = [each.first - each.called for each in answered]
    whole = [each.ended - each.called for each in answered]
    named = {"queueing_s": queueing, "waiting_s": waiting, "whole_s": whole}
    return {
        name: {"p50": round(share(values, 0.5), 3), "p99": round(share(values, 0.99), 3), "most": round(max(values), 3)}
        for name, values in named.items()
        if values
    }


def _short(path: str) -> str:
    return "/".join(part if len(part) < 20 else "*" for part in path.split("/"))
