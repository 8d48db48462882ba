"""A swarm to measure: stage processes over a model's blocks, and a worker here that drives them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.swarm.child import Child, started
from bench.swarm.engines import manifest_of
from bench.swarm.hosts import Hosts
from bench.swarm.stage import StageSpec
from bench.swarm.worker import DrivingWorker, Place, driving

from plait.protocol.ids import hash32
from plait.protocol.manifest import FP32_STRICT, Manifest, Profile

__all__ = ["Swarm", "Usage", "host_name", "swarm"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a stage did between two looks: shares of the time on the clock, means over its passes."""

    busy: float  # of the time a pass was computed
    cpu: float  # of one core, whatever the process did
    cpu_ms_a_row: float
    passes: int
    rows_a_pass: float
    pass_ms: float

    def told(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return {
            "busy": round(self.busy, 3),
            "cpu": round(self.cpu, 3),
            "cpu_ms_a_row": round(self.cpu_ms_a_row, 3),
            "passes": self.passes,
            "rows_a_pass": round(self.rows_a_pass, 2),
            "pass_ms": round(self.pass_ms, 3),
        }


@dataclass(slots=True, kw_only=True)
class Swarm:
    """Running stages in the order of their blocks, and who drives them."""

    manifest: Manifest
    specs: list[StageSpec]
    stages: list[Child]
    worker: DrivingWorker
    hosts: Hosts | None = None

    async def start_again(self, at: int) -> None:
        """Start a stage that was killed; its blocks, books and name are those it had."""
        spec = self.specs[at]
        self.stages[at] = await _start(spec, Path(spec.folder), self.hosts)
        self.worker.move(await _place(spec, self.stages[at], self.hosts))

    async def cut(self, at: int) -> None:
        """Let nothing through to or from a stage's host."""
        if self.hosts is not None:
            await self.hosts.cut(host_name(self.specs[at].number))

    async def heal(self, at: int) -> None:
        """Let everything through to it again."""
        if self.hosts is not None:
            await self.hosts.heal(host_name(self.specs[at].number))

    async def loads(self) -> list[dict[str, float]]:
        """Return what each stage counted so far."""
        return [await stage.ask("load") for stage in self.stages]

    async def usage_since(self, before: Sequence[dict[str, float]]) -> list[Usage]:
        """Return what each stage did since `before`."""
        return [_usage(old, new) for old, new in zip(before, await self.loads(), strict=True)]

    async def together(self, prompts: Sequence[Sequence[int]], count: int) -> float:
        """Have all prompts answered at once; return new tokens a second, prompts' time included."""
        began = time.perf_counter()
        took = await asyncio.gather(*(self.worker.answer(prompt, count) for prompt in prompts))
        seconds = time.perf_counter() - began
        await self.worker.settled()
        return sum(len(each.ids) for each in took) / seconds


def _usage(old: dict[str, float], new: dict[str, float]) -> Usage:
    did = {name: new[name] - old[name] for name in ("at", "busy_s", "cpu_s", "passes", "rows")}
    passes, rows = max(1.0, did["passes"]), max(1.0, did["rows"])
    return Usage(
        busy=did["busy_s"] / did["at"],
        cpu=did["cpu_s"] / did["at"],
        cpu_ms_a_row=1e3 * did["cpu_s"] / rows,
        passes=int(did["passes"]),
        rows_a_pass=did["rows"] / passes,
        pass_ms=1e3 * did["busy_s"] / passes,
    )


@asynccontextmanager
async def swarm(
    folder: Path,
    model: str,
    cuts: Sequence[int],
    *,
    threads: int = 1,
    pass_s: float | None = None,
    profile: Profile = FP32_STRICT,
    hosts: Hosts | None = None,
    holders: int = 1,
    rows_bytes: int | None = None,
) -> AsyncGenerator[Swarm]:
    """Run a stage a range between two `cuts`, each on a host of its own (stage-1, stage-2, ...) where there are hosts.

    With more `holders` as many stages serve each range, range after range.

    Raises:
        ChildError: a stage did not get ready.
    """
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    specs = [
        StageSpec(
            number=number,
            model=model,
            first=first,
            last=last,
            folder=str(folder),
            threads=threads,
            pass_s=pass_s,
            rows_bytes=rows_bytes,
            profile=profile.name,
            host=hosts.address(host_name(number)) if hosts else "127.0.0.1",
        )
        for number, (first, last) in enumerate((each for each in pairwise(cuts) for _ in range(holders)), 1)
    ]
    begun = await asyncio.gather(*(_start(spec, folder, hosts) for spec in specs), return_exceptions=True)
    children = [child for child in begun if isinstance(child, Child)]
    try:
        for error in begun:
            if isinstance(error, BaseException):
                raise error
        places = [await _place(spec, child, hosts) for spec, child in zip(specs, children, strict=True)]
        manifest = await asyncio.to_thread(manifest_of, model)
        async with driving(manifest, places, folder=folder, profile=profile) as worker:
            yield Swarm(manifest=manifest, specs=specs, stages=children, worker=worker, hosts=hosts)
    finally:
        await asyncio.gather(*(child.stop() for child in children))


def host_name(number: int) -> str:
    """Return what the host of a stage is called."""
    return f"stage-{number}"


async def _start(spec: StageSpec, folder: Path, hosts: Hosts | None) -> Child:
    name = host_name(spec.number)
    if hosts is None:
        return await started("bench.swarm.stage", spec.told(), name=name, logs=folder, threads=spec.threads)
    return await started(
        "bench.swarm.stage",
        spec.told(),
        name=name,
        logs=folder,
        threads=spec.threads,
        wrap=lambda command: hosts.command(name, command),
        on_start=lambda pid: hosts.claim(name, pid),
    )


async def _place(spec: StageSpec, child: Child, hosts: Hosts | None) -> Place:
    host, port = spec.host, int(child.facts["port"])
    if hosts is not None:
        host, port = await hosts.door(host_name(spec.number), port)
    return Place(
        number=spec.number,
        first=spec.first,
        last=spec.last,
        host=host,
        port=port,
        certificate=hash32(str(child.facts["certificate"])),
    )
