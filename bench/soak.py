"""Soak: thousands of short jobs through one engine and its scheduler; memory must not grow with them.

Run it as: python -m bench.soak [--jobs N] [--mark N] [--most-mb N]. The model is tiny and random. Jobs have mixed
lengths and deadlines, begin with cached windows, roll back, are cancelled in the middle of a prompt or closed under
their waiting rows, and set one another aside. Prints resident memory after `--mark` jobs and at the end; exits with 1
when it grew by more than `--most-mb` between them, or when room was lost.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from tests.model.tiny_families import write_family

from plait.protocol.ids import Hash, keccak
from plait.protocol.windows import WINDOW_STEPS
from plait_model.manifest_build import build_manifest
from plait_node.engine import Lane, StageEngine, StepInput, StepOutput
from plait_node.engine.errors import NoRoomError, UnknownJobError
from plait_node.engine.native import NativeBlocks
from plait_node.engine.scheduler import Scheduler

KV_STEPS = 400  # less than twelve jobs want: some are set aside, some wait
AT_ONCE = 12
TEXTS = 8  # jobs of one text share their windows
LENGTHS = ((1, 8), (9, 40), (41, 100))
VOCABULARY = 250


@dataclass(frozen=True, slots=True, kw_only=True)
class Ids:
    """Ids in, the best id after the last of them out."""

    job: Hash
    step: int
    ids: Sequence[int]
    whole: bool = False

    @property
    def count(self) -> int:
        """Return how many rows there are."""
        return len(self.ids)

    def given(self, first: int, last: int) -> StepInput:
        """Return the engine's input."""
        rows = np.array(self.ids[first - self.step : last - self.step], dtype=np.int64)
        return StepInput(job=self.job, start=first, rows=rows, logits=1, best=True)

    def made(self, given: StepInput, output: StepOutput) -> int:
        """Return the best id."""
        if output.best is None:
            raise ValueError(f"step {given.start} came back without its best id")
        return int(output.best[-1])


class Soak:
    """Runs jobs and counts what became of them."""

    def __init__(self, engine: StageEngine, *, seed: int) -> None:
        self.done: Counter[str] = Counter()
        self.scheduler = Scheduler(engine, pass_s=0.02)
        self._random = random.Random(seed)  # noqa: S311 -- the same jobs in every run
        self._texts = [[self._random.randrange(3, VOCABULARY) for _ in range(LENGTHS[-1][1])] for _ in range(TEXTS)]

    async def run(self, numbers: Iterator[int]) -> None:
        """Take one number after the other and run its job."""
        for number in numbers:
            await self._job(keccak(number.to_bytes(8, "big")))

    async def _job(self, job: Hash) -> None:
        draw = self._random
        text = draw.randrange(TEXTS)
        prompt = self._texts[text][: draw.randint(*draw.choice(LENGTHS))]
        count = draw.randint(1, 12)
        keys = [keccak(bytes([text]), bytes([index])) for index in range(len(prompt) // WINDOW_STEPS)]
        taken = await self._open(job, len(prompt) + count, keys[: (len(prompt) - 1) // WINDOW_STEPS])
        try:
            fate = draw.choices(("answered", "rolled back", "cancelled", "closed early"), (6, 2, 1, 1))[0]
            first = Ids(job=job, step=taken, ids=prompt[taken:])
            if fate == "cancelled":
                await self._cancel(first)
            elif fate == "closed early":
                await self._close_early(first)
            else:
                await self._answer(first, count, back=fate == "rolled back")
                await self.scheduler.keep_prefix(job, keys)
            self.done[fate] += 1
        finally:
            await self.scheduler.close(job)

    async def _open(self, job: Hash, room: int, keys: Sequence[Hash]) -> int:
        priority = self._random.random()
        while True:
            try:
                taken = await self.scheduler.open(job, room, priority=priority, prefix=keys)
            except NoRoomError:
                self.done["waited for room"] += 1
                await asyncio.sleep(0.002)
            else:
                self.done["with cached windows"] += taken > 0
                return taken

    async def _rows(self, work: Ids) -> int:
        made = -1
        async for part in self.scheduler.run(work):
            made = part.made
        return made

    async def _answer(self, prompt: Ids, count: int, *, back: bool) -> None:
        token, at = await self._rows(prompt), prompt.step + prompt.count
        for number in range(count):
            token = await self._rows(Ids(job=prompt.job, step=at, ids=[token], whole=True))
            at += 1
            if back and number % 3 == 2:
                at -= 2
                await self.scheduler.rollback(prompt.job, at)

    async def _cancel(self, prompt: Ids) -> None:
        task = asyncio.create_task(self._rows(prompt))
        await asyncio.sleep(self._random.choice((0, 0, 0.001)))
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def _close_early(self, prompt: Ids) -> None:
        task = asyncio.create_task(self._rows(prompt))
        await asyncio.sleep(0)
        await self.scheduler.close(prompt.job)
        with contextlib.suppress(UnknownJobError):
            await task


async def soak(engine: StageEngine, *, jobs: int, mark: int, seed: int = 0) -> dict[str, object]:
    """Run jobs and return what was measured; bytes, seconds."""
    made = Soak(engine, seed=seed)
    held: list[int] = []
    began = time.perf_counter()
    for low, high in ((0, mark), (mark, jobs)):
        numbers = iter(range(low, high))
        await asyncio.gather(*(made.run(numbers) for _ in range(AT_ONCE)))
        held.append(psutil.Process().memory_info().rss)
    load = made.scheduler.load
    made.scheduler.stop()
    return {
        "jobs": jobs,
        "mark": mark,
        "rss_at_mark": held[0],
        "rss_at_end": held[1],
        "lost_steps": KV_STEPS - engine.free_steps,
        "waiting": load.waiting,
        "passes": load.pass_seconds.count,
        "seconds": round(time.perf_counter() - began, 1),
        "fates": dict(made.done),
    }


def main() -> int:
    """Run the soak that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--mark", type=int, default=1_000, help="jobs after which memory is first looked at")
    parser.add_argument("--most-mb", type=float, default=10.0, help="growth that fails")
    parser.add_argument("--torch", action="store_true", help="without compiled code")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        result = asyncio.run(soak(_engine(Path(made), compiled=not asked.torch), jobs=asked.jobs, mark=asked.mark))
    grown = (int(str(result["rss_at_end"])) - int(str(result["rss_at_mark"]))) / 1e6
    print(json.dumps({**result, "grown_mb": round(grown, 2)}, indent=1))
    if grown > asked.most_mb or result["lost_steps"] or result["waiting"]:
        print(
            f"memory grew by {grown:.1f} MB, at most {asked.most_mb:g} are allowed, or room was lost", file=sys.stderr
        )
        return 1
    return 0


def _engine(folder: Path, *, compiled: bool) -> StageEngine:
    path = write_family(folder, "llama")
    built = build_manifest(path)
    engine = StageEngine(
        path,
        built.manifest,
        first=0,
        last=built.manifest.blocks,
        kv_steps=KV_STEPS,
        tensors=built.tensors,
        lane=Lane(compiled=compiled),
    )
    if isinstance(engine.blocks, NativeBlocks):
        engine.blocks.wait()
    return engine


if __name__ == "__main__":
    sys.exit(main())
