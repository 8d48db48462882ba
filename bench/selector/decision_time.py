"""How long one decision takes: predicting every candidate of a question and choosing, with texts embedded before."""

from __future__ import annotations

import os
from collections.abc import Sequence
from time import perf_counter, thread_time
from typing import Final

import numpy as np
from bench.selector.baselines.face import Selector, choose
from bench.selector.cells import Cell

__all__ = ["decision_time"]

_DECISIONS: Final = 600


def decision_time(selector: Selector, cells: Sequence[Cell], *, decisions: int = _DECISIONS) -> dict[str, float]:
    """Return p50 and p99 in milliseconds of a fitted selector on this thread, the first 20 not counted.

    CPU time stands beside: it is what an undisturbed core takes, where something else runs on this one.
    """
    took: list[tuple[float, float]] = []
    for index in range(decisions + 20):
        question = cells[index % len(cells)].question
        names = [each.name for each in question.candidates]
        began, worked = perf_counter(), thread_time()
        choose(selector.rank(question), names)
        took.append((perf_counter() - began, thread_time() - worked))
    (p50, cpu_p50), (p99, cpu_p99) = (1_000 * np.quantile(took[20:], (0.5, 0.99), axis=0)).tolist()
    return {
        "p50_ms": p50,
        "p99_ms": p99,
        "cpu_p50_ms": cpu_p50,
        "cpu_p99_ms": cpu_p99,
        "decisions": decisions,
        "load": os.getloadavg()[0],
    }
