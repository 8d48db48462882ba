"""The network that a crowd of callers meets, and what each of its processes takes: memory and processor."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import psutil
from bench.live.network import OneRoute

from plait_node.home import Home
from plait_node.localnet import Child

__all__ = ["CrowdNetwork", "Usage", "by_minute", "growth_a_minute", "watched", "worst_growth"]

ROOM: Final = 8  # jobs that the worker takes at once: the yardstick's callers
_EVERY_S: Final = 5.0
_MINUTE_S: Final = 60.0
_MIB: Final = 1 << 20
# Not ours, or kept on purpose: the chain holds every block, the callers every answer.
_GROW: Final = ("anvil", "callers")


@dataclass(kw_only=True)
class CrowdNetwork(OneRoute):
    """A local network of one route whose worker takes `ROOM` jobs at once."""

    def start_node(self, name: str) -> Child | None:
        """Start a node; the worker with more room."""
        if name == "worker":
            config = Home(self.folder / "nodes" / name).path / "node.toml"
            text = config.read_text(encoding="utf-8")
            if "parallel_jobs" not in text:
                config.write_text(text + f"parallel_jobs = {ROOM}\n", encoding="utf-8")
        return super().start_node(name)

    def pids(self) -> dict[str, int]:
        """Return every process by its name, this one among them."""
        found = {child.name: child.pid for child in self._children.all if child.alive}
        if self._broker is not None:
            found["nats-server"] = self._broker.pid
        return found | {"callers": os.getpid()}


@dataclass(slots=True)
class Usage:
    """What one process took: memory in MiB by second, and seconds of a processor over all."""

    at: list[float] = field(default_factory=list[float])
    mib: list[float] = field(default_factory=list[float])
    cpu_s: float = 0.0

    def told(self, seconds: float) -> dict[str, Any]:
        """Return it as JSON holds it: memory by minute, its growth behind the first third, the share of a core."""
        return {
            "mib_by_minute": [round(each, 1) for each in by_minute(self.at, self.mib)],
            "growth_a_minute": round(growth_a_minute(self.at, self.mib), 4),
            "cpu": round(self.cpu_s / seconds, 3),
        }


def by_minute(at: Sequence[float], mib: Sequence[float]) -> list[float]:
    """Return the median of each minute, seconds counted from the first."""
    minutes: dict[int, list[float]] = {}
    for second, value in zip(at, mib, strict=True):
        minutes.setdefault(int((second - at[0]) // _MINUTE_S), []).append(value)
    return [statistics.median(minutes[each]) for each in sorted(minutes)]


def growth_a_minute(at: Sequence[float], mib: Sequence[float]) -> float:
    """Return the slope of the last two thirds as a share of their mean, a minute; 0 of fewer than three values."""
    behind = [place for place, second in enumerate(at) if second >= at[0] + (at[-1] - at[0]) / 3] if at else []
    if len(behind) < 3:
        return 0.0
    values = np.array([mib[place] for place in behind])
    slope = np.polyfit(np.array([at[place] for place in behind]), values, 1)[0]
    return float(slope * _MINUTE_S / values.mean())


async def watched(network: CrowdNetwork, usage: dict[str, Usage]) -> None:
    """Note what every process takes, every few seconds, until cancelled."""
    began = time.monotonic()
    cpu: dict[str, float] = {}
    while True:
        for name, pid in network.pids().items():
            process = psutil.Process(pid)
            times, now = process.cpu_times(), usage.setdefault(name, Usage())
            spent = times.user + times.system
            now.cpu_s += spent - cpu.get(name, spent)
            cpu[name] = spent
            now.at.append(time.monotonic() - began)
            now.mib.append(process.memory_info().rss / _MIB)
        await asyncio.sleep(_EVERY_S)


def worst_growth(usage: Mapping[str, Usage]) -> float:
    """Return the largest growth of the processes that should not grow."""
    return max((growth_a_minute(each.at, each.mib) for name, each in usage.items() if name not in _GROW), default=0.0)
