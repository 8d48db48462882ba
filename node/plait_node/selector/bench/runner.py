"""Measure candidates: rounds over all of a cell's candidates in random order, medians, disturbed runs thrown away."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from statistics import fmean, median, quantiles
from typing import Final

from plait_node.engine import Lane, StageEngine
from plait_node.engine.local_link import LocalLink
from plait_node.engine.local_route import Answer, LocalRoute
from plait_node.engine.methods.base import STRICT
from plait_node.engine.native import NativeBlocks
from plait_node.engine.probe import energy_j, held_bytes, peak_bytes
from plait_node.selector.bench.load import Load
from plait_node.selector.bench.models import BenchModel
from plait_node.selector.bench.requests import Asked
from plait_node.selector.bench.settings import SETTINGS
from plait_node.selector.candidates import CANDIDATES, NONE, feasible
from plait_node.selector.facts import Candidate, HardwareFacts
from plait_node.selector.rows import Outcome, Row
from plait_node.selector.tasks import overlap

__all__ = ["Runner"]

KV_STEPS: Final = 32_768
_DISTURBED: Final = 0.08  # cores that others may use of ours, on average over a run
_TICK_S: Final = 0.03  # what the kernel's clock may err by
_MORE: Final = 4  # disturbed runs of one candidate that are tried again
_NEAR: Final = 1.12  # times the best: candidates so close to it are run more often, until their order is known
_SURE: Final = 0.015  # or until their medians err by this share at most
_MOST_REPEATS: Final = 7
_IN_TURN: Final = ("batching", "prefix-cache", "chunked-prefill", "combined", "small-chunks")
_TOGETHER: Final = ("batching", "combined", "small-chunks")
_MOST_ONE_BY_ONE: Final = 2
_PACKAGES: Final = ("plait", "torch", "numpy")


@dataclass(slots=True)
class _Runs:
    seconds: list[float] = field(default_factory=list[float])
    answers: list[list[Answer]] = field(default_factory=list[list[Answer]])
    load: list[float] = field(default_factory=list[float])
    energy: list[float] = field(default_factory=list[float])
    memory: int = 0
    discarded: int = 0


class Runner:
    """One model in one setting; engines are loaded when a candidate first needs them, and stay."""

    def __init__(self, model: BenchModel, hardware: HardwareFacts) -> None:
        self._model = model
        self._hardware = hardware
        self._setting = SETTINGS[hardware.name]
        self._engines: dict[tuple[str, bool, int], tuple[list[StageEngine], int]] = {}
        self._count = 0

    def candidates(self, seed: int, *, batch: int = 1) -> list[Candidate]:
        """Return those that can run here; of the slow ones, where time is short, two in turn by the seed.

        Of those that answer one request after the other, larger batches have only "none" then.
        """
        real = self._model.facts.real_weights
        short = real or self._hardware.device == "cuda"
        found = [each for each in CANDIDATES.values() if feasible(each, self._hardware, real_weights=real)]
        slow = _IN_TURN if batch <= _MOST_ONE_BY_ONE else _TOGETHER
        left_out = {*_IN_TURN} - {slow[(seed + at) % len(slow)] for at in range(2)} if short else set[str]()
        return [each for each in found if each.name not in left_out]

    def measure(
        self, asked: Asked, *, repeats: int, seed: int, step: Callable[[str], None] = lambda _: None
    ) -> list[Row]:
        """Return a row for every candidate; `step` hears the name of each before it runs."""
        candidates = self.candidates(seed, batch=len(asked.prompts))
        routes = {each.name: self._route(each) for each in candidates}
        runs = {each.name: _Runs() for each in candidates}
        order = random.Random(seed)  # noqa: S311 -- an order, not a secret

        def go_round(chosen: Sequence[Candidate], *, kept: bool = True) -> None:
            for each in order.sample(chosen, len(chosen)):
                step(each.name)
                route, held = routes[each.name]
                self._repeat(route, asked, each, runs[each.name], held, kept=kept)

        # A round before only warms caches; on CUDA every cell has sizes of its own to capture.
        if not self._count or self._hardware.device == "cuda":
            go_round([each for each in candidates if each is not NONE], kept=False)
        for _ in range(repeats):
            go_round(candidates)
        for _ in range(repeats, _MOST_REPEATS):
            go_round(_undecided(candidates, runs))
        reference = runs[NONE.name].answers[0]
        return [self._row(asked, each, runs[each.name], reference) for each in candidates]

    def _repeat(
        self, route: LocalRoute, asked: Asked, candidate: Candidate, runs: _Runs, held: int, *, kept: bool
    ) -> None:
        for attempt in range(_MORE + 1):
            disturbed = self._run(route, asked, candidate, runs if kept else _Runs(), held, last=attempt == _MORE)
            if not (kept and disturbed):
                return

    def _run(
        self, route: LocalRoute, asked: Asked, candidate: Candidate, runs: _Runs, held: int, *, last: bool
    ) -> bool:
        """Run once and note it; return whether it was thrown away because others were in the way."""
        self._count += 1
        methods = dict(candidate.methods)
        if "prefix-cache" in methods and asked.warm:
            route.run(asked.warming(self._count), methods)
        before = held_bytes(self._hardware.device)
        load, joules = Load(), energy_j(self._hardware.device)
        began, waited = time.perf_counter(), route.waited_s
        answers = route.run(asked.requests(self._count), methods)
        took = time.perf_counter() - began
        ours, everywhere = load.foreign()
        after = energy_j(self._hardware.device)
        if ours > _DISTURBED + _TICK_S / took and not last:
            runs.discarded += 1
            return True
        runs.seconds.append(took + route.waited_s - waited)
        runs.answers.append(answers)
        runs.load.append(everywhere)
        runs.memory = max(runs.memory, held + peak_bytes(self._hardware.device) - before)
        if joules is not None and after is not None:
            runs.energy.append(after - joules)
        return False

    def _route(self, candidate: Candidate) -> tuple[LocalRoute, int]:
        compiled = "compiled" in candidate.methods
        engines, held = self._loaded(candidate.weights, compiled=compiled, stages=self._setting.stages)
        draft: list[StageEngine] = []
        if "draft-model" in candidate.methods:
            draft, more = self._loaded("int4", compiled=True, stages=1)
            held += more
        link = LocalLink(rtt_s=self._setting.rtt_s, bytes_s=self._setting.bytes_s)
        route = LocalRoute(
            engines,
            profile=STRICT if candidate.exact else "rounded",
            draft=draft[0] if draft else None,
            margins=False,
            link=link if self._setting.stages > 1 else None,
        )
        return route, held

    def _loaded(self, weights: str, *, compiled: bool, stages: int) -> tuple[list[StageEngine], int]:
        """Return engines over all blocks, and the bytes that loading them took."""
        key = (weights, compiled, stages)
        if key not in self._engines:
            before = held_bytes(self._hardware.device)
            engines = [self._load(weights, compiled, first, last) for first, last in self._cuts(stages)]
            self._engines[key] = engines, max(0, held_bytes(self._hardware.device) - before)
        return self._engines[key]

    def _load(self, weights: str, compiled: bool, first: int, last: int) -> StageEngine:  # noqa: FBT001 -- as in Lane
        built, setting = self._model.built, self._setting
        lane = Lane(weights=weights, device=setting.device, threads=setting.threads, compiled=compiled)  # pyright: ignore[reportArgumentType] -- a key's text
        engine = StageEngine(
            self._model.path,
            built.manifest,
            first=first,
            last=last,
            kv_steps=KV_STEPS,
            tensors=built.tensors,
            lane=lane,
        )
        if isinstance(engine.blocks, NativeBlocks):
            engine.blocks.wait()
        return engine

    def _cuts(self, stages: int) -> list[tuple[int, int]]:
        blocks = self._model.facts.blocks
        ends = [round(blocks * stage / stages) for stage in range(stages + 1)]
        return list(pairwise(ends))

    def _row(self, asked: Asked, candidate: Candidate, runs: _Runs, reference: Sequence[Answer]) -> Row:
        return Row(
            task=asked.facts,
            model=self._model.facts,
            hardware=self._hardware,
            candidate=candidate,
            outcome=_outcome(asked, runs, reference, real=self._model.facts.real_weights),
        )


def _undecided(candidates: Sequence[Candidate], runs: Mapping[str, _Runs]) -> list[Candidate]:
    """Return the candidates that may be the best and whose medians are not sure yet."""
    best = min(median(each.seconds) for each in runs.values())
    near = [each for each in candidates if median(runs[each.name].seconds) <= _NEAR * best]
    return [each for each in near if _noise(runs[each.name].seconds) > _SURE] if len(near) > 1 else []


def _noise(seconds: Sequence[float]) -> float:
    """Return `Outcome.noise` of these repeats."""
    low, middle, high = quantiles(seconds, n=4, method="inclusive")
    return 0.93 * (high - low) / math.sqrt(len(seconds)) / middle


def _outcome(asked: Asked, runs: _Runs, reference: Sequence[Answer], *, real: bool) -> Outcome:
    answers = runs.answers[0]
    gaps = sorted(gap for run in runs.answers for answer in run for gap in answer.gaps_s)
    low, seconds, high = quantiles(runs.seconds, n=4, method="inclusive")
    proposed = sum(answer.proposed for answer in answers)
    return Outcome(
        repeats=len(runs.seconds),
        discarded=runs.discarded,
        tokens_s=len(asked.prompts) * asked.facts.answer_tokens / seconds,
        seconds=seconds,
        seconds_low=low,
        seconds_high=high,
        ttft_s=median(fmean(answer.first_token_s for answer in run) for run in runs.answers),
        tpot_p50_s=median(gaps),
        tpot_p99_s=gaps[int(0.99 * (len(gaps) - 1))],
        peak_memory_bytes=runs.memory,
        energy_j=median(runs.energy) if runs.energy else None,
        agreement=fmean(map(_agreement, answers, reference)) if real else -1.0,
        accepted=sum(answer.accepted for answer in answers) / proposed if proposed else -1.0,
        overlap=fmean(overlap(prompt, answer.ids) for prompt, answer in zip(asked.prompts, answers, strict=True)),
        load=fmean(runs.load),
        at=time.strftime("%Y-%m-%d", time.gmtime()),
        versions=json.dumps(_versions()),
    )


def _agreement(answer: Answer, reference: Answer) -> float:
    same = next(
        (at for at, (a, b) in enumerate(zip(answer.ids, reference.ids, strict=True)) if a != b), len(answer.ids)
    )
    return same / len(answer.ids)


def _versions() -> Mapping[str, str]:
    found: dict[str, str] = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from a folder, as on a lent machine
            found[package] = "none"
    return found
