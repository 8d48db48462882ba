"""What happens to a process in the middle of an answer: it freezes, runs a twentieth of the time, or dies."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["STRIKES", "Strike"]

_PERIOD_S: Final = 1.0  # a stop is longer than what the worker lets a step take, and shorter than a silence
_RUNS: Final = 1 / 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Strike:
    """At whom, what is said of it before and afterwards, and what is done for as long as a block lasts."""

    at: Literal["stage", "worker"]
    told: str
    done: str
    upon: Callable[[int], AbstractContextManager[None]]
    may_stay: str = ""  # what is said where it need not be replaced, and was not


@contextlib.contextmanager
def _killed(pid: int) -> Generator[None]:
    os.kill(pid, signal.SIGKILL)
    yield


@contextlib.contextmanager
def _frozen(pid: int) -> Generator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def _slowed(pid: int) -> Generator[None]:
    over = threading.Event()

    def stutter() -> None:
        while not over.is_set():
            os.kill(pid, signal.SIGSTOP)
            over.wait(_PERIOD_S * (1 - _RUNS))
            os.kill(pid, signal.SIGCONT)
            over.wait(_PERIOD_S * _RUNS)

    thread = threading.Thread(target=stutter, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        os.kill(pid, signal.SIGCONT)


STRIKES: Final = {
    "stageFrozen": Strike(at="stage", told="its holder of blocks 10-19 will freeze", done="frozen", upon=_frozen),
    "stageSlowed": Strike(
        at="stage",
        told="its holder of blocks 10-19 will run a twentieth of the time",
        done="slowed 20 times",
        upon=_slowed,
        may_stay="it was kept, for steps here do not take five times what they usually do",
    ),
    "stageFailure": Strike(at="stage", told="its holder of blocks 10-19 will die", done="killed", upon=_killed),
    "workerFailure": Strike(at="worker", told="its worker will die", done="killed", upon=_killed),
}
