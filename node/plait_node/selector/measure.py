"""Measure the history that the selector chooses from.

Run it as: python -m plait_node.selector.measure --out FILE.json

Every cell of the grid is run on a pipeline of real engines with the real weights. Repeats go round all cells in turn,
so that a busy spell of the machine touches all methods and not one.
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

import psutil

from plait.protocol.windows import WINDOW_STEPS
from plait_model.gguf import find_embedded_model
from plait_model.manifest_build import build_manifest
from plait_node.selector.history import History, Measurement, Method
from plait_node.selector.pipeline import Pipeline

__all__ = ["Cell", "Plan", "grid", "measure"]

_PAUSE_S: Final = 1.0
_ANSWER: Final = 5  # tokens after the first, for the time per token


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to measure."""

    prompts: Sequence[int] = (32, 128, 384, 768)
    chunks: Sequence[int] = (32, 64, 128, 256)
    stages: Sequence[int] = (1, 3)
    repeats: int = 5
    calm: float = 0.1  # a run counts while other programs take at most this share of the machine ...
    patience_s: float = 0.0  # ... or once so much time went into runs that did not


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
    foreign: list[float] = field(default_factory=list[float])


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
    patience = _Patience(plan)
    for stages in plan.stages:
        runs = {cell: _Runs() for cell in cells}
        with Pipeline(path, built.manifest, built.tensors, stages=stages, kv_steps=3 * room) as pipeline:
            for repeat in range(-1, plan.repeats):  # the first round only warms caches
                for cell in random.sample(cells, len(cells)):
                    _run(pipeline, cell, runs[cell] if repeat >= 0 else None, room, patience)
                if say:
                    sys.stderr.write(f"{stages} stages, round {repeat + 1} of {plan.repeats}\n")
        found += [_measurement(name, stages, cell, runs[cell]) for cell in cells]
    return tuple(found)


class _Patience:
    """Judges whether a run was disturbed by other programs, and how long we may still wait for calm ones."""

    def __init__(self, plan: Plan) -> None:
        self._calm = plan.calm
        self._left_s = plan.patience_s

    def accepts(self, foreign: float, took_s: float) -> bool:
        """Say whether a run counts; time spent on one that does not is taken off."""
        if foreign <= self._calm or self._left_s <= 0:
            return True
        time.sleep(_PAUSE_S)
        self._left_s -= took_s + _PAUSE_S
        return False


def _run(pipeline: Pipeline, cell: Cell, runs: _Runs | None, room: int, patience: _Patience) -> None:
    """Run a cell once, or until a run counts; without `runs` it is only warmed."""
    while True:
        began, busy, own = time.perf_counter(), _busy_s(), pipeline.cpu_s()
        first_token_s, per_token_s = _once(pipeline, cell, room)
        took_s = time.perf_counter() - began
        foreign = (_busy_s() - busy - (pipeline.cpu_s() - own)) / took_s / (os.cpu_count() or 1)
        if runs is None:
            return
        if patience.accepts(foreign, took_s):
            runs.first_token_s.append(first_token_s)
            runs.per_token_s += per_token_s
            runs.load.append(os.getloadavg()[0])
            runs.foreign.append(max(0.0, foreign))
            return


def _once(pipeline: Pipeline, cell: Cell, room: int) -> tuple[float, list[float]]:
    """Return seconds to the first token and for each of a few more."""
    ids = [100 + (7_919 * step + cell.prompt) % 40_000 for step in range(cell.prompt)]
    if cell.cached:
        pipeline.open(room)
        pipeline.prefill(ids[: cell.cached], start=0, chunk=cell.cached)
        pipeline.keep(cell.cached // WINDOW_STEPS)
    pipeline.open(room)
    began = time.perf_counter()
    if cell.cached:
        pipeline.take(cell.cached // WINDOW_STEPS)
    token = pipeline.prefill(ids, start=cell.cached, chunk=cell.chunk or cell.prompt)
    first_token_s = time.perf_counter() - began
    per_token_s: list[float] = []
    for _ in range(_ANSWER):
        ids.append(token)
        began = time.perf_counter()
        token = pipeline.prefill(ids, start=len(ids) - 1, chunk=1)
        per_token_s.append(time.perf_counter() - began)
    return first_token_s, per_token_s


def _busy_s() -> float:
    """Return the seconds that all cores together have worked since the machine started."""
    times = psutil.cpu_times()
    return times.user + times.system


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
        foreign=round(statistics.median(runs.foreign), 3),
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
        "link": "pipes between processes of one machine; no TLS, hashing or signatures",
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
    parser.add_argument("--patience", type=float, default=0.0, help="seconds to spend on runs that are not calm")
    given = parser.parse_args()
    plan = Plan(
        prompts=given.prompts,
        chunks=given.chunks,
        stages=given.stages,
        repeats=given.repeats,
        patience_s=given.patience,
    )
    rows = measure(given.model, plan, say=True)
    command = shlex.join(["python", "-m", "plait_node.selector.measure", *sys.argv[1:]])
    History(command=command, machine=machine(), measurements=rows).save(given.out)


if __name__ == "__main__":
    main()
