"""One compute thread for all jobs of a stage, asyncio in front: what waits is batched, pass after pass.

A job joins or leaves between passes and never waits for another one to end. Prompts are split so that a pass computes
for about `pass_s` seconds, and what a pass made is delivered when it ends. `batching` decides what goes into a pass,
`residents` who holds KV room; here is what moves. All methods are called on one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar, cast

from plait.protocol.ids import Hash
from plait_node.engine.batching import FAIR_EVERY, Pace, Waiting, compose
from plait_node.engine.errors import UnknownJobError
from plait_node.engine.gathering import Gathering
from plait_node.engine.load import Load
from plait_node.engine.passes import PassDone, Piece, Work, run_pass
from plait_node.engine.residents import Engine, Resident, Residents

__all__ = ["Part", "Scheduler", "Work"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part(Generic[T]):
    """The result of some rows of a work, and how long their pass took, in seconds."""

    made: T
    seconds: float


@dataclass(slots=True, kw_only=True, eq=False)
class _Turn:
    """A work that waits; what comes out is a part, an error, or None after the last part."""

    work: Work[Any]
    at: int
    since: int
    out: asyncio.Queue[Part[Any] | BaseException | None]

    @property
    def end(self) -> int:
        return self.work.step + self.work.count


@dataclass(frozen=True, slots=True, kw_only=True)
class _Did(Generic[T]):
    """What came of something that the thread did, or its error."""

    done: T | None = None
    error: BaseException | None = None


class Scheduler:
    """Takes work of many jobs; one for each engine, which nobody else may call."""

    def __init__(
        self,
        engine: Engine,
        *,
        decode_rows: int = 16,
        pass_s: float = 0.25,
        clock: Callable[[], float] = time.monotonic,
        on_evicted: Callable[[Sequence[Hash]], None] = lambda _: None,
    ) -> None:
        """Begin idle: at most `decode_rows` rows behind prompts in a pass, which is to compute for `pass_s` seconds.

        `on_evicted` gets the keys of cached windows that had to make place, before who called hears what came of it.
        """
        self._engine, self._on_evicted = engine, on_evicted
        self._decode_rows = decode_rows
        self._residents = Residents(engine, clock=clock)
        self._pace = Pace.start(pass_s)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._turns: dict[Hash, deque[_Turn]] = {}
        self._calls: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()
        self._gathering = Gathering(entry=engine.first == 0)
        self._passes = 0
        self._busy = False
        self._waking = False
        self._stopped = False
        self.load = Load(free_steps=self._residents.free)

    async def open(self, job: Hash, room: int, *, priority: float, prefix: Sequence[Hash] = ()) -> int:
        """Reserve room for `room` steps; return how many rows the windows cached under `prefix` hold.

        Jobs of a lower `priority` are set aside if there is no room, and go on later where they were. The room is the
        job's until `close`, even if the caller was cancelled.

        Raises:
            JobOpenError: the job is open already.
            NoRoomError: the steps do not fit, with how many would.
            NoMemoryError: the machine has no memory for them.
        """
        return await self._call(partial(self._residents.open, job, room, priority=priority, keys=prefix))

    async def close(self, job: Hash) -> None:
        """Free a job's room once the pass in hand is over; what waits of it ends now, with `UnknownJobError`."""
        self._end_all(job, UnknownJobError(job))
        self._gathering.left(job)
        await self._call(partial(self._residents.close, job))

    async def rollback(self, job: Hash, step: int) -> None:
        """Forget a job's rows from `step` on; raise `StepOrderError` if they were never computed."""
        await self._call(partial(self._residents.rollback, job, step))

    async def keep_prefix(self, job: Hash, keys: Sequence[Hash]) -> int:
        """Cache a job's first whole windows; return how many are held, 0 while it is set aside or memory is short."""
        return await self._call(partial(self._residents.keep_prefix, job, keys))

    async def run(self, work: Work[T]) -> AsyncGenerator[Part[T]]:
        """Compute a work's rows; yield what each pass made of them, in order. Works of a job run one after the other.

        Raises what the work's own methods raise, and:
            EngineError: what `StageEngine.step` answers for these rows.
            NoMemoryError: there was no memory for them alone.
            UnknownJobError: the job is not open, or was closed meanwhile.
        """
        turn = _Turn(work=work, at=work.step, since=self._passes, out=asyncio.Queue())
        self._turns.setdefault(work.job, deque()).append(turn)
        self._gathering.came(work.job, now=asyncio.get_running_loop().time())
        self._wake()
        try:
            while (came := await turn.out.get()) is not None:
                if isinstance(came, BaseException):
                    raise came
                yield came
        finally:
            self._drop(turn)

    def stop(self) -> None:
        """Let the pass in hand end and take no more: what waits or comes later is cancelled, its jobs are unknown."""
        self._stopped = True
        self._clear()
        self._thread.shutdown(wait=False)

    def _clear(self) -> None:
        for _, answer in self._calls:
            answer.cancel()
        self._calls.clear()
        for job in list(self._turns):
            self._end_all(job, UnknownJobError(job))

    async def _call(self, do: Callable[[], T]) -> T:
        """Do something short between two passes."""
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._calls.append((do, answer))
        self._wake()
        return await answer

    def _drop(self, turn: _Turn) -> None:
        turns = self._turns.get(turn.work.job)
        if turns is not None and turn in turns:
            turns.remove(turn)
            if not turns:
                del self._turns[turn.work.job]

    def _wake(self) -> None:
        """Go on once all that is ready on the loop has run: who just got a row and gives the next one is in time."""
        if not self._waking:
            self._waking = True
            asyncio.get_running_loop().call_soon(self._advance)

    def _advance(self) -> None:
        """Give the thread what is next, if it is idle."""
        self._waking = False
        if self._stopped:
            self._clear()
            return
        self.load.waiting = sum(len(turns) for turns in self._turns.values())
        while self._calls and not self._busy:
            do, answer = self._calls.popleft()
            if not answer.cancelled():
                self._start(do, partial(self._answer, answer))
        if self._busy or not self._may_begin():
            return
        if pieces := self._compose():
            self._passes += 1
            self._start(partial(run_pass, self._engine, pieces), partial(self._deliver, pieces))

    def _may_begin(self) -> bool:
        """Tell whether the next pass may begin; if it is to wait for rows on their way, it is tried again then."""
        loop = asyncio.get_running_loop()
        ready = [self._turns[job][0].work for job in self._turns if self._ready(job)]
        waiting = {work.job for work in ready if work.whole}
        prompts = len(waiting) < len(ready) or bool(self._residents.replaying())
        wait_s = self._gathering.wait_s(waiting, now=loop.time(), prompts=prompts) if self._turns else 0.0
        if wait_s:
            loop.call_later(wait_s, self._wake)
        return not wait_s

    def _ready(self, job: Hash) -> bool:
        resident = self._residents.get(job)
        return resident is not None and resident.ready

    def _start(self, do: Callable[[], T], then: Callable[[_Did[T]], None]) -> None:
        self._busy = True
        self._thread.submit(self._do, asyncio.get_running_loop(), do, then)

    def _do(self, loop: asyncio.AbstractEventLoop, do: Callable[[], T], then: Callable[[_Did[T]], None]) -> None:
        """In the thread: do it and tell the loop, without the futures between the two that an executor's call has."""
        try:
            did: _Did[T] = _Did(done=do())
        except BaseException as error:  # noqa: BLE001  it is told to who waits for it
            did = _Did(error=error)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(self._ended, then, did)

    def _ended(self, then: Callable[[_Did[T]], None], did: _Did[T]) -> None:
        self._busy = False
        if evicted := self._engine.evicted():
            self._on_evicted(evicted)
        then(did)
        self.load.free_steps = self._residents.free
        self.load.aside = self._residents.aside
        self._wake()

    @staticmethod
    def _answer(answer: asyncio.Future[T], did: _Did[T]) -> None:
        if answer.done():
            return
        if did.error is None:
            answer.set_result(cast("T", did.done))
        else:
            answer.set_exception(did.error)

    def _compose(self) -> list[Piece]:
        """Return the next pass, no piece if nothing can be computed."""
        waiting = {each.job: self._replay(each) for each in self._residents.replaying()}
        for job in list(self._turns):
            self._add_first(job, waiting)
        fair = self._passes % FAIR_EVERY == FAIR_EVERY - 1
        shares = compose(
            list(waiting.values()),
            decode_rows=self._decode_rows,
            decode_jobs=self._gathering.most,
            budget=self._pace.rows,
            fair=fair,
        )
        return [self._piece(waiting[share.job], share.rows) for share in shares]

    @staticmethod
    def _replay(resident: Resident) -> Waiting:
        return Waiting(
            job=resident.job,
            step=resident.replayed,
            rows=resident.count - resident.replayed,
            whole=False,
            priority=resident.priority,
            since=resident.since,
        )

    def _add_first(self, job: Hash, waiting: dict[Hash, Waiting]) -> None:
        resident = self._residents.get(job)
        if resident is None:
            self._end_all(job, UnknownJobError(job))
        elif resident.ready:
            turn = self._turns[job][0]
            waiting[job] = Waiting(
                job=job,
                step=turn.at,
                rows=turn.end - turn.at,
                whole=turn.work.whole,
                priority=resident.priority,
                since=turn.since,
            )

    def _piece(self, waiting: Waiting, rows: int) -> Piece:
        resident = self._residents.get(waiting.job)
        if resident is not None and not resident.ready:
            resident.since = self._passes
            work: Work[Any] = resident
        else:
            turn = self._turns[waiting.job][0]
            turn.since = self._passes
            work = turn.work
        return Piece(work=work, first=waiting.step, last=waiting.step + rows)

    def _deliver(self, pieces: Sequence[Piece], did: _Did[PassDone]) -> None:
        if did.error is not None:
            for piece in pieces:
                piece.error = did.error
        done = did.done or PassDone(seconds=0.0, computed=0.0, short=False)
        self._measure(pieces, done)
        decoded = [piece.work.job for piece in pieces if piece.work.whole and piece.error is None]
        prompts = not all(piece.work.whole for piece in pieces)
        now = asyncio.get_running_loop().time()
        self._gathering.gave(decoded, now=now, pass_s=done.seconds, prompts=prompts)
        for piece in pieces:
            if piece.error is None:
                self._residents.advance(piece.work.job, piece.rows)
            if isinstance(piece.work, Resident):
                self._replayed(piece)
            else:
                self._hand_out(piece, done.seconds)

    def _measure(self, pieces: Sequence[Piece], done: PassDone) -> None:
        rows = sum(piece.rows for piece in pieces)
        if done.short:
            self._pace = self._pace.halved()
        elif not all(piece.work.whole for piece in pieces):
            self._pace = self._pace.after(rows, done.computed)
        self.load.rows_per_second = self._pace.rows_per_second
        self.load.pass_seconds.add(done.seconds)
        self.load.pass_rows.add(rows)
        self.load.pass_jobs.add(len(pieces))

    def _replayed(self, piece: Piece) -> None:
        """End a job whose inputs cannot be computed again: what waits of it hears why."""
        if piece.error is not None:
            self._end_all(piece.work.job, piece.error)
            self._residents.give_up(piece.work.job)

    def _hand_out(self, piece: Piece, seconds: float) -> None:
        turn = next((each for each in self._turns.get(piece.work.job, ()) if each.work is piece.work), None)
        if turn is None:
            return  # nobody waits for it any more
        if piece.error is not None:
            turn.out.put_nowait(piece.error)
            self._drop(turn)
            return
        turn.at = piece.last
        turn.out.put_nowait(Part(made=piece.made, seconds=seconds))
        if turn.at == turn.end:
            turn.out.put_nowait(None)
            self._drop(turn)

    def _end_all(self, job: Hash, error: BaseException) -> None:
        for turn in self._turns.pop(job, ()):
            turn.out.put_nowait(error)
