"""Run one pass in the compute thread: what goes wrong with one job's rows is no other's matter."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from plait.protocol.ids import Hash
from plait.protocol.windows import WINDOW_STEPS
from plait_node.engine.errors import EngineError, NoMemoryError, is_no_memory
from plait_node.engine.faces import StepInput, StepOutput
from plait_node.engine.residents import Engine

__all__ = ["PassDone", "Piece", "Work", "run_pass"]

T_co = TypeVar("T_co", covariant=True)


class Work(Protocol[T_co]):
    """Rows of one job, and what is to be made of them.

    The methods run in the compute thread; what they raise ends this work and no other.
    """

    @property
    def job(self) -> Hash:
        """Return the job."""
        ...

    @property
    def step(self) -> int:
        """Return the step of the first row."""
        ...

    @property
    def count(self) -> int:
        """Return how many rows there are, at least 1."""
        ...

    @property
    def whole(self) -> bool:
        """Tell whether the rows are computed in one pass, before prompts."""
        ...

    def given(self, first: int, last: int) -> StepInput:
        """Return the engine's input for steps first to last - 1."""
        ...

    def made(self, given: StepInput, output: StepOutput) -> T_co:
        """Return the result of the rows that were given."""
        ...


@dataclass(slots=True, kw_only=True)
class Piece:
    """Steps first to last - 1 of a work, and what became of them."""

    work: Work[Any]
    first: int
    last: int  # moves forward when there is no memory for all rows
    made: Any = None
    error: BaseException | None = None

    @property
    def rows(self) -> int:
        """Return how many rows are in the pass."""
        return self.last - self.first


@dataclass(frozen=True, slots=True, kw_only=True)
class PassDone:
    """How long a pass took and how long it was computed, in seconds, and whether memory was short.

    What it waited for a core that others had is not in `computed`: fewer rows a pass would not make it less.
    """

    seconds: float
    computed: float
    short: bool


def run_pass(engine: Engine, pieces: Sequence[Piece]) -> PassDone:
    """Compute all pieces; each then has what was made of it, or its error."""
    began, clock = time.perf_counter(), time.perf_counter if engine.off_cpu else time.thread_time
    computing = clock()
    given = [(piece, rows) for piece in pieces if (rows := _given(piece)) is not None]
    short = bool(given) and _step(engine, given)
    return PassDone(seconds=time.perf_counter() - began, computed=clock() - computing, short=short)


def _given(piece: Piece) -> StepInput | None:
    try:
        return piece.work.given(piece.first, piece.last)
    except Exception as error:  # noqa: BLE001  it is told to who waits for this work
        piece.error = _named(error, piece)
        return None


def _step(engine: Engine, batch: Sequence[tuple[Piece, StepInput]]) -> bool:
    """Compute a batch, by halves if that fails; return whether memory was short."""
    try:
        answers = engine.step([given for _, given in batch])
    except Exception as error:  # noqa: BLE001  it is told to who waits, once it is known whose it is
        short = is_no_memory(error)
        if len(batch) == 1:
            _alone(engine, batch[0][0], _named(error, batch[0][0]))
            return short
        middle = len(batch) // 2
        halves = [_step(engine, half) for half in (batch[:middle], batch[middle:])]
        return short or any(halves)
    for (piece, given), answer in zip(batch, answers, strict=True):
        _take(piece, given, answer)
    return False


def _alone(engine: Engine, piece: Piece, error: Exception) -> None:
    """Try half the rows of a prompt for which there was no memory; the others wait for their next pass."""
    if piece.work.whole or piece.rows <= WINDOW_STEPS or not isinstance(error, NoMemoryError):
        piece.error = error
        return
    piece.last = piece.first + piece.rows // 2
    given = _given(piece)
    if given is not None:
        _step(engine, [(piece, given)])


def _take(piece: Piece, given: StepInput, answer: StepOutput | EngineError) -> None:
    if isinstance(answer, EngineError):
        piece.error = answer
        return
    try:
        piece.made = piece.work.made(given, answer)
    except Exception as error:  # noqa: BLE001  it is told to who waits for this work
        piece.error = _named(error, piece)


def _named(error: Exception, piece: Piece) -> Exception:
    """Return an error, as `NoMemoryError` if that is what it says in whatever words."""
    return NoMemoryError(piece.rows) if is_no_memory(error) else error
