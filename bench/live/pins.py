"""Fixed methods: which four are compared with, and whether a job ran as its worker was pinned to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from plait_node.selector.combinations import Combination
from plait_node.selector.rows import Row

__all__ = ["FIXED", "SELECTOR", "Fixed", "best_fixed", "follows"]

SELECTOR: Final = "selector"  # the way in which nothing is pinned
ALWAYS_ON: Final = "always-on"  # what engines do anyway is compared with in any case
_COUNT: Final = 4
_NO_CHUNKS: Final = ("prefix-cache", "combined")  # what leaving chunks out is worth


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixed:
    """A combination of job scope, and the pairs of candidates whose speeds' ratios, multiplied, tell its speed."""

    combination: Combination
    told_by: tuple[tuple[str, str], ...] = ()


# All that a worker may be pinned to under the strict profile, in amounts that were measured. Compiled code was measured
# with chunks only; what leaving them out gives is read from the candidates without compiled code.
FIXED: Final[Mapping[str, Fixed]] = {
    "always-on": Fixed(combination=Combination(reuse=True, chunk=128)),
    "lookup-10": Fixed(combination=Combination(reuse=True, chunk=128, depth=10), told_by=(("lookup-10", ALWAYS_ON),)),
    "lookup-3": Fixed(combination=Combination(reuse=True, chunk=128, depth=3), told_by=(("lookup-3", ALWAYS_ON),)),
    "small-chunks": Fixed(combination=Combination(reuse=True, chunk=32), told_by=(("small-chunks", ALWAYS_ON),)),
    "prefix-cache": Fixed(combination=Combination(reuse=True), told_by=(_NO_CHUNKS,)),
    "prefix-cache, lookup-10": Fixed(
        combination=Combination(reuse=True, depth=10), told_by=(("lookup-10", ALWAYS_ON), _NO_CHUNKS)
    ),
    "prefix-cache, lookup-3": Fixed(
        combination=Combination(reuse=True, depth=3), told_by=(("lookup-3", ALWAYS_ON), _NO_CHUNKS)
    ),
    "plain": Fixed(combination=Combination(), told_by=(("none", "combined"),)),
}


def best_fixed(rows: Iterable[Row]) -> dict[str, float]:
    """Return always-on and the three others that the history says are fastest: speed over always-on's.

    Of cells of one request, whose model has real weights, and in which both of a pair were measured; geometric means.
    An amount whose pairs were never measured together is not ranked.
    """
    seconds: dict[tuple[str, str, str, int], dict[str, float]] = {}
    for row in rows:
        if row.task.batch == 1 and row.model.real_weights:
            seconds.setdefault(row.cell, {})[row.candidate.name] = row.outcome.seconds
    speeds = {name: _speed(each.told_by, list(seconds.values())) for name, each in FIXED.items()}
    known = {name: speed for name, speed in speeds.items() if math.isfinite(speed)}
    order = sorted(known.keys() - {ALWAYS_ON}, key=lambda name: (-known[name], name))
    return {name: known[name] for name in (ALWAYS_ON, *order[: _COUNT - 1])}


def _speed(pairs: Sequence[tuple[str, str]], cells: Sequence[Mapping[str, float]]) -> float:
    speed = 1.0
    for name, against in pairs:
        logs = [math.log(cell[against] / cell[name]) for cell in cells if name in cell and against in cell]
        speed *= math.exp(sum(logs) / len(logs)) if logs else math.nan
    return speed


def follows(combination: Combination, method: str, amounts: Mapping[str, int]) -> bool:
    """Tell whether a job ran as pinned; a cache with nothing in it and chunks that change nothing may be left out."""
    return (
        set(method.split("+")) - {"plain"} <= set(combination.methods)
        and amounts.get("depth", 0) == combination.depth
        and amounts.get("chunk", 0) in {0, combination.chunk}
    )
