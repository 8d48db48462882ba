"""Measure the machine that a worker runs on, once, in a process of its own and beside its work.

Run as `python -m plait_node.selector.machine FILE` it measures at the lowest priority, with the one thread that a stage
computes with unless it is told otherwise. While others use the cores it waits and measures again, as they would make
the machine look slow; what it found best is kept.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from plait_node.selector.child import run_module
from plait_node.selector.errors import HardwareFileError
from plait_node.selector.facts import HardwareFacts
from plait_node.selector.observe import read_hardware, save_hardware

__all__ = ["Measure", "measure", "measure_in_background"]

SETTING: Final = "one-core"
_TRIES: Final = 4
_PAUSE_S: Final = 10.0
_MOST_FOREIGN: Final = 0.5  # cores that others may use meanwhile, besides those that are left
_MEASURE_S: Final = 300.0

Measure = Callable[[], Awaitable[HardwareFacts]]


def measure_in_background(path: Path) -> Measure:
    """Return what measures this machine into `path`; it raises `HardwareFileError`, `OSError` or `TimeoutError`."""

    async def run() -> HardwareFacts:
        done = await run_module("plait_node.selector.machine", str(path), deadline_s=_MEASURE_S)
        if done != 0:
            raise HardwareFileError(f"the process that measures ended with {done}; see what it wrote above")
        return read_hardware(path)

    return run


def measure(*, pause_s: float = _PAUSE_S) -> HardwareFacts:
    """Return this machine's facts, of the quickest of a few tries; the first that nothing disturbs is the last."""
    from plait_node.selector.bench.load import Load  # noqa: PLC0415 -- loads torch
    from plait_node.selector.bench.settings import hardware_facts  # noqa: PLC0415 -- as above

    found: list[HardwareFacts] = []
    cores = len(os.sched_getaffinity(0))
    for left in reversed(range(_TRIES)):
        load = Load()
        found.append(hardware_facts(SETTING, cores=cores))
        if load.foreign()[0] <= cores - 1 + _MOST_FOREIGN:
            break
        time.sleep(pause_s if left else 0.0)
    return max(found, key=lambda each: each.matmul_gflops)


def main() -> int:
    """Measure into a file."""
    parser = argparse.ArgumentParser(prog="python -m plait_node.selector.machine", description=__doc__)
    parser.add_argument("file", type=Path, help="gets the machine's facts, as JSON")
    given = parser.parse_args()
    os.nice(19)
    save_hardware(given.file, measure())
    return 0


if __name__ == "__main__":
    sys.exit(main())
