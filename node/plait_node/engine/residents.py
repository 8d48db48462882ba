"""Which jobs hold KV room and which are set aside for others: never more steps than there are.

A job that finds no room takes it from jobs of lower priority: their inputs are exported, their room is freed, and once
there is room again their keys and values are made anew from those inputs. A job is set aside at most once, and after
`_PATIENCE_S` no newcomer takes room before it, so that all end. Not safe for threads: the scheduler calls one method at
a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from plait.protocol.ids import Hash
from plait.protocol.manifest import Manifest
from plait_node.engine.errors import (
    EngineError,
    JobOpenError,
    NoMemoryError,
    NoRoomError,
    StepOrderError,
    UnknownJobError,
    is_no_memory,
)
from plait_node.engine.evidence import EvidenceLog
from plait_node.engine.faces import Rows, StepInput, StepOutput

__all__ = ["Engine", "Resident", "Residents"]

_PATIENCE_S = 2.0


class Engine(Protocol):
    """The face of `StageEngine`; called from one thread at a time."""

    @property
    def manifest(self) -> Manifest:
        """Return the model's manifest."""
        ...

    @property
    def first(self) -> int:
        """Return the first block."""
        ...

    @property
    def last(self) -> int:
        """Return the block after the last one."""
        ...

    @property
    def off_cpu(self) -> bool:
        """Tell whether the thread that calls `step` waits for a device, instead of computing itself."""
        ...

    @property
    def evidence(self) -> EvidenceLog:
        """Return the last cases of NaN or infinity."""
        ...

    @property
    def free_steps(self) -> int:
        """Return the KV room that is left."""
        ...

    @property
    def max_steps(self) -> int:
        """Return the most that one job may have."""
        ...

    def open(self, job: Hash, room: int) -> None:
        """Reserve room."""
        ...

    def close(self, job: Hash) -> None:
        """Forget the job."""
        ...

    def step(self, inputs: Sequence[StepInput]) -> list[StepOutput | EngineError]:
        """Compute rows of several jobs in one pass."""
        ...

    def rollback(self, job: Hash, step: int) -> None:
        """Forget rows from `step` on."""
        ...

    def export_inputs(self, job: Hash, first: int = 0, last: int | None = None) -> Rows:
        """Return the rows that were computed from."""
        ...

    def keep_prefix(self, job: Hash, keys: Sequence[Hash]) -> int:
        """Cache the job's first windows."""
        ...

    def take_prefix(self, job: Hash, keys: Sequence[Hash]) -> int:
        """Begin the job with cached windows; return the rows taken."""
        ...

    def evicted(self) -> list[Hash]:
        """Return the keys of cached windows that made place for others since this was asked last."""
        ...


@dataclass(slots=True, kw_only=True)
class Resident:
    """An open job, and the work of computing its inputs again.

    `inputs` are there from when it is set aside until the last of them is computed.
    """

    job: Hash
    priority: float
    room: int
    length: int  # steps computed and not rolled back, whether they are in the engine or in `inputs`
    replayed: int = 0  # of the inputs
    inputs: Rows | None = None
    aside_since: float | None = None  # seconds of the clock; None while it holds room
    spared: bool = False  # was set aside before
    since: int = 0  # the pass in which some of them were computed last
    step: int = 0
    whole: bool = False

    @property
    def aside(self) -> bool:
        """Tell whether it holds no room."""
        return self.aside_since is not None

    @property
    def ready(self) -> bool:
        """Tell whether its next rows may be computed."""
        return not self.aside and self.inputs is None

    @property
    def count(self) -> int:
        """Return how many inputs there are to compute again."""
        return 0 if self.inputs is None else len(self.inputs)

    def given(self, first: int, last: int) -> StepInput:
        """Return the engine's input for steps first to last - 1."""
        if self.inputs is None:
            raise StepOrderError(asked=first, expected=self.length)
        return StepInput(job=self.job, start=first, rows=self.inputs[first:last])

    def made(self, given: StepInput, output: StepOutput) -> None:
        """Make nothing of them: what they gave was delivered before."""


class Residents:
    """The open jobs of one engine."""

    def __init__(self, engine: Engine, *, clock: Callable[[], float]) -> None:
        """Begin with none; `clock` counts seconds."""
        self._engine = engine
        self._clock = clock
        self._jobs: dict[Hash, Resident] = {}

    @property
    def free(self) -> int:
        """Return the steps that a new job could have without another one waiting for them."""
        return max(0, self._engine.free_steps - sum(each.room for each in self._jobs.values() if each.aside))

    @property
    def aside(self) -> int:
        """Return how many jobs hold no room."""
        return sum(each.aside for each in self._jobs.values())

    def get(self, job: Hash) -> Resident | None:
        """Return an open job."""
        return self._jobs.get(job)

    def replaying(self) -> list[Resident]:
        """Return the jobs that hold room and whose inputs are to be computed again."""
        return [each for each in self._jobs.values() if not each.aside and each.inputs is not None]

    def open(self, job: Hash, room: int, *, priority: float, keys: Sequence[Hash]) -> int:
        """Reserve room and begin with the windows cached under `keys`; return the rows that they hold.

        Raise `JobOpenError`, `NoRoomError` when not even jobs of lower priority could be set aside for it, or
        `NoMemoryError` when the machine has no memory for it.
        """
        if job in self._jobs:
            raise JobOpenError(job)
        try:
            if room <= self._engine.max_steps:
                self._make_room(room, priority)
            self._engine.open(job, room)
            taken = self._engine.take_prefix(job, keys) if keys else 0
        except BaseException as error:
            self.close(job)
            if is_no_memory(error):
                raise NoMemoryError(room) from error
            raise
        self._jobs[job] = Resident(job=job, priority=priority, room=room, length=taken)
        return taken

    def close(self, job: Hash) -> None:
        """Free a job's room, and give it to those that were set aside."""
        self._jobs.pop(job, None)
        self._engine.close(job)
        self._resume()

    def give_up(self, job: Hash) -> None:
        """Forget that a job is open; it is still to be closed."""
        self._jobs.pop(job, None)

    def rollback(self, job: Hash, step: int) -> None:
        """Forget a job's rows from `step` on, computed or waiting to be computed again."""
        resident = self._known(job)
        if not 0 <= step <= resident.length:
            raise StepOrderError(asked=step, expected=resident.length)
        if resident.ready or step < resident.replayed:
            self._engine.rollback(job, step)
        resident.length = step
        if resident.inputs is not None:
            resident.inputs = resident.inputs[:step]
            resident.replayed = min(resident.replayed, step)
            self._settle(resident)

    def keep_prefix(self, job: Hash, keys: Sequence[Hash]) -> int:
        """Cache a job's first windows; return how many are cached, 0 while the job is set aside or memory is short."""
        if self._known(job).aside:
            return 0
        try:
            return self._engine.keep_prefix(job, keys)
        except Exception as error:
            if is_no_memory(error):
                return 0
            raise

    def advance(self, job: Hash, count: int) -> None:
        """Take note of rows that were computed."""
        resident = self._known(job)
        if resident.inputs is None:
            resident.length += count
        else:
            resident.replayed += count
            self._settle(resident)

    def _known(self, job: Hash) -> Resident:
        resident = self._jobs.get(job)
        if resident is None:
            raise UnknownJobError(job)
        return resident

    def _settle(self, resident: Resident) -> None:
        if resident.inputs is not None and not resident.aside and resident.replayed == len(resident.inputs):
            resident.inputs = None

    def _make_room(self, room: int, priority: float) -> None:
        """Set jobs of lower priority aside until `room` steps are free; raise `NoRoomError` and do nothing."""
        free = self._engine.free_steps - sum(each.room for each in self._jobs.values() if self._before(each, priority))
        victims: list[Resident] = []
        for each in sorted(self._jobs.values(), key=lambda each: each.priority):
            if free >= room:
                break
            if each.priority < priority and not each.spared:
                victims.append(each)
                free += each.room
        if free < room:
            raise NoRoomError(asked=room, limit=max(0, free - sum(each.room for each in victims)))
        for each in victims:
            self._set_aside(each)

    def _before(self, each: Resident, priority: float) -> bool:
        """Tell whether a job that was set aside takes room before a newcomer."""
        if each.aside_since is None:
            return False
        return each.priority >= priority or self._clock() - each.aside_since > _PATIENCE_S

    def _set_aside(self, resident: Resident) -> None:
        if resident.length:
            resident.inputs = self._engine.export_inputs(resident.job).copy()
        self._engine.close(resident.job)
        resident.replayed = 0
        resident.spared = True
        resident.aside_since = self._clock()

    def _resume(self) -> None:
        """Give free room to those set aside, the highest priority first, nobody before one that goes first."""
        waiting = sorted((each for each in self._jobs.values() if each.aside), key=lambda each: -each.priority)
        for each in waiting:
            if each.room > self._engine.free_steps:
                return
            try:
                self._engine.open(each.job, each.room)
            except Exception as error:
                if is_no_memory(error):
                    return  # it goes on waiting, for the next job to end
                raise
            each.aside_since = None
            self._settle(each)
