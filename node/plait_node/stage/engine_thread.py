"""One thread for the engine: steps of many jobs take turns, decode steps before prompts."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True, order=True)
class _Waiting:
    rank: tuple[bool, int]  # urgent first, then first come
    work: Callable[[], Any] = field(compare=False)
    done: asyncio.Future[Any] = field(compare=False)


class EngineThread:
    """Runs one piece of work at a time."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._waiting: list[_Waiting] = []
        self._order = itertools.count()
        self._busy = False

    async def run(self, work: Callable[[], T], *, urgent: bool = False) -> T:
        """Return what the work returns; it waits for its turn, and runs to its end once it began."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, _Waiting((not urgent, next(self._order)), work, done))
        self._advance()
        return await done

    def _advance(self) -> None:
        while self._waiting and not self._busy:
            turn = heapq.heappop(self._waiting)
            if turn.done.cancelled():
                continue
            self._busy = True
            running = asyncio.get_running_loop().run_in_executor(self._executor, turn.work)
            running.add_done_callback(lambda finished, done=turn.done: self._finished(finished, done))

    def _finished(self, finished: asyncio.Future[Any], done: asyncio.Future[Any]) -> None:
        self._busy = False
        error = finished.exception()
        if not done.done():
            if error is not None:
                done.set_exception(error)
            else:
                done.set_result(finished.result())
        self._advance()

    def close(self) -> None:
        """Let the work in hand end and take no more."""
        for turn in self._waiting:
            turn.done.cancel()
        self._waiting.clear()
        self._executor.shutdown(wait=False, cancel_futures=True)
