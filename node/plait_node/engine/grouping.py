"""Find out in how many groups jobs go round a pipeline best, by measuring rows a second each way.

The stage that takes ids may pass on what waits, or wait for a share of the jobs and leave the others for the next pass:
they then go round in groups, which later stages keep. Where each stage has a machine of its own, many small groups keep
all stages busy; where stages share cores or memory, few large ones cost less. A stage cannot know which it is, so it
tries: a phase of another way between two phases of the way that it keeps. Times are in seconds and passed in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["Grouping"]

_FREE: Final = 0  # no groups: a pass takes what waits
_WAYS: Final = (_FREE, 4, 2, 1)  # groups
_SETTLE, _MEASURE = 2, 6  # rows of each job until a change of way shows, and rows of each that are counted then
_LEAST_S: Final = 0.25  # no phase is shorter
_BETTER: Final = 1.05  # times the rows a second: from there on a change is worth it
_SELDOM: Final = 64  # phases between two trials at most; each trial that fails doubles them
_SPREAD: Final = 8  # groups: more than most pipelines have stages
_SAME: Final = 0.25  # of the jobs: so many may come or go before what was measured counts no more


@dataclass(slots=True)
class _Phase:
    """What came since the way in force began."""

    settling: int  # rows that are not counted yet
    began: float | None = None  # when counting began; later by what passes with prompts took
    rows: int = 0


@dataclass(slots=True)
class _Kept:
    """The way that proved best for some numbers of jobs, and when others are tried again."""

    way: int
    gap: int = 1  # phases from a trial to the next
    left: int = 1  # of them
    trials: int = 0


class Grouping:
    """The way in force, and what ways gave."""

    def __init__(self) -> None:
        """Begin with passes that take what waits."""
        self._way = _FREE
        self._all: dict[int, _Kept] = {}  # by the jobs' number of binary digits
        self._kept = _Kept(way=_FREE)
        self._jobs = 0  # that went round when the first of the rates that are compared was measured
        self._phase = _Phase(settling=0)
        self._before: float | None = None  # rows a second of the way that is kept, in the phase before
        self._tried: tuple[int, float] | None = None  # a way whose trial is over, and its rows a second

    def bounds(self, jobs: int) -> tuple[int, int | None]:
        """Return for how many of so many jobs a pass waits, and how many it takes at most; None: all that wait."""
        if self._way == _FREE and self._phase.settling > 0:
            return 1, max(1, jobs // _SPREAD)  # groups of a way that was tried would else go on
        if not _fits(self._way, jobs):
            return 1, None
        return jobs // self._way, -(-jobs // self._way)

    def gave(self, rows: int, *, jobs: int, now: float) -> None:
        """Take note of a pass that ended at `now` and gave so many rows while `jobs` jobs went round."""
        if abs(jobs - self._jobs) > _SAME * self._jobs:
            self._forget(jobs)
        phase = self._phase
        if phase.settling > 0:
            phase.settling -= rows
        elif phase.began is None:
            phase.began = now
        else:
            phase.rows += rows
            taken, enough = now - phase.began, _MEASURE * jobs
            if taken >= _LEAST_S and (phase.rows >= enough or self._hopeless(enough, taken)):
                self._ended(phase.rows / taken)

    def prompts(self, seconds: float) -> None:
        """Take note of a pass with rows of prompts, whose time is not counted."""
        if self._phase.began is not None:
            self._phase.began += seconds

    def _forget(self, jobs: int) -> None:
        self._jobs = jobs
        self._before = self._tried = None
        self._kept = self._all.setdefault(jobs.bit_length(), _Kept(way=self._kept.way))
        self._go(self._kept.way)

    def _hopeless(self, rows: int, taken: float) -> bool:
        """Tell whether a trial took twice as long already as such a phase does without it."""
        return self._way != self._kept.way and self._before is not None and taken > 2 * rows / self._before

    def _go(self, way: int) -> None:
        settling = 0 if way == self._way else _SETTLE * self._jobs
        self._way, self._phase = way, _Phase(settling=settling)

    def _ended(self, rate: float) -> None:
        kept = self._kept
        if self._way != kept.way:
            self._tried = self._way, rate
            self._go(kept.way)
            return
        if self._tried is not None and self._before is not None:
            (way, tried), self._tried = self._tried, None
            if tried > _BETTER * (self._before + rate) / 2:
                kept.way, kept.gap, kept.left, self._before = way, 1, 1, None
                self._go(way)
                return
            kept.gap = kept.left = min(_SELDOM, 2 * kept.gap)
        self._before = rate
        self._next()

    def _next(self) -> None:
        """Go on as it is, or try another way when it is time."""
        kept, others = self._kept, self._others()
        kept.left -= 1
        if kept.left > 0 or not others:
            self._go(kept.way)
            return
        kept.trials += 1
        self._go(others[kept.trials % len(others)])

    def _others(self) -> Sequence[int]:
        if self._jobs < 2:
            return ()
        return [way for way in _WAYS if way != self._kept.way and (way == _FREE or _fits(way, self._jobs))]


def _fits(way: int, jobs: int) -> bool:
    """Tell whether so many jobs make so many groups of more than one."""
    return 0 < way < jobs
