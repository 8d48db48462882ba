"""Whether forecast intervals hold what they promise: how many measured times lie below, within and above them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from bench.selector.cells import Cell
from bench.selector.ours import Forecasts

__all__ = ["calibration", "pairs_of"]


def pairs_of(forecasts: Forecasts, cells: Sequence[Cell]) -> list[tuple[float, float, float, float, bool]]:
    """Return measured, forecast, low and high seconds of every held-out pair of seed 0, and whether it was inside."""
    found: list[tuple[float, float, float, float, bool]] = []
    for cell in cells:
        estimates = forecasts.by_seed[0][cell.key]
        for name, timing in cell.timings.items():
            one = estimates[name]
            found.append((timing.seconds, one.seconds, one.low, one.high, one.inside))
    return found


def calibration(forecasts: Forecasts, cells: Sequence[Cell]) -> dict[str, Any]:
    """Return shares of measured times by where they lie, the intervals' median width, and the median error."""
    measured, forecast, low, high, inside = map(np.array, zip(*pairs_of(forecasts, cells), strict=True))
    within = (measured >= low) & (measured <= high)
    return {
        "pairs": len(measured),
        "below": float((measured < low).mean()),
        "within": float(within.mean()),
        "above": float((measured > high).mean()),
        "within_of_inside": float(within[inside].mean()) if inside.any() else None,
        "inside": float(inside.mean()),
        "width_median": float(np.median(high / low)),
        "error_median": float(np.median(np.abs(forecast / measured - 1))),
    }
