"""Measure methods by batch size: the figure that motivates choosing a method per task.

Run it as: python -m bench.methods [--out DIR] (`make bench-methods-figure`). On SmolLM2-135M with its real weights;
`bench.gpu` runs the same grid on a CUDA device. `batch` requests arrive at once; all share a prefix (a system prompt),
which an earlier request has computed already. Cells are visited in random order in each repeat.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np

from plait.protocol.ids import HASH_ZERO, keccak
from plait.protocol.messages import Sampling
from plait_node.engine.local_route import LocalRequest, LocalRoute

__all__ = ["BATCHES", "Grid", "measure", "winners"]

BATCHES: Final = (1, 2, 4, 8, 16, 32)
GREEDY: Final = Sampling(temperature=0, top_p=1_000_000, top_k=0, stop=HASH_ZERO)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """What every cell asks: lengths in tokens."""

    shared: int
    own: int
    answer: int
    chunk: int
    vocabulary: int
    repeats: int

    def methods(self, batch: int) -> dict[str, dict[str, int]]:
        """Return each setting's methods and amounts."""
        together = {"continuous-batching": batch}
        return {
            "none": {},
            "continuous batching": together,
            "prefix caching": {"prefix-cache": 1},
            "chunked prefill": {"chunked-prefill": self.chunk},
            "all combined": {**together, "prefix-cache": 1, "chunked-prefill": self.chunk},
        }


def measure(route: LocalRoute, grid: Grid) -> dict[str, Any]:
    """Return seconds per request (mean over the batch, from arrival to last token) and new tokens a second."""
    cells = [(method, batch) for batch in BATCHES for method in grid.methods(batch)]
    runs: dict[tuple[str, int], list[tuple[float, float]]] = {cell: [] for cell in cells}
    for batch in BATCHES:  # what is built or captured at the first use is no method's cost
        _run(route, grid, batch, grid.methods(batch)["all combined"], seed=0)
    for repeat in range(grid.repeats):
        for method, batch in random.sample(cells, len(cells)):
            runs[method, batch].append(_run(route, grid, batch, grid.methods(batch)[method], seed=repeat + 1))
    table = {
        method: {
            str(batch): {
                "latency_s": round(statistics.median(latency for latency, _ in runs[method, batch]), 4),
                "tokens_s": round(statistics.median(speed for _, speed in runs[method, batch]), 2),
            }
            for batch in BATCHES
        }
        for method in grid.methods(1)
    }
    return {"grid": asdict(grid), "load": os.getloadavg()[0], "cells": table, **findings(winners(table))}


def findings(best: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """Return the winners, where they change, and whether it is as the paper says: combined first, cache later."""
    batches = list(best)
    changes = {
        kind: [batch for before, batch in pairwise(batches) if best[before][kind] != best[batch][kind]]
        for kind in ("latency", "throughput")
    }
    first, last = best[batches[0]], best[batches[-1]]
    holds = {kind: first[kind] == "all combined" and last[kind] == "prefix caching" for kind in changes}
    return {"winners": dict(best), "winner_changes_at": changes, "combined_small_prefix_large_holds": holds}


def winners(table: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, str]]:
    """Return which setting has the lowest latency and which the most tokens a second, per batch."""
    return {
        str(batch): {
            "latency": min(table, key=lambda method: table[method][str(batch)]["latency_s"]),
            "throughput": max(table, key=lambda method: table[method][str(batch)]["tokens_s"]),
        }
        for batch in BATCHES
    }


def _run(route: LocalRoute, grid: Grid, batch: int, methods: Mapping[str, int], *, seed: int) -> tuple[float, float]:
    draw = np.random.default_rng([seed, batch, len(methods)])
    prefix = draw.integers(1_000, grid.vocabulary, grid.shared).tolist()

    def request(index: int, answer: int) -> LocalRequest:
        own = draw.integers(1_000, grid.vocabulary, grid.own).tolist()
        name = keccak(repr((seed, batch, sorted(methods), index)).encode())
        return LocalRequest(request=name, prompt=prefix + own, max_tokens=answer, sampling=GREEDY, seed=HASH_ZERO)

    if "prefix-cache" in methods:
        route.run([request(batch, 1)], methods)
    began = time.perf_counter()
    answers = route.run([request(index, grid.answer) for index in range(batch)], methods)
    took = time.perf_counter() - began
    return statistics.mean(answer.times[-1] for answer in answers), batch * grid.answer / took


def main() -> None:
    from bench.methods_plot import draw_figure  # noqa: PLC0415 -- the device has no need of plots
    from bench.models import smollm2_engine  # noqa: PLC0415 -- as above

    parser = argparse.ArgumentParser(prog="python -m bench.methods", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="folder for methods.json and methods.png")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    route = LocalRoute([smollm2_engine("bf16", threads=given.threads, kv_steps=16_384)], profile="bf16", margins=False)
    grid = Grid(shared=256, own=32, answer=32, chunk=128, vocabulary=40_000, repeats=given.repeats)
    found = {"model": "SmolLM2-135M-Instruct, bf16", "threads": given.threads, **measure(route, grid)}
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "methods.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    draw_figure(found, given.out / "methods.png")
    for batch, best in found["winners"].items():
        print(f"batch {batch:>2}: latency {best['latency']}, throughput {best['throughput']}")


if __name__ == "__main__":
    main()
