"""Measure the gas of whole transactions and hold it to the committed table.

Runs chain_tests/gas with forge and writes build/bench/gas.json. `--check` fails when a row grew by more than 1 % over
bench/results/gas.json; `--update` writes that file and docs/gas.md anew. Targets are asserted by the tests themselves.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FORGE = ROOT / ".venv" / "bin" / "forge"
MEASURED = ROOT / "build" / "bench" / "gas.json"
COMMITTED = ROOT / "bench" / "results" / "gas.json"
PAGE = ROOT / "docs" / "gas.md"
TOLERANCE = 0.01

ROWS = {
    "claim_row_at_100": ("claim, a row of 100", 15_500),
    "claim_single": ("claim, one row", 51_000),
    "forged_row_cost": ("a forged row in a batch of 100", 11_000),
    "stale_row_cost": ("a stale row in a batch of 100", 11_000),
    "open": ("open, by allowance", 72_000),
    "open_permit": ("open, by ERC-2612 permit", 110_000),
    "open_3009": ("open, by EIP-3009 authorization, carried by a stranger", 110_000),
    "top_up": ("top up, by allowance", None),
    "exit": ("exit", None),
    "withdraw": ("withdraw", None),
    "release": ("release to a payee", None),
    "collect": ("collect: claim of one row and release", None),
    "inclusion_check": ("inclusion proof, depth 17", 46_000),
    "request": ("request, prompt by commitment", None),
    "fulfil": ("fulfil, 64 tokens", None),
    "request_plus_fulfil": ("request and fulfil, prompt by commitment, 64 tokens", 150_000),
    "request_plus_fulfil_callback": ("the same with a callback that stores a word", 185_000),
    "request_plus_fulfil_public_32": ("request and fulfil, public prompt of 32 tokens, 64 tokens", None),
    "cancel": ("cancel a request", None),
    "refund": ("refund a request", None),
    "node_register": ("register a node", None),
    "node_add_key": ("add a service key", None),
    "node_stake": ("stake", None),
}
CASES = {"1x1": (1, 1), "1x100": (1, 100), "1x10000": (1, 10_000), "100x100": (100, 100)}
# Gas per job, one hop, deposits not counted. Measured elsewhere, by running the project's contract or (~) a condensed
# copy of its idea, or published by the project (p); quoted here for comparison and not measured by this script.
OTHERS = {
    "Infernet, paid in ETH": (341_352, 341_352, 341_352, 341_352),
    "x402 exact (~)": (64_668, 64_668, 64_668, 64_668),
    "x402 batch: claim and settle (~)": (92_750, 928, 9.3, 213),
    "0G settlement": (104_326, 1_043, 10.4, 589),
    "Swarm cheque": (68_412, 684, 6.8, 684),
}


HEAD = """# Gas

Whole transactions, calldata and refunds included: Prague rules, the compiler's settings of `contracts/solc.json`, slots
with a history. `make bench-gas` measures; `bench/gas.py --update` writes this page; the checks fail when a row grows by
more than 1 %.
"""
PER_JOB = """
## Gas per job

Payers x jobs of each. "Five hops" is a whole route over three stages, every hop another operator's: payer to gateway,
gateway to worker, worker to each stage; each payee claims once. One release pays out any number of claims. The others
have one hop, from payer to provider. Deposits are not counted. Figures of others were measured elsewhere on their
contracts, or (~) on a condensed copy of the idea; they are quoted, not measured here.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Gas over all five hops of a three-stage route: of the claims, and of taking the money out."""

    jobs: int
    claims: int
    releases: int

    def per_job(self) -> tuple[float, float]:
        """Return the gas a job costs in claims, and with the releases."""
        return self.claims / self.jobs, (self.claims + self.releases) / self.jobs


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, print, and compare; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="fail when a row grew by more than 1 %%")
    parser.add_argument("--update", action="store_true", help="write the committed table and docs/gas.md")
    options = parser.parse_args(arguments)
    gas, routes = measure()
    result = {
        "gas": gas,
        "targets": {name: target for name, (_, target) in ROWS.items() if target},
        "route": {name: {"claims": each.claims, "releases": each.releases} for name, each in routes.items()},
        "settings": json.loads((ROOT / "contracts" / "solc.json").read_text("utf-8")),
    }
    text = json.dumps(result, indent=1) + "\n"
    MEASURED.parent.mkdir(parents=True, exist_ok=True)
    MEASURED.write_text(text, "utf-8")
    page = "\n".join(tables(gas, routes)) + "\n"
    print(page)
    if options.update:
        COMMITTED.write_text(text, "utf-8")
        PAGE.write_text(page, "utf-8")
    return report(sorted(grown(result, json.loads(COMMITTED.read_text("utf-8"))))) if options.check else 0


def measure() -> tuple[dict[str, int], dict[str, Route]]:
    """Run the tests that measure; return what every operation and every route costs."""
    folder = ROOT / "build" / "bench" / "forge-snapshots"
    for stale in folder.glob("*.json"):
        stale.unlink()
    environment = {**os.environ, "FOUNDRY_SNAPSHOTS": str(folder.relative_to(ROOT))}
    command = [str(FORGE), "test", "--match-path", "chain_tests/gas/**"]
    done = subprocess.run(command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"gas: the measuring tests failed\n{done.stdout}{done.stderr}")
    gas = {name: int(value) for name, value in json.loads((folder / "gas.json").read_text("utf-8")).items()}
    if gas.keys() != ROWS.keys():
        raise SystemExit(f"gas: rows and tests differ: {sorted(gas.keys() ^ ROWS.keys())}")
    sums = json.loads((folder / "route.json").read_text("utf-8"))
    routes = {
        name: Route(
            jobs=payers * jobs,
            claims=int(sums[f"route_{name}_claims"]),
            releases=int(sums[f"route_{name}_releases"]),
        )
        for name, (payers, jobs) in CASES.items()
    }
    return {name: gas[name] for name in ROWS}, routes


def tables(gas: Mapping[str, int], routes: Mapping[str, Route]) -> Iterator[str]:
    """Yield the page's lines."""
    yield HEAD
    yield "| operation | gas | target |"
    yield "|---|---:|---:|"
    for name, (text, target) in ROWS.items():
        yield f"| {text} | {gas[name]:,} | {f'{target:,}' if target else ''} |"
    yield PER_JOB
    yield f"| | {' | '.join(CASES)} |"
    yield f"|---|{'---:|' * len(CASES)}"
    for name, figures in {**ours(gas, routes), **OTHERS}.items():
        yield f"| {name} | {' | '.join(amount(each) for each in figures)} |"


def ours(gas: Mapping[str, int], routes: Mapping[str, Route]) -> dict[str, tuple[float, ...]]:
    """Return our gas per job in each case: over all hops, and over one as the others have."""
    single, hundred = gas["claim_single"], gas["claim_row_at_100"] * 100
    claims = tuple((hundred if payers > 1 else single) / (payers * jobs) for payers, jobs in CASES.values())
    return {
        "plait, five hops: claims": tuple(routes[name].per_job()[0] for name in CASES),
        "plait, five hops: claims and one release each": tuple(routes[name].per_job()[1] for name in CASES),
        "plait, one hop: claims": claims,
        "plait, one hop: claims, the last one with a release": tuple(
            claim + (gas["collect"] - single) / (payers * jobs)
            for claim, (payers, jobs) in zip(claims, CASES.values(), strict=True)
        ),
    }


def amount(gas: float) -> str:
    """Return gas with as many digits as matter."""
    return f"{gas:,.0f}" if gas >= 100 else f"{gas:.1f}"


def grown(found: Mapping[str, Mapping[str, object]], table: Mapping[str, Mapping[str, object]]) -> Iterator[str]:
    """Yield what costs more than the committed table allows, or is missing there."""
    for name, used in flat(found):
        before = dict(flat(table)).get(name)
        if before is None:
            yield f"{name}: not in {COMMITTED.relative_to(ROOT)}; run bench/gas.py --update"
        elif used > before * (1 + TOLERANCE):
            yield f"{name}: {used:,}, was {before:,} (+{(used / before - 1) * 100:.1f} %)"


def flat(result: Mapping[str, Mapping[str, object]]) -> Iterator[tuple[str, int]]:
    """Yield every measured figure by name."""
    for name, used in result["gas"].items():
        yield name, int(str(used))
    for name, sums in result["route"].items():
        if isinstance(sums, Mapping):
            yield from ((f"{name} {part}", int(str(used))) for part, used in sums.items())


def report(failures: Sequence[str]) -> int:
    """Print what grew; return the exit status."""
    for failure in failures:
        print(f"gas: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
