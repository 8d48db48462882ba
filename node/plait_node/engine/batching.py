"""Decide what goes into a pass: pure, so that it is tested without a thread or a clock.

Rows that follow a prompt ("whole" works: one row, or a few that are speculated on) go first, up to a cap. What is left
of the pass's budget goes to prompts: half of it to the first in order, the rest in turns of one window, so that a short
prompt is not stuck behind a long one and a long one always advances. The order is by priority, and every fourth pass by
who has waited longest: with n jobs waiting, each is in one of 4 n passes at the latest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from plait.protocol.ids import Hash
from plait.protocol.windows import WINDOW_STEPS

__all__ = ["FAIR_EVERY", "Pace", "Share", "Waiting", "compose"]

FAIR_EVERY = 4  # passes
_MOST_ROWS = 4_096  # of prompts in one pass, however fast: what bounds the memory of a pass
_WEIGHT = 0.5  # of a pass that used its whole budget, in the running mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """The first work of a job that waits: rows of steps step, step + 1, ..."""

    job: Hash
    step: int
    rows: int
    whole: bool  # may not be split over passes
    priority: float  # the higher goes first
    since: int  # the pass in which it was served last, or came


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """How many rows of a job's first work are in the pass."""

    job: Hash
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How many prompt rows fit into a pass that computes for `bound_s` seconds, from a running mean of passes.

    It begins with one window a pass, at most doubles from pass to pass, and never falls below one window.
    """

    bound_s: float
    rows_per_second: float

    @classmethod
    def start(cls, bound_s: float) -> Pace:
        """Return the pace of a stage that has computed nothing yet."""
        return cls(bound_s=bound_s, rows_per_second=WINDOW_STEPS / bound_s)

    @property
    def rows(self) -> int:
        """Return the budget in rows: whole windows, at least one."""
        windows = int(self.rows_per_second * self.bound_s + 1e-6) // WINDOW_STEPS
        return max(WINDOW_STEPS, min(_MOST_ROWS, windows * WINDOW_STEPS))

    def after(self, rows: int, seconds: float) -> Pace:
        """Return the pace after a pass of so many rows; small passes are no measure of a large one's speed."""
        if rows < WINDOW_STEPS:
            return self
        weight = _WEIGHT * min(1.0, rows / self.rows)
        seen = rows / max(seconds, 1e-9)
        mean = min(self.rows_per_second + weight * (seen - self.rows_per_second), 2 * self.rows_per_second)
        return self._at(mean)

    def halved(self) -> Pace:
        """Return half of it: a pass found no memory."""
        return self._at(self.rows_per_second / 2)

    def _at(self, rows_per_second: float) -> Pace:
        return replace(self, rows_per_second=max(WINDOW_STEPS / self.bound_s, rows_per_second))


def compose(
    waiting: Sequence[Waiting], *, decode_rows: int, decode_jobs: int | None = None, budget: int, fair: bool
) -> list[Share]:
    """Return the next pass: of each job at most one share.

    At most `decode_rows` rows of `decode_jobs` whole works (a larger one goes alone; None: of all that wait) and, of
    prompts, what is left of `budget` rows but always one window. `fair` lets those go first that have waited longest.
    """
    ranked = sorted(waiting, key=_longest_first if fair else _best_first)
    shares = _decodes([each for each in ranked if each.whole][:decode_jobs], decode_rows)
    left = max(WINDOW_STEPS, budget - sum(share.rows for share in shares))
    return shares + _prompts([each for each in ranked if not each.whole], left)


def _best_first(each: Waiting) -> tuple[float, int]:
    return -each.priority, each.since


def _longest_first(each: Waiting) -> tuple[int, float]:
    return each.since, -each.priority


def _decodes(ranked: Sequence[Waiting], most: int) -> list[Share]:
    shares: list[Share] = []
    left = most
    for each in ranked:
        if each.rows > left and shares:
            break  # nobody behind it goes first only because it is smaller
        shares.append(Share(job=each.job, rows=each.rows))
        left -= each.rows
    return shares


def _prompts(ranked: Sequence[Waiting], budget: int) -> list[Share]:
    given = [0] * len(ranked)
    left = budget
    while ranked and left > budget // 2 and (piece := _piece(ranked[0], given[0], left)):
        given[0] += piece
        left -= piece
    while True:
        before = left
        for at, each in enumerate(ranked):
            piece = _piece(each, given[at], left)
            given[at] += piece
            left -= piece
        if left == before:
            return [Share(job=each.job, rows=rows) for each, rows in zip(ranked, given, strict=True) if rows]


def _piece(each: Waiting, given: int, left: int) -> int:
    """Return the rows up to the next border of a window, 0 if they do not fit."""
    at = each.step + given
    piece = min(each.rows - given, WINDOW_STEPS - at % WINDOW_STEPS)
    return piece if piece <= left else 0
