"""What a figure is: a part of the bench with a name, bars, and a coroutine that measures it."""

from __future__ import annotations

import asyncio
import os
import statistics
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

__all__ = ["Bar", "Found", "Part", "Setting", "Values", "interleaved"]

_QUIET_S: Final = (
    0.5  # between two turns: what one way leaves behind (settling, spinning threads) is not the next one's
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """What a ratio has to reach: at least, or at most, `bound`."""

    bound: float
    at_most: bool = False

    def passed(self, value: float) -> bool:
        """Tell whether a value is good enough."""
        return value <= self.bound if self.at_most else value >= self.bound

    def __str__(self) -> str:
        return f"{'<=' if self.at_most else '>='} {self.bound:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How figures are measured: `folder` is scratch, each process computes with `threads` threads.

    `seconds` is how long the parts last that hold a load.
    """

    folder: Path
    threads: int = 1
    repeats: int = 5
    seconds: float = 60.0
    say: Callable[[str], None] = print


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Ratios by name, and whatever stands behind them, as JSON holds it."""

    ratios: Mapping[str, float]
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of the bench; `bars` are of the ratios that it may find, those without a bar are reported only."""

    name: str
    bars: Mapping[str, Bar]
    measure: Callable[[Setting], Awaitable[Found]]


@dataclass(slots=True)
class Values:
    """What one way measured in each repeat, and the machine's 1-minute load before each."""

    values: list[float] = field(default_factory=list[float])
    load: list[float] = field(default_factory=list[float])

    @property
    def median(self) -> float:
        """Return the median."""
        return statistics.median(self.values)

    def told(self, digits: int = 4) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return {"median": _short(self.median, digits), "values": [_short(value, digits) for value in self.values]} | {
            "load": [round(load, 2) for load in self.load]
        }


def _short(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")


async def interleaved(
    ways: Mapping[str, Callable[[int], Awaitable[float]]], *, repeats: int, pause_s: float = _QUIET_S
) -> dict[str, Values]:
    """Return what each way measured in `repeats` repeats; ways take turns, so that a busy machine slows all of them.

    A first turn of each, which fills caches and lets paces settle, is not counted; ways get the repeat's number. Before
    each turn there is a pause.
    """
    found = {name: Values() for name in ways}
    for repeat in range(repeats + 1):
        for name, measure in ways.items():
            await asyncio.sleep(pause_s)
            load = os.getloadavg()[0]
            value = await measure(repeat)
            if repeat:
                found[name].values.append(value)
                found[name].load.append(load)
    return found
