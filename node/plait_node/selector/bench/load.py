"""Tell how much of the machine others used while something ran."""

from __future__ import annotations

import os
import time

import psutil

__all__ = ["Load"]


class Load:
    """Counts from when it is made."""

    def __init__(self) -> None:
        self._cores = sorted(os.sched_getaffinity(0))
        self._began = time.perf_counter()
        self._busy, self._own = self._used()

    def foreign(self) -> tuple[float, float]:
        """Return the cores that other processes used, of those that this process may use and of all the machine's."""
        took = time.perf_counter() - self._began
        busy, own = self._used()
        spent = own - self._own
        here = sum(busy[core] - self._busy[core] for core in self._cores) - spent
        everywhere = sum(busy) - sum(self._busy) - spent
        return max(0.0, here / took), max(0.0, everywhere / took)

    def _used(self) -> tuple[list[float], float]:
        times = psutil.cpu_times(percpu=True)
        busy = [sum(core) - core.idle - getattr(core, "iowait", 0.0) - getattr(core, "guest", 0.0) for core in times]
        own = os.times()
        return busy, own.user + own.system
