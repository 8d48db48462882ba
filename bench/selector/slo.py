"""Deadlines of each kind of task, as shares of what the cell's default takes: only a better choice meets them.

Absolute deadlines would say more about the machine than about the choice. Where nobody waits for single tokens, the
time until the last answer counts; where somebody reads along, the first token may not come much later than by default
and the others have to come faster.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Final

from bench.selector.cells import Cell

__all__ = ["DEADLINES", "Deadline", "deadline", "meets"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """The most that is allowed of the default's time to the first token, time per further token, and whole time."""

    ttft: float = inf
    tpot: float = inf
    seconds: float = inf


_READ_ALONG: Final = Deadline(ttft=1.25, tpot=0.8)
_WHOLE: Final = Deadline(seconds=0.8)
DEADLINES: Final[Mapping[str, Deadline]] = {
    "chat": _READ_ALONG,
    "code": _READ_ALONG,
    "edit-code": _READ_ALONG,
    "story": _READ_ALONG,
    "shared-context": Deadline(ttft=1.25, seconds=0.8),
    "system-prompt": Deadline(ttft=1.25, seconds=0.8),
    "summarise": _WHOLE,
    "extract": _WHOLE,
    "rewrite": _WHOLE,
    "classify": _WHOLE,
}


def deadline(kind: str) -> Deadline:
    """Return a kind's deadline; kinds that are not in the table count by their whole time."""
    return DEADLINES.get(kind, _WHOLE)


def meets(cell: Cell, name: str) -> bool:
    """Return whether a candidate meets the deadline of the cell's kind."""
    wanted, found, default = deadline(cell.question.task.kind), cell.timings[name], cell.timings[cell.default]
    return (
        found.ttft_s <= wanted.ttft * default.ttft_s
        and found.tpot_s <= wanted.tpot * default.tpot_s
        and found.seconds <= wanted.seconds * default.seconds
    )
