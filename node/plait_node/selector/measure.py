"""Measure the history that the selector chooses from.

Run it as: python -m plait_node.selector.measure --out FILE.json

Every cell of the grid is run on a pipeline of real engines with the real weights, whose time is the CPU time of its
steps (see `pipeline`): a busy machine makes it noisier, not slower. Repeats go round all cells in turn, so that a busy
spell touches all methods and not one.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import shlex
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Final

from plait.protocol.windows import WINDOW_STEPS
from plait_model.gguf import find_embedded_model
from plait_model.manifest_build import build_manifest
from plait_node.selector.history import History, Measurement, Method
from plait_node.selector.pipeline import Pipeline

__all__ = ["Cell", "Plan", "grid", "measure"]

_ANSWER: Final = 5  # tokens after the first, for the time per token


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to measure."""

    prompts: Sequence[int] = (32, 128, 384, 768)
    chunks: Sequence[int] = (32, 64, 128, 256)
    stages: Sequence[int] = (1, 3)
    repeats: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One point of the grid."""

    method: Method
    prompt: int
    chunk: int = 0
    cached: int = 0


@dataclass(slots=True)
class _Runs:
    first_token_s: list[float] = field(default_factory=list[float])
    per_token_s: list[float] = field(default_factory=list[float])
    load: list[float] = field(default_factory=list[float])
    wall_s: list[float] = field(default_factory=list[float])


def grid(plan: Plan) -> Iterator[Cell]:
    """Yield every cell: chunks shorter than the prompt; half of the prompt cached, and all of its windows but one."""
    for prompt in plan.prompts:
        yield Cell(method="plain", prompt=prompt)
        for chunk in plan.chunks:
            if chunk < prompt:
                yield Cell(method="chunked-prefill", prompt=prompt, chunk=chunk)
        whole = (prompt - 1) // WINDOW_STEPS * WINDOW_STEPS
        for cached in sorted({whole // 2 // WINDOW_STEPS * WINDOW_STEPS, whole} - {0}):
            yield Cell(method="prefix-cache", prompt=prompt, cached=cached)


def measure(name: str, plan: Plan, *, say: bool = False) -> tuple[Measurement, ...]:
    """Measure an embedded model over the whole grid; at least two repeats."""
    path = find_embedded_model(name)
    built = build_manifest(path, name=name)
    cells = list(grid(plan))
    room = max(plan.prompts) + _ANSWER + 1
    found: list[Measurement] = []
    for stages in plan.stages:
        runs = {cell: _Runs() for cell in cells}
        with Pipeline(path, built.manifest, built.tensors, stages=stages, kv_steps=3 * room) as pipeline:
            for repeat in range(-1, plan.repeats):  # the first round only warms caches
                for cell in random.sample(cells, len(cells)):
                    _run(pipeline, cell, runs[cell] if repeat >= 0 else _Runs(), room)
                if say:
                    sys.stderr.write(f"{stages} stages, round {repeat + 1} of {plan.repeats}\n")
        found += [_measurement(name, stages, cell, runs[cell]) for cell in cells]
    return tuple(found)


def _run(pipeline: Pipeline, cell: Cell, runs: _Runs, room: int) -> None:
    ids = [100 + (7_919 * step + cell.prompt) % 40_000 for step in range(cell.prompt)]
    if cell.cached:
        pipeline.open(room)
        pipeline.prefill(ids[: cell.cached], start=0, chunk=cell.cached)
        pipeline.keep(cell.cached // WINDOW_STEPS)
    pipeline.open(room)
    began = time.perf_counter()
    ready = pipeline.take(cell.cached // WINDOW_STEPS) if cell.cached else 0.0
    token, at = pipeline.prefill(ids, start=cell.cached, chunk=cell.chunk or cell.prompt, at=ready)
    runs.wall_s.append(time.perf_counter() - began)
    runs.first_token_s.append(at)
    for _ in range(_ANSWER):
        ids.append(token)
        before = at
        token, at = pipeline.prefill(ids, start=len(ids) - 1, chunk=1, at=before)
        runs.per_token_s.append(at - before)
    runs.load.append(os.getloadavg()[0])


def _measurement(name: str, stages: int, cell: Cell, runs: _Runs) -> Measurement:
    low, middle, high = statistics.quantiles(runs.first_token_s, n=4, method="inclusive")
    return Measurement(
        model=name,
        stages=stages,
        method=cell.method,
        chunk=cell.chunk,
        prompt_tokens=cell.prompt,
        cached_tokens=cell.cached,
        repeats=len(runs.first_token_s),
        ttft_s=round(middle, 5),
        ttft_low_s=round(low, 5),
        ttft_high_s=round(high, 5),
        tpot_s=round(statistics.median(runs.per_token_s), 5),
        load=round(statistics.median(runs.load), 2),
        wall_s=round(statistics.median(runs.wall_s), 5),
    )


def machine() -> dict[str, str | int]:
    """Return what the times depend on."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return {
        "cpu": model,
        "cores": os.cpu_count() or 1,
        "torch": version("torch"),
        "transformers": version("transformers"),
        "threads": 1,
        "clock": "CPU time of each step; stages run side by side, each on a core of its own",
        "link": "pipes between processes, counted as instant; no TLS, hashing or signatures",
        "ended": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def main() -> None:
    """Measure and write a history."""
    parser = argparse.ArgumentParser(prog="python -m plait_node.selector.measure", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--model", default="smollm2-135m", help="embedded model (default: %(default)s)")
    parser.add_argument("--prompts", type=int, nargs="+", default=list(Plan().prompts), help="prompt lengths, tokens")
    parser.add_argument("--chunks", type=int, nargs="+", default=list(Plan().chunks), help="chunk sizes, rows")
    parser.add_argument("--stages", type=int, nargs="+", default=list(Plan().stages), help="numbers of stages")
    parser.add_argument("--repeats", type=int, default=Plan().repeats, help="runs of each cell (default: %(default)s)")
    given = parser.parse_args()
    plan = Plan(prompts=given.prompts, chunks=given.chunks, stages=given.stages, repeats=given.repeats)
    rows = measure(given.model, plan, say=True)
    command = shlex.join(["python", "-m", "plait_node.selector.measure", *sys.argv[1:]])
    History(command=command, machine=machine(), measurements=rows).save(given.out)


if __name__ == "__main__":
    main()
