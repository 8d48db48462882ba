"""Turn a cell's texts into requests, the same ones for every candidate and repeat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Final

from plait.protocol.ids import HASH_ZERO, keccak
from plait.protocol.messages import Sampling
from plait.protocol.windows import WINDOW_STEPS
from plait_node.engine.local_route import LocalRequest
from plait_node.selector.bench.design import Cell
from plait_node.selector.bench.models import BenchModel
from plait_node.selector.facts import TaskFacts
from plait_node.selector.tasks import asks, repetition

__all__ = ["Asked", "prepare"]

ANSWER: Final = 32  # tokens
WARM: Final = frozenset({"shared-context"})  # an earlier question about the same text was answered already
BARE: Final = frozenset({"code"})  # goes on as text, not as an answer to an instruction
# Bounds of a cell by whether its model's weights are real, which are the larger models: a day has 24 hours.
_MOST_TOKENS: Final = {True: 500, False: 5_000}  # of all prompts
_MOST_BATCH: Final = {True: 8, False: 32}
_GREEDY: Final = Sampling(temperature=0, top_p=1_000_000, top_k=0, stop=HASH_ZERO)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The prompts of a cell, one that warms the cache beside them if the task has one, and their facts."""

    prompts: tuple[tuple[int, ...], ...]
    warm: tuple[int, ...]
    facts: TaskFacts

    @property
    def steps(self) -> int:
        """Return the KV steps that all of them need."""
        return sum(len(prompt) + self.facts.answer_tokens for prompt in (*self.prompts, self.warm))

    def requests(self, run: int) -> list[LocalRequest]:
        """Return the requests of run number `run`, which shares no cached prefix with any other run."""
        return [
            self._request(prompt, run, index, self.facts.answer_tokens) for index, prompt in enumerate(self.prompts)
        ]

    def warming(self, run: int) -> list[LocalRequest]:
        """Return what is to be answered before: one request, or none."""
        return [self._request(self.warm, run, -1, 1)] if self.warm else []

    def _request(self, prompt: tuple[int, ...], run: int, index: int, answer: int) -> LocalRequest:
        salt = run.to_bytes(8, "big")
        return LocalRequest(
            request=keccak(salt, repr((index, self.facts.kind)).encode()),
            prompt=prompt,
            max_tokens=answer,
            sampling=_GREEDY,
            seed=HASH_ZERO,
            salt=salt,
        )


def prepare(cell: Cell, model: BenchModel, *, seed: int) -> Asked:
    """Return a cell's requests; their number is halved until the prompts are short enough to measure."""
    batch = min(cell.batch, _MOST_BATCH[model.facts.real_weights])
    while True:
        texts = asks(cell.task, count=batch + 1, seed=seed)
        encode = model.encode if cell.task in BARE else model.instruct
        *prompts, extra = [tuple(encode(f"{text.shared}{text.own}")) for text in texts]
        if batch == 1 or sum(map(len, prompts)) <= _MOST_TOKENS[model.facts.real_weights]:
            break
        batch //= 2
    shared = _common([*prompts, extra])
    warm = shared // WINDOW_STEPS * WINDOW_STEPS if cell.task in WARM else 0
    facts = TaskFacts(
        kind=cell.task,
        batch=batch,
        prompt_tokens=mean(map(len, prompts)),
        shared_tokens=shared,
        warm_tokens=warm,
        answer_tokens=ANSWER,
        repetition=mean(map(repetition, prompts)),
    )
    return Asked(prompts=tuple(prompts), warm=extra if warm else (), facts=facts)


def _common(prompts: Sequence[tuple[int, ...]]) -> int:
    """Return how many leading ids all prompts have in common."""
    first, last = min(prompts), max(prompts)
    return next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
