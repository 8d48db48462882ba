#!/usr/bin/env python3
"""Run the Solidity tests over contracts that report what they run; fail below 95 % of branches.

`forge coverage` cannot tell. Our contracts need the compiler's IR pipeline (the older one says "stack too deep"), and
from there its source maps lose both sides of nearly every `require`: it found a third of the branches that the same
tests take. So the probes stand in the source, in a copy below build/sol-coverage, where no compiler can lose them:

    require(c, E())  ->  require(probeBranch(7, c), E())        x = y;  ->  probe(9); x = y;

Branches are both outcomes of every `require`, `if` and `?:`, and every clause of a `try`. What assembly does inside one
statement is not seen. lcov.info beside the copy is for editors and genhtml.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

ROOT = Path(__file__).resolve().parent.parent
COPY = ROOT / "build" / "sol-coverage"
HITS = COPY / "hits"
WANTED = 95
# Not gas/: probes cost more than its bounds allow. Not invariant/: its long walks repeat what these reach.
TESTS = "chain_tests/{unit,fuzz}/**"
MOCKS = "contracts/mocks/"

# The cheat code is called statically, so that pure functions may report too; the pointer's cast hides that it reads.
PROBES = """\
// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

interface Recorder {
    function toString(uint256 value) external pure returns (string memory);
    function writeFile(string calldata path, string calldata data) external view;
}

function probe(uint256 point) pure {
    asPure(record)(point);
}

function probeBranch(uint256 point, bool taken) pure returns (bool) {
    asPure(record)(taken ? point : point + 1);
    return taken;
}

function record(uint256 point) view {
    Recorder vm = Recorder(0x7109709ECfa91a80626fF3989D68f67F5b1DD12D);
    vm.writeFile(string.concat("hits/", vm.toString(point)), "");
}

function asPure(function(uint256) view f) pure returns (function(uint256) pure g) {
    assembly ("memory-safe") {
        g := f
    }
}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Something that tests should reach: one outcome of a branch, or a statement."""

    number: int
    source: str
    line: int
    branch: str = ""


class CoverageError(Exception):
    """Say which step gave no numbers."""


def main() -> int:
    """Measure, print each contract's numbers and what is missing; return the exit status."""
    try:
        points = instrument()
        run_tests()
    except CoverageError as error:
        print(f"sol_coverage: {error}", file=sys.stderr)
        return 1
    reached = {points[int(path.name)] for path in HITS.iterdir()}
    write_lcov(points, reached)
    return report(points, reached)


def instrument() -> list[Point]:
    """Write the copy and return all its points; a probe names its point by the place in this list."""
    for folder in ("contracts", "chain_tests", "hits"):
        shutil.rmtree(COPY / folder, ignore_errors=True)
    HITS.mkdir(parents=True)
    shutil.copytree(ROOT / "contracts", COPY / "contracts")
    (COPY / "contracts" / "Probes.sol").write_text(PROBES)
    shutil.copytree(
        ROOT / "chain_tests", COPY / "chain_tests", ignore=shutil.ignore_patterns("*.py", "live", "brownie")
    )
    shutil.copy(ROOT / "foundry.toml", COPY)
    for name in ("node_modules", "tools"):
        (COPY / name).unlink(missing_ok=True)
        (COPY / name).symlink_to(ROOT / name)

    points: list[Point] = []
    for source, tree in sorted(parsed().items()):
        text = (ROOT / source).read_bytes()
        inserts = list(probes(source, text, tree, points))
        if inserts:
            up = "../" * (source.count("/") - 1) or "./"
            text = spliced(text, inserts) + f'import {{probe, probeBranch}} from "{up}Probes.sol";\n'.encode()
            (COPY / source).write_bytes(text)
    return points


def parsed() -> Mapping[str, Mapping[str, Any]]:
    """Return the syntax tree of every contract but the mocks."""
    names = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "contracts").rglob("*.sol"))
    sources = {name: {"content": (ROOT / name).read_text("utf-8")} for name in names if not name.startswith(MOCKS)}
    settings = {"stopAfter": "parsing", "outputSelection": {"*": {"": ["ast"]}}}
    question = json.dumps({"language": "Solidity", "sources": sources, "settings": settings})
    command = [ROOT / "tools" / "solc", "--standard-json"]
    done = subprocess.run(command, input=question, check=False, capture_output=True, text=True, timeout=120)
    answer = json.loads(done.stdout or "{}")
    trees = {name: source["ast"] for name, source in answer.get("sources", {}).items() if "ast" in source}
    if len(trees) != len(sources):
        said = "\n".join(error["formattedMessage"] for error in answer.get("errors", ())) or done.stderr
        raise CoverageError(f"the compiler could not read contracts/:\n{said}")
    return cast("Mapping[str, Mapping[str, Any]]", trees)


def probes(source: str, text: bytes, tree: Mapping[str, Any], points: list[Point]) -> Iterator[tuple[int, str]]:
    """Yield what to insert at which byte, outer before inner; append the points that it reports."""
    for node, kind in targets(tree):
        start, length, _ = (int(part) for part in node["src"].split(":"))
        line, number = text.count(b"\n", 0, start) + 1, len(points)
        match kind:
            case "condition":
                points += (
                    Point(number=number, source=source, line=line, branch="true"),
                    Point(number=number + 1, source=source, line=line, branch="false"),
                )
                yield start, f"probeBranch({number}, "
                yield start + length, ")"
            case "clause":
                points.append(Point(number=number, source=source, line=line, branch="entered"))
                yield start + 1, f" probe({number});"
            case _:
                points.append(Point(number=number, source=source, line=line))
                yield start, f"probe({number}); "


def targets(node: object) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Yield every statement of a block, condition and clause of a `try` below a node, outer before inner."""
    if isinstance(node, list):
        for item in cast("list[object]", node):
            yield from targets(item)
    elif isinstance(node, dict):
        known = cast("dict[str, Any]", node)
        yield from own_targets(known)
        for value in known.values():
            yield from targets(value)


def own_targets(node: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], str]]:
    match node:
        case {"nodeType": "Block" | "UncheckedBlock", "statements": [*statements]}:
            yield from ((statement, "statement") for statement in statements)
        case {"nodeType": "IfStatement" | "Conditional", "condition": condition}:
            yield condition, "condition"
        case {"nodeType": "FunctionCall", "expression": {"name": "require" | "assert"}, "arguments": [condition, *_]}:
            yield condition, "condition"
        case {"nodeType": "TryCatchClause", "block": block}:
            yield block, "clause"
        case _:
            pass


def spliced(text: bytes, inserts: Sequence[tuple[int, str]]) -> bytes:
    """Return the text with every insert before its byte; inserts at one byte keep their order."""
    pieces: list[bytes] = []
    done = 0
    for position, insert in sorted(inserts, key=lambda pair: pair[0]):
        pieces += (text[done:position], insert.encode())
        done = position
    return b"".join([*pieces, text[done:]])


def run_tests() -> None:
    """Run forge in the copy; whether tests pass is for `make test` to say, here a probe may cost the gas of one."""
    environment = os.environ | {"FOUNDRY_PROFILE": "coverage"}
    command = [ROOT / ".venv" / "bin" / "forge", "test", "--match-path", TESTS]
    done = subprocess.run(command, check=False, cwd=COPY, env=environment, capture_output=True, text=True, timeout=900)
    if not any(HITS.iterdir()):
        raise CoverageError(f"no test ran over the contracts with probes:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    for line in sorted({line for line in done.stdout.splitlines() if line.startswith("[FAIL")}):
        print(f"not passed with probes: {line[:100]}")


def report(points: Sequence[Point], reached: set[Point]) -> int:
    """Print each contract's numbers and each branch that no test takes; return 1 if they are too many."""
    print(f"{'':<32}{'lines':>16}{'branches':>27}")
    for source, own in by_source(points):
        print(f"{source.removeprefix('contracts/'):<32}{shares(own, reached)}")
    print(f"{'all':<32}{shares(points, reached)}")
    branches = [point for point in points if point.branch]
    missed = sorted((point.source, point.line, point.branch) for point in branches if point not in reached)
    for source, line, branch in missed:
        print(f"{source}:{line}: never {branch}")
    share = percent(len(branches) - len(missed), len(branches))
    if share < WANTED:
        print(f"sol_coverage: {share:.1f} % of branches, {WANTED} % are wanted", file=sys.stderr)
        return 1
    return 0


def by_source(points: Sequence[Point]) -> Iterator[tuple[str, list[Point]]]:
    for source in sorted({point.source for point in points}):
        yield source, [point for point in points if point.source == source]


def shares(points: Sequence[Point], reached: set[Point]) -> str:
    """Return the columns of lines, where a statement starts, and of branches."""
    lines = {(point.source, point.line) for point in points if not point.branch}
    run = {(point.source, point.line) for point in points if not point.branch and point in reached}
    branches = {point for point in points if point.branch}
    pairs = ((len(run), len(lines)), (len(reached & branches), len(branches)))
    return "".join(f"{percent(part, whole):>14.1f} % {part:>4} / {whole:<4}" for part, whole in pairs)


def percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 100.0


def write_lcov(points: Sequence[Point], reached: set[Point]) -> None:
    """Write lcov.info; its counts say whether, not how often."""
    records: list[str] = []
    for source, own in by_source(points):
        records += ["TN:", f"SF:{source}"]
        lines = {point.line: 0 for point in own if not point.branch}
        lines |= {point.line: 1 for point in own if not point.branch and point in reached}
        records += [f"DA:{line},{count}" for line, count in sorted(lines.items())]
        records += [f"BRDA:{point.line},{point.number},0,{int(point in reached)}" for point in own if point.branch]
        records.append("end_of_record")
    (COPY / "lcov.info").write_text("\n".join(records) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
