"""Work for a scheduler over the tiny engine, and what comes out of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import numpy as np
from tests.node.stage.tiny import BLOCKS, TinyEngine

from plait.protocol.ids import Hash, keccak
from plait_node.engine import StepInput, StepOutput
from plait_node.engine.scheduler import Scheduler

PROMPT = [(7 * at + 3) % 60 for at in range(40)]


def name(number: int) -> Hash:
    return keccak(number.to_bytes(4, "big"))


@dataclass(frozen=True, kw_only=True)
class Ids:
    """Ids in, the last row's best id out."""

    job: Hash
    step: int
    ids: Sequence[int]
    whole: bool = False
    broken: str = ""

    @property
    def count(self) -> int:
        return len(self.ids)

    def given(self, first: int, last: int) -> StepInput:
        if self.broken == "given":
            raise ValueError("given")
        rows = np.array(self.ids[first - self.step : last - self.step], dtype=np.int64)
        return StepInput(job=self.job, start=first, rows=rows, logits=1)

    def made(self, given: StepInput, output: StepOutput) -> tuple[int, int, int]:
        if self.broken == "made":
            raise ValueError("made")
        assert output.logits is not None
        return given.start, len(given.rows), int(output.logits[-1].argmax())


@asynccontextmanager
async def scheduling(*, kv_steps: int = 1_000, clock: list[float] | None = None) -> AsyncIterator[Scheduler]:
    now = [0.0] if clock is None else clock
    made = Scheduler(TinyEngine(0, BLOCKS, kv_steps=kv_steps), clock=lambda: now[0])
    try:
        yield made
    finally:
        made.stop()


def engine_of(scheduler: Scheduler) -> TinyEngine:
    engine = scheduler._engine
    assert isinstance(engine, TinyEngine)
    return engine


async def parts(scheduler: Scheduler, work: Ids) -> list[tuple[int, int, int]]:
    return [part.made async for part in scheduler.run(work)]


async def answer(scheduler: Scheduler, job: Hash, prompt: Sequence[int], count: int) -> list[int]:
    """Return what follows a prompt, one row after the other."""
    made = await parts(scheduler, Ids(job=job, step=0, ids=prompt))
    ids = [made[-1][2]]
    while len(ids) < count:
        at = len(prompt) + len(ids) - 1
        ((_, _, drawn),) = await parts(scheduler, Ids(job=job, step=at, ids=ids[-1:], whole=True))
        ids.append(drawn)
    return ids


async def turns() -> None:
    """Let everything that is ready run."""
    for _ in range(5):
        await asyncio.sleep(0)


def alone(prompt: Sequence[int], count: int) -> list[int]:
    engine, job, ids = TinyEngine(0, BLOCKS), name(0), list(prompt)
    engine.open(job, 500)
    at = 0
    while len(ids) < len(prompt) + count:
        logits = engine.step_one(job, at, np.array(ids[at:], dtype=np.int64)).logits
        assert logits is not None
        at = len(ids)
        ids.append(int(logits[-1].argmax()))
    return ids[len(prompt) :]
