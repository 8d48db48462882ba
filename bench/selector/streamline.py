"""What trying costs against choosing unseen: successive halving over a cell's candidates (Jamieson, Talwalkar 2016).

Rung r lets each candidate that is left answer a share of the answer, keeps the faster half and doubles the share; the
last one left is chosen. A trial costs the time to the first token and the share of the rest, from the measured seconds
of the repeats: each trial draws a repeat from a normal distribution whose middle half is theirs, wider by 1/sqrt(share)
for a short one.
Loading or packing weights for a candidate is not counted, which favours trying. Choosing unseen costs no trial.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, log2, sqrt
from typing import Any, Final

import numpy as np
from bench.selector.cells import Cell, Timing

__all__ = ["SHARES", "Tried", "halving", "streamline"]

SHARES: Final = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)  # of the answer, in the first rung
_MIDDLE_HALF: Final = 1.349  # its width in standard deviations
Draw = Callable[[Timing, float], float]  # a repeat's seconds, for a share of the answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What halving chose in one cell, and what its trials took; seconds, money, and a count."""

    chosen: str
    trials: int
    seconds: float
    cost: float


def halving(cell: Cell, share: float, draw: Draw) -> Tried:
    """Run successive halving that starts with a share of the answer."""
    left = list(cell.timings)
    seconds, trials = 0.0, 0
    for rung in range(max(1, ceil(log2(len(left))))):
        part = min(1.0, share * 2**rung)
        found: dict[str, float] = {}
        for name in left:
            timing = cell.timings[name]
            full = draw(timing, part)
            first = min(1.0, timing.ttft_s / timing.seconds) * full
            seconds += first + part * (full - first)
            trials += 1
            found[name] = full
        left = sorted(left, key=lambda name: found[name])[: ceil(len(left) / 2)]
    cost = seconds * cell.question.hardware.price_per_hour / 3_600
    return Tried(chosen=left[0], trials=trials, seconds=seconds, cost=cost)


def streamline(cells: Sequence[Cell], regret: float, *, seeds: int = 20) -> dict[str, Any]:
    """Return halving's regret and cost by its first share, and the cheapest that reaches `regret` (a mean)."""
    table = [_row(cells, share, seeds) for share in SHARES]
    good = [row for row in table if row["regret_mean"] <= regret]
    return {
        "zero_shot": {"regret_mean": regret, "trial_seconds_mean": 0.0, "trial_cost_mean": 0.0},
        "halving": table,
        "cheapest_as_good": min(good, key=lambda row: row["trial_seconds_mean"]) if good else None,
    }


def _row(cells: Sequence[Cell], share: float, seeds: int) -> dict[str, float]:
    lost: list[float] = []
    tried: list[Tried] = []
    runs: list[float] = []
    for seed in range(seeds):
        draw = _draws(seed)
        for cell in cells:
            one = halving(cell, share, draw)
            tried.append(one)
            lost.append(cell.timings[one.chosen].seconds / cell.timings[cell.ranked[0]].seconds - 1)
            runs.append(one.seconds / cell.timings[cell.default].seconds)
    return {
        "first_share": share,
        "regret_mean": float(np.mean(lost)),
        "trials_mean": float(np.mean([one.trials for one in tried])),
        "trial_seconds_mean": float(np.mean([one.seconds for one in tried])),
        "trial_cost_mean": float(np.mean([one.cost for one in tried])),
        "jobs_by_default_in_that_time": float(np.mean(runs)),
    }


def _draws(seed: int) -> Draw:
    random = np.random.default_rng(seed)

    def draw(timing: Timing, share: float) -> float:
        deviation = (timing.high_s - timing.low_s) / _MIDDLE_HALF / sqrt(share)
        return max(0.1 * timing.seconds, float(random.normal(timing.seconds, deviation)))

    return draw
