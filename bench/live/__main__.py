"""Run mixed jobs through a real network, by the selector and by four fixed methods in turn.

Run it as: python -m bench.live [--jobs N] [--seed N] [--out DIR] [--limit-s S] [--fixed NAME ...] (`make bench-live`).

Each job runs once each way, one at a time, the ways in random order; a way is set by the worker's pin file. Each way
has a payer of its own: stages and worker keep prefixes per payer, so no way warms the cache of another, and as each
asks the same jobs in the same order, each finds its own as warm. Times are the payer's. The worker learns from pinned
jobs as from its own choices, as any worker does. Needs a quiet machine. Ctrl-C reports what there is.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.live.jobs import Job, mixed_jobs, orders
from bench.live.network import OneRoute
from bench.live.payer import Taken, ask
from bench.live.pins import FIXED, SELECTOR, best_fixed
from bench.live.report import lines, report, written

from plait import AsyncPlait
from plait.errors import PlaitError
from plait_node.errors import LocalnetError
from plait_node.localnet.plan import MODEL
from plait_node.selector.bench import hardware_facts
from plait_node.selector.errors import HistoryError
from plait_node.selector.pin import PIN, save_pin
from plait_node.selector.rows import Rows

_SHIPPED: Final = Path(__file__).resolve().parents[2] / "node/plait_node/selector/history"
_WARMING: Final = 2  # questions each payer asks first: channels are opened, compiled code is built
_ROUGH_S: Final = 6.0  # a job, before anything is known
_EVERY: Final = 10  # jobs between two lines


@dataclass(slots=True, kw_only=True)
class Session:
    """Payers of one network, and what their jobs took."""

    network: OneRoute
    clients: dict[str, AsyncPlait]
    taken: list[Taken] = field(default_factory=list[Taken])
    failed: list[str] = field(default_factory=list[str])

    async def warm_up(self) -> float:
        """Ask what is not counted; return the mean seconds of the last round's jobs, settling included."""
        began = time.perf_counter()
        for round_ in range(_WARMING):
            began = time.perf_counter()
            for way, client in self.clients.items():
                job = Job(number=-1, kind="chat", text=f"Count to {20 + round_}.", max_tokens=48, warm=False)
                await ask(client, MODEL, job, way=way)
        return (time.perf_counter() - began) / len(self.clients)

    async def run(self, job: Job, order: list[str]) -> None:
        """Run one job each way."""
        for way in order:
            save_pin(self.network.selector_folder / PIN, None if way == SELECTOR else FIXED[way].combination)
            try:
                self.taken.append(await ask(self.clients[way], MODEL, job, way=way))
            except PlaitError as error:
                self.failed.append(f"job {job.number} {way}: {error}")


async def measure(given: argparse.Namespace, fixed: list[str]) -> dict[str, Any]:
    """Start a network, run the jobs, end it, write the report; return the findings."""
    hardware = hardware_facts("one-core", cores=len(os.sched_getaffinity(0)))
    folder = given.out / "live-network"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    network = OneRoute(folder=folder.resolve(), hardware=hardware, say=lambda text: print(f"    {text}", flush=True))
    jobs = mixed_jobs(given.jobs, seed=given.seed)
    session = Session(network=network, clients={})
    state: dict[str, Any] = {}
    try:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(network.stop)
            await network.start()
            for way in (SELECTOR, *fixed):
                client = AsyncPlait(
                    rpc=network.rpc, deployment=network.deployment, key=await network.wallet(), home=folder / way
                )
                session.clients[way] = await stack.enter_async_context(client)
            await _run_all(session, jobs, given)
            state = _state(network.selector_folder)
    finally:
        found = {**report(session.taken, fixed), "failed": session.failed, "state": state}
        found |= {"asked": given.jobs, "seed": given.seed, "model": MODEL, "stages": 3, "hardware": asdict(hardware)}
        written(found, session.taken, given.out / "live.json")
    return found


async def _run_all(session: Session, jobs: list[Job], given: argparse.Namespace) -> None:
    """Run jobs until all are done or the time is up."""
    each_s = await session.warm_up()
    ways = list(session.clients)
    print(
        f"about {len(jobs) * len(ways) * each_s / 60:.0f} min: {len(jobs)} jobs, {len(ways)} ways, {each_s:.1f} s each"
    )
    began = time.monotonic()
    for job, order in zip(jobs, orders(jobs, ways, seed=given.seed), strict=True):
        if time.monotonic() - began > given.limit_s:
            print(f"the time is up after {job.number} jobs")
            return
        await session.run(job, order)
        if (job.number + 1) % _EVERY == 0:
            print(f"{job.number + 1} jobs after {(time.monotonic() - began) / 60:.1f} min", flush=True)


def _state(folder: Path) -> dict[str, Any]:
    """Return what the worker says of its selector at the end."""
    path = folder / "state.json"
    told = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {name: told.get(name) for name in ("predictor", "missing", "observed", "factor", "drifted", "barred")}


def _fixed(given: argparse.Namespace) -> list[str]:
    """Return the four methods that are compared with, and say where they are from."""
    if given.fixed:
        return list(given.fixed)
    files = given.history or sorted(_SHIPPED.glob("*.parquet"))
    if not files:
        sys.exit(f"there is no history in {_SHIPPED}: give --history, or --fixed with names of {', '.join(FIXED)}")
    try:
        ranked = best_fixed(Rows.load(*files))
    except HistoryError as error:
        sys.exit(str(error))
    told = ", ".join(f"{name} ({speed:.3f})" for name, speed in ranked.items())
    print(f"fixed methods, with the speed over always-on's that the history gives them: {told}")
    return list(ranked)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.live", description=__doc__)
    parser.add_argument("--jobs", type=int, default=100, help="mixed jobs, each run five ways (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="folder (default: %(default)s)")
    parser.add_argument("--limit-s", type=float, default=float("inf"), help="stop after that many seconds, and report")
    parser.add_argument("--fixed", nargs="+", choices=sorted(FIXED), help="methods to compare with (default: the best)")
    parser.add_argument("--history", type=Path, nargs="+", help="Parquet files of rows to find the best methods in")
    given = parser.parse_args()
    fixed = _fixed(given)
    rough = given.jobs * (len(fixed) + 1) * _ROUGH_S
    print(f"expected: about {rough / 60:.0f} min, and 1 min to start the network; a better word comes when it is up")
    try:
        found = asyncio.run(measure(given, fixed))
    except KeyboardInterrupt:
        print(f"interrupted: what was measured is in {given.out / 'live.json'}")
        return 130
    except (PlaitError, LocalnetError, ValueError) as error:
        print(f"bench.live: {error}", file=sys.stderr)
        return 1
    print("\n".join(lines(found)))
    print(f"report in {given.out / 'live.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
