"""The process of a node: its lock on the folder, what it says there of itself, how it is asked to stop."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel

from plait_node.errors import ConfigError, DrainError

__all__ = ["Mark", "Word", "drain", "held", "running"]

State = Literal["starting", "serving", "draining", "ended"]
_LOOK_S: Final = 0.1
_TRIES: Final = 10
_PROCESSES: Final = Path("/proc")


class Word(BaseModel):
    """What a node's process says of itself; `jobs_left` once it has ended by itself."""

    pid: int
    state: State = "starting"
    jobs_left: bool = False


@dataclass(slots=True)
class Mark:
    """The lock of a process that runs; nobody else can hold it, and it goes with the process."""

    descriptor: int

    def say(self, state: State, *, jobs_left: bool = False) -> None:
        """Write how far this process is; a full disk is no reason to do anything else."""
        text = Word(pid=os.getpid(), state=state, jobs_left=jobs_left).model_dump_json().encode()
        with suppress(OSError):
            os.pwrite(self.descriptor, text.ljust(128), 0)


@contextmanager
def held(file: Path) -> Generator[Mark]:
    """Hold a node's lock as long as the block lasts; raise `ConfigError` where another process does."""
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    except FileNotFoundError:
        raise ConfigError(f"{file.parent}: no such folder; `plait node init` makes one") from None
    try:
        if not _locked(descriptor):
            word = _read(file)
            raise ConfigError(
                f"{file.parent}: a node runs from this folder already{f', process {word.pid}' if word else ''}; "
                "`plait node drain` stops it, and a second node needs a folder of its own"
            )
        mark = Mark(descriptor)
        mark.say("starting")
        yield mark
    finally:
        os.close(descriptor)


def running(file: Path) -> Word | None:
    """Return what the process that holds a node's lock says, None where none does."""
    try:
        descriptor = os.open(file, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(file) or Word(pid=0)  # it has just begun
    else:
        return None
    finally:
        os.close(descriptor)


def drain(file: Path, *, timeout_s: float) -> Word:
    """Have the node finish its jobs and stop, as SIGTERM does, and return its last word once it has.

    One that is about to start is waited for, one that drains already is not told again. Raise `DrainError` where none
    runs, where it cannot be told, or where it has not ended within `timeout_s` seconds: then it goes on draining.
    """
    until, told = time.monotonic() + timeout_s, False
    word = running(file)
    if word is None:
        raise DrainError(f"no node runs from {file.parent}")
    while (now := running(file)) is not None:
        word = now
        if word.state == "serving" and not told:
            _tell(word.pid, file)
            told = True
        if time.monotonic() >= until:
            raise DrainError(
                f"the node is {word.state} after {timeout_s:g} s, process {word.pid}; wait longer, or end it at once "
                "by another SIGTERM"
            )
        time.sleep(_LOOK_S)
    return _read(file) or word


def _tell(pid: int, file: Path) -> None:
    """Send SIGTERM to the holder of the lock, and to no other process that has its number here."""
    try:
        if _holds(pid, file):
            os.kill(pid, signal.SIGTERM)
        elif running(file) is not None:
            raise DrainError(
                f"process {pid} is not the node of {file.parent}; where it runs in a container, send SIGTERM there"
            )
    except PermissionError:
        raise DrainError(f"process {pid} is another user's; drain the node as the user that it runs as") from None
    except ProcessLookupError:
        pass  # it has just ended


def _holds(pid: int, file: Path) -> bool:
    """Tell whether a process has this file open; where the system does not say, its own word counts."""
    if not _PROCESSES.joinpath("self", "fd").exists():
        return True
    try:
        return any(_same(each, file) for each in _PROCESSES.joinpath(str(pid), "fd").iterdir())
    except FileNotFoundError:
        return False


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _locked(descriptor: int) -> bool:
    """Take the lock; whoever only looks holds it for a moment, and is waited for."""
    for _ in range(_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOOK_S)
        else:
            return True
    return False


def _read(file: Path) -> Word | None:
    try:
        return Word.model_validate_json(file.read_bytes())
    except (OSError, ValueError):
        return None
