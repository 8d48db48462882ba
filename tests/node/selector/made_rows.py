"""A made-up measured history: what engines of a plausible cost would take, with noise; the same for the same seed.

The cost is worked out pass by pass and knows things that no feature says (how well a family's products run, what a pass
costs besides its rows), so that a predictor has something to learn and is never told all of it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from typing import Final

import numpy as np

from plait_node.selector.candidates import CANDIDATES, feasible
from plait_node.selector.facts import Candidate, HardwareFacts, ModelFacts, TaskFacts
from plait_node.selector.rows import Outcome, Row, Rows

__all__ = ["HARDWARE", "MODELS", "TASKS", "made_rows"]

_BYTES: Final = {"fp32": 4.0, "bf16": 2.0, "int8": 1.06, "int4": 0.56}
_CODED: Final = {"codec-bf16": 2.0, "codec-int8": 1.06}
_SPEED: Final = {"fp32": 0.85, "bf16": 1.5, "int8": 1.4, "int4": 0.9}  # of products, against fp32's measured rate


def _model(name: str, family: str, shape: tuple[int, int, int, int, int, int], *, real: bool = False) -> ModelFacts:
    """Return a model of so many blocks, hidden values, heads, key heads, values between and words."""
    blocks, hidden, heads, kv_heads, wide, words = shape
    width = hidden // heads
    each = hidden * (2 * hidden + 2 * kv_heads * width) + 3 * hidden * wide
    return ModelFacts(
        name=name,
        family=family,
        real_weights=real,
        blocks=blocks,
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        intermediate=wide,
        vocabulary=words,
        parameters=blocks * each + hidden * words,
        block_parameters=blocks * each,
    )


MODELS: Final = (
    _model("smollm2-135m", "llama", (30, 576, 9, 3, 1_536, 49_152), real=True),
    _model("gemma3-270m", "gemma3", (18, 640, 4, 1, 2_048, 262_144), real=True),
    _model("llama-60m", "llama", (8, 512, 8, 4, 2_048, 32_000)),
    _model("qwen2-300m", "qwen2", (16, 1_024, 16, 2, 4_096, 32_000)),
    _model("gpt2-90m", "gpt2", (12, 768, 12, 12, 2_048, 50_257)),
)


def _machine(name: str, stages: int, threads: int, rtt_s: float, bytes_s: float, *, compiler: bool) -> HardwareFacts:
    return HardwareFacts(
        name=name,
        device="cpu",
        chip="made-up 3 GHz",
        cores=2,
        threads=threads,
        stages=stages,
        rtt_s=rtt_s,
        bytes_s=bytes_s,
        matmul_gflops=90.0 * threads**0.9,
        copy_gbytes_s=19.0 * threads**0.4,
        memory_gbytes=16.0,
        compiler=compiler,
        price_per_hour=0.05 * stages,
    )


HARDWARE: Final = (
    _machine("one-thread", 1, 1, 0.0, 0.0, compiler=True),
    _machine("two-threads", 1, 2, 0.0, 0.0, compiler=True),
    _machine("no-compiler", 1, 2, 0.0, 0.0, compiler=False),
    _machine("lan-2-stages", 2, 1, 0.001, 1.25e8, compiler=True),
    _machine("wan-2-stages", 2, 1, 0.02, 6.25e6, compiler=True),
    _machine("far-3-stages", 3, 1, 0.08, 1.25e6, compiler=True),
)


def _task(kind: str, tokens: tuple[int, int, int, int], repetition: float) -> TaskFacts:
    """Return a task of so many prompt, shared, warm and answer tokens."""
    prompt, shared, warm, answer = tokens
    return TaskFacts(
        kind=kind,
        batch=1,
        prompt_tokens=prompt,
        shared_tokens=shared,
        warm_tokens=warm,
        answer_tokens=answer,
        repetition=repetition,
    )


TASKS: Final = (
    _task("chat", (70, 32, 0, 48), 0.05),
    _task("system-prompt", (330, 256, 256, 32), 0.08),
    _task("summarise", (520, 0, 0, 40), 0.12),
    _task("edit-code", (260, 48, 48, 64), 0.45),
    _task("classify", (180, 160, 0, 4), 0.06),
    _task("extract", (400, 16, 0, 24), 0.3),
    _task("story", (24, 0, 0, 96), 0.02),
)
_BATCHES: Final = (1, 4, 16)


@cache
def made_rows(*, cells: int = 60, seed: int = 0, noise: float = 0.02) -> Rows:
    """Return rows of so many cells, at most 630, with each candidate that can run there.

    `noise` is the standard deviation of log seconds.
    """
    random = np.random.default_rng(seed)
    grid = list(product(TASKS, MODELS, HARDWARE, _BATCHES))
    rows: list[Row] = []
    for index in random.choice(len(grid), size=cells, replace=False):
        task, model, hardware, batch = grid[index]
        jitter = float(random.uniform(0.9, 1.1))
        asked = replace(task, batch=batch, prompt_tokens=round(task.prompt_tokens * jitter, 1))
        for candidate in CANDIDATES.values():
            if feasible(candidate, hardware, real_weights=model.real_weights):
                done = _Cost(asked, model, hardware, candidate).run()
                outcome = _outcome(asked, done, float(np.exp(random.normal(0.0, noise))), noise)
                rows.append(Row(task=asked, model=model, hardware=hardware, candidate=candidate, outcome=outcome))
    return Rows(rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Done:
    seconds: float
    ttft_s: float
    tpot_s: float
    accepted: float


class _Cost:
    """What one candidate takes in one cell."""

    def __init__(self, task: TaskFacts, model: ModelFacts, hardware: HardwareFacts, candidate: Candidate) -> None:
        self._task, self._model, self._hardware = task, model, hardware
        self._methods: Mapping[str, int] = candidate.methods
        self._weights = candidate.weights
        self._compiled = "compiled" in self._methods
        self._prompt = max(1, round(task.prompt_tokens))
        self._depth = self._methods.get("prompt-lookup", 0) or self._methods.get("draft-model", 0)
        self._rate = 0.9 if "draft-model" in self._methods else min(0.9, 0.1 + 1.6 * task.repetition)
        self._gain = self._tokens_a_pass()

    def run(self) -> _Done:
        done = self._together() if "continuous-batching" in self._methods else self._one_by_one()
        return replace(done, accepted=self._rate if self._depth else -1.0)

    def _tokens_a_pass(self) -> float:
        """Return 1 where checking would not pay: look-up sees that for itself, a draft does not."""
        if not self._depth:
            return 1.0
        tokens = sum(self._rate**step for step in range(self._depth + 1))
        pays = tokens > 1 + 0.12 * self._depth or "draft-model" in self._methods
        return tokens if pays else 1.0

    def _known(self, index: int) -> int:
        """Return how many leading tokens of a request need not be computed, in whole windows of 16."""
        if "prefix-cache" not in self._methods:
            return 0
        known = self._task.shared_tokens if index else self._task.warm_tokens
        return min(known, self._prompt - 1) // 16 * 16

    def _one_by_one(self) -> _Done:
        """Return one request's time for each; the first may find less in the cache than the others."""
        budget = self._methods.get("chunked-prefill", self._prompt)
        at, firsts = 0.0, list[float]()
        step = self._pass(0, 1)
        for index in range(self._task.batch):
            left = self._prompt - self._known(index)
            while left > 0:
                at += self._pass(min(left, budget), 0)
                left -= budget
            firsts.append(at)
            at += step * math.ceil((self._task.answer_tokens - 1) / self._gain)
        return self._finished(at, firsts, step / self._gain)

    def _together(self) -> _Done:
        left = [self._prompt - self._known(index) for index in range(self._task.batch)]
        waits = [0.0 for _ in left]
        owed = [float(self._task.answer_tokens) for _ in left]
        at, steps, firsts = 0.0, list[float](), list[float]()
        while any(tokens > 0 for tokens in owed):
            budget = self._methods.get("chunked-prefill", self._prompt * self._task.batch)
            streams = [index for index, rows in enumerate(left) if rows <= 0 and owed[index] > 0]
            prompts = 0
            for index, rows in enumerate(left):
                taken = min(max(rows, 0), budget - prompts)
                left[index] -= taken
                prompts += taken
            took = self._pass(prompts, len(streams))
            at += took
            steps += [took] if streams else []
            for index in streams:
                owed[index] -= self._gain
            for index, rows in enumerate(left):
                if rows <= 0 and not waits[index]:
                    waits[index] = at
                    owed[index] -= 1
                    firsts.append(at)
        return self._finished(at, firsts, (float(np.median(steps)) if steps else 0.0) / self._gain)

    def _finished(self, seconds: float, firsts: list[float], tpot_s: float) -> _Done:
        return _Done(seconds=seconds, ttft_s=float(np.mean(firsts)), tpot_s=tpot_s, accepted=-1.0)

    def _pass(self, prompt_rows: int, streams: int) -> float:
        """Return seconds of a pass: the memory or the products, whichever is slower, and what it costs besides."""
        model, hardware = self._model, self._hardware
        rows = prompt_rows + streams * (1 + (self._depth if self._gain > 1 else 0))
        weights = model.block_parameters + model.hidden * model.vocabulary
        read = _BYTES[self._weights] * weights / (hardware.copy_gbytes_s * 1e9 * (0.8 if self._compiled else 0.5))
        rate = hardware.matmul_gflops * 1e9 * _SPEED[self._weights] * self._family()
        heads = streams * (1 + self._depth) + min(1, prompt_rows)
        work = 2 * (rows * model.block_parameters + heads * model.hidden * model.vocabulary)
        work += 4 * rows * self._prompt * 0.6 * model.hidden * model.blocks
        computed = (read**1.5 + (work / rate / (0.95 if self._compiled else 0.8)) ** 1.5) ** (1 / 1.5)
        besides = (0.00006 if self._compiled else 0.0006) * model.blocks + 0.0004 * (1 + streams)
        drafted = 0.45 * read * self._depth * streams if "draft-model" in self._methods else 0.0
        return computed + besides + drafted + self._links(rows)

    def _family(self) -> float:
        return {"llama": 1.0, "gemma3": 0.85, "qwen2": 1.05, "gpt2": 0.9}[self._model.family]

    def _links(self, rows: int) -> float:
        hardware = self._hardware
        size = next((_CODED[name] for name in self._methods if name in _CODED), 4.0)
        sent = size * rows * self._model.hidden * (hardware.stages - 1)
        coded = 1.5e-9 * sent if size < 4.0 else 0.0
        carried = sent / hardware.bytes_s if hardware.bytes_s else 0.0
        return (hardware.stages + 1) * hardware.rtt_s / 2 + carried + coded + 0.0003 * (hardware.stages - 1)


def _outcome(task: TaskFacts, done: _Done, factor: float, noise: float) -> Outcome:
    seconds = done.seconds * factor
    return Outcome(
        repeats=3,
        discarded=0,
        tokens_s=task.batch * task.answer_tokens / seconds,
        seconds=seconds,
        seconds_low=seconds * math.exp(-noise),
        seconds_high=seconds * math.exp(noise),
        ttft_s=done.ttft_s * factor,
        tpot_p50_s=done.tpot_s * factor,
        tpot_p99_s=1.3 * done.tpot_s * factor,
        peak_memory_bytes=1_000_000_000,
        energy_j=None,
        agreement=1.0,
        accepted=done.accepted,
        overlap=task.repetition,
        load=0.1,
        at="2026-11-26",
        versions=json.dumps({"plait": "0.1.0"}),
    )
