"""What a swarm costs and gains on this machine: hops, stages against one process, prefill as a pipeline, look-ups.

Run it as: python -m bench.swarm [--only NAME,...] [--out FILE] [--repeats N] [--seconds S] [--threads N] [--cores 0,1]
(`make bench-swarm`). Writes build/bench/swarm.json: `ratios`, `targets`, and under `parts` what stands behind them.
Both sides of a ratio have one type of weights and as many threads a process. Needs a quiet machine: load is recorded.
With --only the rest of an earlier file stays. A new figure is a file with a `Part`, named in `parts.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from bench.swarm import flood
from bench.swarm.figure import Part, Setting
from bench.swarm.hosts import Weather, opened_hosts
from bench.swarm.parts import PARTS

from plait_node.engine.probe import chip

_NAMES: Final = {part.name: part for part in PARTS}
_ALL: Final = ",".join(_NAMES)
_LONG_S, _SHORT_S = 600.0, 60.0
_WIDE: Final = Weather(rtt_s=0.05)  # what distance would be made of is asked with some


def _machine(threads: int) -> dict[str, Any]:
    return {
        "cpu": chip("cpu"),
        "cores": sorted(os.sched_getaffinity(0)),
        "threads_a_process": threads,
        "python": platform.python_version(),
        "torch": version("torch"),
        "grpcio": version("grpcio"),
        "libtorrent": version("libtorrent"),
        "ended": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
    }


async def _hosts_here() -> str:
    async with opened_hosts([], _WIDE) as hosts:
        return hosts.how


async def measured(parts: Sequence[Part], setting: Setting, found: dict[str, Any]) -> list[str]:
    """Run parts one after the other, each adding to `found`; return the names of those that failed."""
    failed: list[str] = []
    found["hosts"] = await _hosts_here()
    setting.say(f"hosts: {found['hosts']}")
    for part in parts:
        setting.say(f"{part.name} ...")
        before, began = os.getloadavg()[0], time.perf_counter()
        try:
            got = await part.measure(_within(setting, part.name))
        except Exception as error:  # noqa: BLE001  the other parts still count
            failed.append(part.name)
            found["parts"][part.name] = {"failed": f"{type(error).__name__}: {error}"}
            setting.say(f"  failed: {type(error).__name__}: {error}")
            continue
        load = {"before": round(before, 2), "after": round(os.getloadavg()[0], 2)}
        found["parts"][part.name] = {"load": load, "took_s": round(time.perf_counter() - began, 1), **got.details}
        for name, ratio in got.ratios.items():
            found["ratios"][name] = round(ratio, 4)
            setting.say(f"  {_line(part, name, ratio)}")
    return failed


def _within(setting: Setting, name: str) -> Setting:
    folder = setting.folder / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return replace(setting, folder=folder)


def _line(part: Part, name: str, ratio: float) -> str:
    bar = part.bars.get(name)
    verdict = "" if bar is None else f"  (target {bar}{'' if bar.passed(ratio) else ': MISSED'})"
    return f"{name:32} {ratio:9.3f}{verdict}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.swarm", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/bench/swarm.json"))
    parser.add_argument("--only", default=_ALL, help=f"some of {','.join(_NAMES)}")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--seconds", type=float, help=f"of the flood: {_SHORT_S:.0f}, or {_LONG_S:.0f} where --only names it"
    )
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--cores", default="", help="the cores that all processes share, all by default")
    given = parser.parse_args()
    if given.seconds is None:
        given.seconds = _LONG_S if given.only != _ALL and flood.PART.name in given.only.split(",") else _SHORT_S
    if unknown := set(given.only.split(",")) - set(_NAMES):
        parser.error(f"no part is called {', '.join(sorted(unknown))}; there are {', '.join(_NAMES)}")
    return given


def main() -> int:
    given = _arguments()
    if given.cores:
        os.sched_setaffinity(0, {int(core) for core in given.cores.split(",")})
    parts = [_NAMES[name] for name in given.only.split(",")]
    found: dict[str, Any] = {"ratios": {}, "targets": {}, "parts": {}}
    if len(parts) < len(PARTS) and given.out.is_file():
        found |= json.loads(given.out.read_text(encoding="utf-8"))
    found["targets"] = {name: str(bar) for part in PARTS for name, bar in part.bars.items()}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    folder = (given.out.parent / "swarm").resolve()
    setting = Setting(
        folder=folder,
        threads=given.threads,
        repeats=given.repeats,
        seconds=given.seconds,
        say=lambda text: print(text, flush=True),
    )
    failed = asyncio.run(measured(parts, setting, found))
    found["machine"] = _machine(given.threads)
    given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"written to {given.out}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
