"""Try every target with as many cases as one likes: `python -m tests.fuzz --cases 1000000`.

Rounds with changed messages come first, from a fresh seed that is printed. Where atheris is installed, the targets that
keep no state then run again under its coverage guidance, each in a process of its own.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import secrets
import subprocess
import sys
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import psutil
from tests.fuzz.machine import ROUND, FindingError, Target, check_memory, run_round
from tests.fuzz.targets import every, shares

FOLDER = Path("build/fuzz")
# Of the process, over one target's rounds after the first few: an allocator keeps some.
RESIDENT_BYTES = 64 << 20
_WARM_ROUNDS = 5
_GUIDED_S = 3_600


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


@dataclass(slots=True, kw_only=True)
class Report:
    """What was found so far."""

    cases: int = 0
    findings: list[str] = field(default_factory=list[str])

    def add(self, name: str, text: str, data: bytes = b"") -> None:
        """Print a finding and keep its bytes."""
        FOLDER.mkdir(parents=True, exist_ok=True)
        where = FOLDER / f"{name}-{hashlib.sha256(data).hexdigest()[:12]}"
        where.write_bytes(data)
        self.findings.append(name)
        _say(f"FOUND {text}\nkept in {where}")


def main() -> int:
    """Run what the options ask for; return 1 when something was found."""
    options = _options()
    logging.disable(logging.CRITICAL)
    chosen = [target for target in every() if not options.target or target.name in options.target]
    if not chosen:
        _say(f"no such target; there are {', '.join(target.name for target in every())}")
        return 2
    if options.bytes is not None:
        return _replay(chosen, bytes.fromhex(options.bytes.strip("-")))
    seed = secrets.randbits(40) if options.seed is None else options.seed
    _say(f"seed {seed}, {options.cases} cases over {len(chosen)} targets")
    report, counts, began = Report(), shares(chosen, options.cases), time.monotonic()
    for target in chosen:
        _rounds(target, counts[target.name], seed, report)
    took = time.monotonic() - began
    found = len(report.findings)
    _say(f"{report.cases} cases in {took:.0f} s, {report.cases / took:.0f} a second; {found} findings")
    _guided([target for target in chosen if target.guided], counts, seed, report)
    return 1 if report.findings else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000, help="in all, before coverage guidance")
    parser.add_argument("--seed", type=int, help="of the first round; the following ones count up from it")
    parser.add_argument("--target", action="append", help="only this one; may be given several times")
    parser.add_argument("--bytes", help="try one case, in hex, and show how it fails")
    return parser.parse_args()


def _replay(chosen: list[Target], data: bytes) -> int:
    for target in chosen:
        try:
            _say(f"{target.name}: {'accepted' if target.run(data) else 'refused'}")
        finally:
            target.close()
    return 0


def _rounds(target: Target, count: int, seed: int, report: Report) -> None:
    process, cases, accepted, done = psutil.Process(), 0, 0, 0
    began, resident, kept = time.monotonic(), 0, list[bytes]()
    try:
        while cases < count:
            ran = run_round(target, min(ROUND, count - cases), seed=seed + done)
            cases, accepted, done, kept = cases + ran.cases, accepted + ran.accepted, done + 1, ran.kept
            if done == _WARM_ROUNDS:
                resident = process.memory_info().rss
        grown = process.memory_info().rss - resident if done > _WARM_ROUNDS else 0
        check_memory(target, kept)
        if grown > RESIDENT_BYTES:
            report.add(target.name, f"{target.name}: the process grew by {grown >> 20} MiB over {cases} cases")
    except FindingError as error:
        report.add(target.name, str(error), error.data)
    except AssertionError as error:
        report.add(target.name, str(error))
    finally:
        target.close()
    took = time.monotonic() - began
    report.cases += cases
    share = 100 * accepted / max(cases, 1)
    _say(f"{target.name:18} {cases:8} cases {cases / took:7.0f} a second, {share:3.0f} % accepted")


def _guided(targets: list[Target], counts: dict[str, int], seed: int, report: Report) -> None:
    if find_spec("atheris") is None:
        _say("atheris is not installed, so nothing ran under coverage guidance: pip install 'atheris>=3'")
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    for target in targets:
        began, runs = time.monotonic(), counts[target.name]
        command = [sys.executable, "-m", "tests.fuzz.guided", target.name, str(runs), str(seed % (1 << 31) or 1)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_GUIDED_S)
        if done.returncode:
            tail = "\n".join(done.stderr.splitlines()[-40:])
            report.add(target.name, f"{target.name}, guided, ended with {done.returncode}:\n{done.stdout}{tail}")
        took = time.monotonic() - began
        _say(f"{target.name:18} {runs:8} guided {runs / took:6.0f} a second")


if __name__ == "__main__":
    sys.exit(main())
