"""Wait a moment for rows that are on their way, so that jobs stay together in one pass.

A pass with decode rows of two jobs takes hardly longer than one of a single job. Three kinds of rows are waited for:
of a job that is always back much sooner than a pass takes; of one that came right behind another that is here now, when
that one came the last time; and, where a pipeline begins, of as many jobs as make a group (see `grouping`). Every wait
is short and has an end of its own. Times are in seconds and passed in.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from plait.protocol.ids import Hash
from plait_node.engine.grouping import Grouping

__all__ = ["Gathering"]

_WORTH: Final = 0.5  # of a pass: the longest turnaround or lag that is waited for, and the longest wait for one job
_LATE: Final = 2.0  # turnarounds: who is later than that is not waited for any more
_GONE: Final = 4.0  # turnarounds: who is later than that does not go round any more
_LONGEST_S: Final = 0.25  # for a group
_FASTER, _SLOWER = 0.5, 0.2  # weights in the running mean: a pause says less


@dataclass(slots=True)
class _Seen:
    """One job: when it got its last row, until it is back, how long it usually takes, and when its last rows came."""

    gave: float | None = None
    turnaround: float | None = None
    came: float = float("-inf")
    before: float = float("-inf")  # the row before


class Gathering:
    """Who is on the way back, and for how long that is worth waiting."""

    def __init__(self, *, entry: bool) -> None:
        """Begin with nobody; a job is not waited for before its turnaround was seen. Groups are made at the `entry`."""
        self._seen: dict[Hash, _Seen] = {}
        self._missing: set[Hash] = set()  # who was in the last pass, is not back and is waited for
        self._until = 0.0
        self._pass_s = 0.0  # what the last pass without prompts took
        self._held: float | None = None  # since when rows wait for the next pass
        self._going = 0  # jobs that went round when the last pass began
        self._grouping = Grouping() if entry else None
        self.most: int | None = None  # jobs behind their prompts in the next pass, None: all that wait

    def gave(self, jobs: Sequence[Hash], *, now: float, pass_s: float, prompts: bool) -> None:
        """Take note that a pass of `pass_s` ended and that these jobs, behind their prompts, got its results."""
        self._missing.clear()
        self._held = None
        longest = 0.0
        for job in jobs:
            seen = self._seen.setdefault(job, _Seen())
            seen.gave = now
            if seen.turnaround is not None and seen.turnaround < _WORTH * pass_s:
                self._missing.add(job)
                longest = max(longest, seen.turnaround)
        self._until = now + min(_LATE * longest, _WORTH * pass_s)
        if not prompts:
            self._pass_s = pass_s
        if self._grouping is not None and prompts:
            self._grouping.prompts(pass_s)
        elif self._grouping is not None:
            self._grouping.gave(len(jobs), jobs=self._going, now=now)

    def came(self, job: Hash, *, now: float) -> None:
        """Take note that a job is back with its next rows."""
        self._missing.discard(job)
        seen = self._seen.get(job)
        if seen is None or seen.gave is None:
            return
        seen.before, seen.came = seen.came, now
        took, mean, seen.gave = now - seen.gave, seen.turnaround, None
        seen.turnaround = took if mean is None else mean + (_FASTER if took < mean else _SLOWER) * (took - mean)

    def left(self, job: Hash) -> None:
        """Take note that a job does not come back."""
        self._missing.discard(job)
        self._seen.pop(job, None)

    def wait_s(self, waiting: Collection[Hash], *, now: float, prompts: bool) -> float:
        """Return how long the next pass should still wait, 0 when it should not; sets `most`.

        `waiting` are the jobs with rows behind their prompts; while `prompts` wait as well no group is waited for.
        """
        if waiting and self._held is None:
            self._held = now
        least, self.most = self._group(waiting, now) if not prompts else (1, None)
        if self.most is not None and len(waiting) >= self.most:
            return 0.0
        until = max(self._until if self._missing else now, self._until_followed(waiting, now))
        if self._held is not None and len(waiting) < least:
            until = max(until, self._held + min(self._longest_turnaround(), _LONGEST_S))
        return until - now

    def _group(self, waiting: Collection[Hash], now: float) -> tuple[int, int | None]:
        """Return how many jobs are waited for, and how many are taken; groups are of those that nobody waits for."""
        on_way = [seen for seen in self._seen.values() if _goes_round(seen, now)]
        self._going = len(waiting) + len(on_way)
        if self._grouping is None or any(_soon(seen, self._pass_s) for seen in self._seen.values()):
            return 1, None
        return self._grouping.bounds(self._going)

    def _until_followed(self, waiting: Collection[Hash], now: float) -> float:
        """Return until when to wait for those who came about when the newest of `waiting` came the last time."""
        if self._held is None or not (here := [self._seen[job] for job in waiting if job in self._seen]):
            return now
        newest, most = max(here, key=lambda seen: seen.came), _WORTH * self._pass_s
        others = [seen for job, seen in self._seen.items() if job not in waiting and not _soon(seen, self._pass_s)]
        if all(abs(seen.came - newest.before) >= most for seen in others):
            return now
        return max(now, min(newest.came + most, self._held + self._pass_s))

    def _longest_turnaround(self) -> float:
        return max((seen.turnaround or 0.0 for seen in self._seen.values()), default=0.0)


def _goes_round(seen: _Seen, now: float) -> bool:
    """Tell whether a job that is not here is expected at all."""
    return seen.gave is not None and seen.turnaround is not None and now - seen.gave < _GONE * seen.turnaround


def _soon(seen: _Seen, pass_s: float) -> bool:
    return seen.turnaround is not None and seen.turnaround < _WORTH * pass_s
