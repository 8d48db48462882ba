"""What a worker chooses for a job: any combination of the methods of job scope, on a route that fixes the rest."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Final, cast, get_args

from plait.protocol.choice import method_word
from plait.protocol.manifest import Profile
from plait.protocol.windows import WINDOW_STEPS
from plait_node.engine.lane import WeightType
from plait_node.selector.candidates import ALWAYS_ON, CANDIDATES, CHUNK, SMALL_CHUNK, feasible
from plait_node.selector.facts import Candidate, HardwareFacts, TaskFacts

__all__ = [
    "CHUNKED_PREFILL",
    "PREFIX_CACHE",
    "PROMPT_LOOKUP",
    "Combination",
    "combinations",
    "default",
    "lane_of",
    "runnable",
    "stands_for",
]

PREFIX_CACHE: Final = "prefix-cache"
CHUNKED_PREFILL: Final = "chunked-prefill"
PROMPT_LOOKUP: Final = "prompt-lookup"
_CHUNKS: Final = (SMALL_CHUNK, CHUNK)
_DEPTHS: Final = (3, 10)
# Whatever its amounts, what is not measured in kind lies outside of every history: it need not be predicted.
_KINDS: Final = {(each.weights, frozenset(each.methods)) for each in CANDIDATES.values()}
_NAMES: Final = {(each.weights, frozenset(each.methods.items())): each.name for each in CANDIDATES.values()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Combination:
    """Methods of job scope; 0 where one is off."""

    reuse: bool = False
    chunk: int = 0  # prompt rows in one frame
    depth: int = 0  # ids guessed at a time

    @property
    def methods(self) -> tuple[str, ...]:
        """Return the names of what is on, always in the same order."""
        on = {PREFIX_CACHE: self.reuse, CHUNKED_PREFILL: self.chunk > 0, PROMPT_LOOKUP: self.depth > 0}
        return tuple(name for name, chosen in on.items() if chosen)

    @property
    def method(self) -> str:
        """Return the word for the job record, "prefix-cache+chunked-prefill"."""
        return method_word(self.methods)

    @property
    def amounts(self) -> dict[str, int]:
        """Return the amounts for the job record."""
        return {name: amount for name, amount in (("chunk", self.chunk), ("depth", self.depth)) if amount}

    @property
    def title(self) -> str:
        """Return method and amounts for people."""
        amounts = ", ".join(f"{name} {amount}" for name, amount in self.amounts.items())
        return f"{self.method} ({amounts})" if amounts else self.method

    def without(self, methods: Collection[str]) -> Combination:
        """Return the same without some methods."""
        return Combination(
            reuse=self.reuse and PREFIX_CACHE not in methods,
            chunk=0 if CHUNKED_PREFILL in methods else self.chunk,
            depth=0 if PROMPT_LOOKUP in methods else self.depth,
        )


def default(task: TaskFacts) -> Combination:
    """Return what engines do anyway: the cache where something is in it, chunks where the prompt is longer."""
    reuse = task.warm_tokens >= WINDOW_STEPS
    return Combination(reuse=reuse, chunk=CHUNK if _rows(task, reuse=reuse) > CHUNK else 0)


def runnable(combination: Combination, task: TaskFacts) -> Combination:
    """Return it without what changes nothing: a cache with nothing in it, chunks that the whole prompt fits into."""
    reuse = combination.reuse and task.warm_tokens >= WINDOW_STEPS
    chunk = combination.chunk if combination.chunk < _rows(task, reuse=reuse) else 0
    return Combination(reuse=reuse, chunk=chunk, depth=combination.depth)


def combinations(
    task: TaskFacts, lane: Candidate, hardware: HardwareFacts, *, real_weights: bool
) -> Iterator[tuple[Combination, Candidate]]:
    """Yield each measured combination that changes something for this task, with the candidate that stands for it."""
    warm = task.warm_tokens >= WINDOW_STEPS
    for reuse, depth in product((True, False) if warm else (False,), (0, *_DEPTHS)):
        chunks = [chunk for chunk in _CHUNKS if chunk < _rows(task, reuse=reuse)]
        for chunk in (0, *chunks):
            made = Combination(reuse=reuse, chunk=chunk, depth=depth)
            candidate = stands_for(made, task, lane)
            measured = (candidate.weights, frozenset(candidate.methods)) in _KINDS
            if measured and feasible(candidate, hardware, real_weights=real_weights):
                yield made, candidate


def stands_for(combination: Combination, task: TaskFacts, lane: Candidate) -> Candidate:
    """Return the candidate that a combination is predicted as.

    What is off because it would change nothing stands in it as in the always-on default: so it was measured.
    """
    methods = dict(lane.methods)
    if combination.reuse or task.warm_tokens < WINDOW_STEPS:
        methods[PREFIX_CACHE] = 1
    if combination.chunk or _rows(task, reuse=combination.reuse) <= CHUNK:
        methods[CHUNKED_PREFILL] = combination.chunk or CHUNK
    if combination.depth:
        methods[PROMPT_LOOKUP] = combination.depth
    return _named(lane.weights, methods)


def lane_of(profile: Profile, hardware: HardwareFacts) -> Candidate | None:
    """Return what a route under this profile runs by whatever is chosen; None for weights that were never measured."""
    known: tuple[str, ...] = get_args(WeightType)
    if profile.weights not in known:
        return None
    methods = {
        name: amount for name, amount in ALWAYS_ON.methods.items() if name not in {PREFIX_CACHE, CHUNKED_PREFILL}
    }
    if not hardware.compiler:
        methods.pop("compiled")
    if profile.weights in {"int8", "int4"}:
        methods[profile.weights] = 1
    if profile.decode_codec != "fp32" and hardware.stages > 1:
        methods[f"codec-{profile.decode_codec}"] = 1
    return Candidate(name="lane", weights=cast("WeightType", profile.weights), methods=methods)


def _rows(task: TaskFacts, *, reuse: bool) -> int:
    """Return how many prompt rows are computed."""
    return round(task.prompt_tokens) - (task.warm_tokens if reuse else 0)


def _named(weights: WeightType, methods: Mapping[str, int]) -> Candidate:
    """Return the candidate under the name that the history has for it, or one that says what it is."""
    words = (f"{name} {amount}" if amount > 1 else name for name, amount in sorted(methods.items()))
    name = _NAMES.get((weights, frozenset(methods.items()))) or f"{weights}: {', '.join(words)}"
    return Candidate(name=name, weights=weights, methods=methods)
