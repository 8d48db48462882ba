"""What a stage's engine refuses.

EngineError
├── NoRoomError         the job's steps do not fit; `limit` says how many would
├── NoMemoryError       the machine had no memory for a pass, however small it was made
├── JobError
│   ├── UnknownJobError     the job was never opened here, or is closed
│   ├── JobOpenError        the job is open already
│   └── StepOrderError      a step that does not follow the rows computed so far
├── BadRowsError        rows of a wrong shape or type, an id outside the vocabulary, NaN or infinity: blame upstream
├── NumericsError       good rows went in and NaN or infinity came out
├── DeviceError         the lane's device is not on this machine
└── CompilerError       the kernels could not be built or loaded; decoding goes on without them
"""

from __future__ import annotations

__all__ = [
    "BadRowsError",
    "CompilerError",
    "DeviceError",
    "EngineError",
    "JobError",
    "JobOpenError",
    "NoMemoryError",
    "NoRoomError",
    "NumericsError",
    "StepOrderError",
    "UnknownJobError",
    "is_no_memory",
]

_NO_MEMORY = ("can't allocate", "out of memory")  # what torch's allocators say, in a RuntimeError


class EngineError(Exception):
    """Root of everything that the engine raises by itself."""


class NoRoomError(EngineError):
    """The steps do not fit into the free KV room."""

    def __init__(self, *, asked: int, limit: int) -> None:
        super().__init__(f"{asked} steps asked, {limit} fit now; shorten prompt or answer, or ask again later")
        self.asked = asked
        self.limit = limit


class NoMemoryError(EngineError):
    """There was no memory to compute a job's rows with."""

    def __init__(self, rows: int) -> None:
        super().__init__(f"no memory for {rows} rows; ask again later, or give the stage less kv_steps than it has now")
        self.rows = rows


class JobError(EngineError):
    """A call that does not fit the job's state."""


class UnknownJobError(JobError):
    """The job is not open here."""

    def __init__(self, job: bytes) -> None:
        super().__init__(f"job 0x{job.hex()} is not open here; open it first")
        self.job = job


class JobOpenError(JobError):
    """The job is open already."""

    def __init__(self, job: bytes) -> None:
        super().__init__(f"job 0x{job.hex()} is open already; close it first")
        self.job = job


class StepOrderError(JobError):
    """The step does not follow what was computed."""

    def __init__(self, *, asked: int, expected: int) -> None:
        super().__init__(f"step {asked} was given where step {expected} follows; roll back or send what is missing")
        self.asked = asked
        self.expected = expected


class BadRowsError(EngineError):
    """The rows that came in cannot be computed with."""


class NumericsError(EngineError):
    """The model gave NaN or infinity for finite rows."""


class DeviceError(EngineError):
    """The lane's device is not on this machine."""


class CompilerError(EngineError):
    """The kernels could not be built or loaded; decoding goes on without them."""


def is_no_memory(error: BaseException) -> bool:
    """Tell whether an error says that there was no memory, on the machine or on its device."""
    if isinstance(error, MemoryError | NoMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _NO_MEMORY)
