"""Run slither over contracts/; fail on any finding of high or medium impact that accepted.toml gives no reason for.

`--all` prints the findings of lower impact too. A finding is its text without line numbers: it stays accepted while
code moves and returns when the code it is about changes. A reason whose finding is gone fails as well.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
VENV = ROOT / ".slither-venv"
OUTPUT = ROOT / "build" / "slither"
FAILING = ("High", "Medium")
PLACE = re.compile(r" \([^()\s]+\.sol#[\d-]+\)")


class SlitherError(Exception):
    """Say which step failed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what is new; return the exit status."""
    parser = argparse.ArgumentParser(prog="tools/slither", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--all", action="store_true", help="print findings of low impact too")
    options = parser.parse_args(arguments)
    try:
        call(ROOT / "tools" / "own_env.sh", "slither", HERE / "requirements.txt")
        build()
        findings = analyse()
    except SlitherError as error:
        print(f"slither: {error}", file=sys.stderr)
        return 1
    return report(findings, accepted(), show_all=options.all)


def call(*command: str | Path) -> None:
    """Run a command in the repository's root; raise `SlitherError` with what it printed if it fails."""
    environment = os.environ | {
        "PATH": f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "FOUNDRY_OUT": str(OUTPUT),
        "FOUNDRY_CACHE_PATH": str(OUTPUT / "cache"),
    }
    done = subprocess.run(command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    if done.returncode != 0:
        raise SlitherError(f"`{Path(command[0]).name}` ended with {done.returncode}:\n{done.stdout}{done.stderr}")


def build() -> None:
    """Compile contracts/ as the tests do; forced, since slither would also read the build before this one."""
    call(".venv/bin/forge", "build", "--force", "--build-info", "--skip", "chain_tests/**", "--quiet")


def analyse() -> list[Mapping[str, Any]]:
    """Return slither's findings."""
    found = OUTPUT / "findings.json"
    found.unlink(missing_ok=True)
    built = ("--compile-force-framework", "foundry", "--ignore-compile", "--foundry-out-directory", OUTPUT)
    call(VENV / "bin" / "slither", ".", *built, "--config-file", HERE / "config.json", "--json", found)
    answer = json.loads(found.read_text("utf-8"))
    if not answer["success"]:
        raise SlitherError(answer["error"])
    return cast("list[Mapping[str, Any]]", answer["results"].get("detectors", []))


def accepted() -> set[tuple[str, str]]:
    """Return detector and text of every accepted finding; a finding without a reason is none."""
    entries = tomllib.loads((HERE / "accepted.toml").read_text("utf-8")).get("accepted", [])
    return {(entry["detector"], entry["finding"]) for entry in entries if entry.get("reason")}


def report(findings: Sequence[Mapping[str, Any]], known: set[tuple[str, str]], *, show_all: bool) -> int:
    """Print new findings and stale reasons; return 1 if there are any."""
    failing = [finding for finding in findings if finding["impact"] in FAILING]
    lower = [finding for finding in findings if finding["impact"] not in FAILING]
    new = [finding for finding in failing if key(finding) not in known]
    stale = known - {key(finding) for finding in failing}
    for finding in [*new, *(lower if show_all else ())]:
        print(f"{finding['impact']}: {finding['check']}: {finding['description'].strip()}\n")
    for detector, text in sorted({key(finding) for finding in new}):
        print(f'[[accepted]]\ndetector = "{detector}"\nfinding = "{text}"\nreason = ""\n')
    for detector, text in sorted(stale):
        print(f"accepted.toml gives a reason for what slither no longer finds: {detector}: {text}")
    counts = f"{len(new)} new, {len(failing) - len(new)} accepted of high or medium impact, {len(lower)} lower"
    print(f"slither: {counts}")
    return 1 if new or stale else 0


def key(finding: Mapping[str, Any]) -> tuple[str, str]:
    return finding["check"], " ".join(PLACE.sub("", finding["description"]).split())


if __name__ == "__main__":
    raise SystemExit(main())
