"""Choose how many threads a stage computes with, by timing passes of one row: what decoding spends its life in.

One core can be all that memory feeds, and threads that share a core with others wait for each other; which of it holds
is a fact of the machine.
"""

from __future__ import annotations

import logging
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import torch

from plait.protocol.manifest import Manifest
from plait_node.engine.faces import Blocks, Span
from plait_node.engine.native import NativeBlocks
from plait_node.engine.room import JobCache

__all__ = ["choose_threads", "fewest_of_fast", "timed", "usable_cores"]

_log = logging.getLogger(__name__)

_MOST_THREADS: Final = 8
_ROUNDS: Final = 5
_NEAR: Final = 1.05  # so much slower than the fastest is as good, with fewer threads


def choose_threads(blocks: Blocks, manifest: Manifest, *, first: int, last: int) -> int:
    """Wait until blocks on the CPU are ready, time one row with 1, 2, ... threads, keep the best count and return it.

    To be called before any other thread runs the blocks; takes some dozen passes.
    """
    if isinstance(blocks, NativeBlocks):
        blocks.wait()
    run_row = _one_row(blocks, manifest, first=first, last=last)

    def run(threads: int) -> None:
        _use(blocks, threads)
        run_row()

    seconds = timed(run, range(1, usable_cores() + 1), clock=time.perf_counter)
    chosen = fewest_of_fast(seconds)
    _use(blocks, chosen)
    shown = ",".join(f"{threads}:{1e6 * taken:.0f}" for threads, taken in seconds.items())
    _log.info("threads measured threads=%d pass_micros=%s", chosen, shown)
    return chosen


def fewest_of_fast(seconds: Mapping[int, float]) -> int:
    """Return the smallest number of threads whose time is within 5 % of the best; there must be one time at least."""
    limit = _NEAR * min(seconds.values())
    return min(threads for threads, taken in seconds.items() if taken <= limit)


def timed(run: Callable[[int], None], counts: Sequence[int], *, clock: Callable[[], float]) -> dict[int, float]:
    """Return the median seconds of five runs with each number of threads, after one that warms up.

    Rounds go over all numbers in turn, so that a busy moment of the machine falls on all of them.
    """
    taken: dict[int, list[float]] = {threads: [] for threads in counts}
    for _ in range(1 + _ROUNDS):
        for threads in counts:
            began = clock()
            run(threads)
            taken[threads].append(clock() - began)
    return {threads: statistics.median(each[1:]) for threads, each in taken.items()}


def usable_cores() -> int:
    """Return how many cores this process may run on, at most 8."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, _MOST_THREADS))


def _one_row(blocks: Blocks, manifest: Manifest, *, first: int, last: int) -> Callable[[], None]:
    cache = JobCache(blocks.kv, 1)
    given = torch.zeros(1, dtype=torch.int64) if first == 0 else torch.ones(1, manifest.hidden)

    def run() -> None:
        with torch.inference_mode():
            rows = blocks.forward(given, [Span(cache=cache, start=0, count=1)])
            if last == manifest.blocks:
                blocks.logits(rows)

    return run


def _use(blocks: Blocks, threads: int) -> None:
    torch.set_num_threads(threads)
    if isinstance(blocks, NativeBlocks):
        blocks.threads = threads
