"""Where the time of one decode step goes on the device: kernels of a replayed graph, and products alone."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from bench.gpu import llama8b
from torch.nn import functional

from plait.protocol.ids import keccak
from plait_node.engine import StepInput
from plait_node.engine.cuda import kernels

SHAPES = {"qkv": (6_144, 4_096), "out": (4_096, 4_096), "gate_up": (28_672, 4_096), "down": (4_096, 14_336)}
# Rows of a program, columns of one step, warps.
TILES = ((4, 1024, 4), (8, 512, 4), (8, 1024, 8), (16, 512, 8), (2, 2048, 4), (4, 2048, 8), (1, 4096, 4))


def run(facts: dict[str, Any]) -> dict[str, Any]:
    """Return microseconds by kernel of one step, and of each product by the library and by our own kernel."""
    return {"step": _step(), "products": _products(facts["machine"]["copy_gb_s"])}


def _step() -> dict[str, Any]:
    engine = llama8b.random_engine(kv_steps=4_096)
    job = keccak(b"job")
    engine.open(job, 1_024)
    engine.step_one(job, 0, np.arange(500), logits=0)

    def advance(step: int) -> None:
        engine.step([StepInput(job=job, start=step, rows=np.array([5]), logits=1, best=True)])

    for step in range(500, 510):
        advance(step)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for step in range(510, 520):
            advance(step)
        torch.cuda.synchronize()
    found: dict[str, list[float]] = defaultdict(lambda: [0, 0.0])
    spans = []
    for event in profile.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            found[event.name[:60]][0] += 1
            found[event.name[:60]][1] += event.device_time
            spans.append((event.time_range.start, event.time_range.end))
    top = sorted(found.items(), key=lambda item: -item[1][1])[:16]
    busy = sum(each[1] for each in found.values()) / 10
    return {
        "busy_us": round(busy),
        "span_us": round((max(e for _, e in spans) - min(s for s, _ in spans)) / 10),
        **{name: f"{count / 10:.0f} x, {total / 10:.0f} us" for name, (count, total) in top},
    }


def _products(copy_gb_s: float) -> dict[str, Any]:
    return {title: _product(rows, cols, copy_gb_s) for title, (rows, cols) in SHAPES.items()}


def _product(rows: int, cols: int, copy_gb_s: float) -> dict[str, Any]:
    # Eight copies, so that none stays in the cache.
    weights = [torch.randn(rows, cols, device="cuda", dtype=torch.bfloat16) for _ in range(8)]
    x = torch.randn(1, cols, device="cuda", dtype=torch.bfloat16)
    out = torch.empty(1, rows, device="cuda", dtype=torch.bfloat16)

    def ours(block: int, step: int, warps: int) -> None:
        grid = (-(-rows // block),)
        for w in weights:
            kernels.multiply[grid](x, w, out, rows, cols, ROWS=block, STEP=step, num_warps=warps)

    found: dict[str, Any] = {
        "floor_us": round(rows * cols * 2 / copy_gb_s / 1e3, 1),
        "library": _us(lambda: [functional.linear(x, w) for w in weights]),
    }
    for block, step, warps in TILES:
        found[f"{block} x {step}, {warps} warps"] = _us(partial(ours, block, step, warps))
    found["differs"] = round((out.float() - functional.linear(x, weights[-1]).float()).abs().max().item(), 4)
    return found


def _us(work: Callable[[], object]) -> float:
    for _ in range(3):
        work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    times = []
    for _ in range(20):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) * 1e3 / 8)
    return round(statistics.median(times), 1)
