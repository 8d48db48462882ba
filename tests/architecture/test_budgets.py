"""House budgets: how long a function and a file may be, how deep a function may nest.

Code lines are counted: blank lines and docstrings are free. A line `# budget: reason` (`// budget: reason` in
Solidity) inside a function or at the top of a file lifts the limit there.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON_FUNCTION, PYTHON_FILE, PYTHON_NESTING = 40, 400, 3
SOLIDITY_FUNCTION, SOLIDITY_FILE = 60, 600
FOLDERS = ("sdk", "node", "tools", "bench", "examples", "tests", "chain_tests", "contracts")
GENERATED = ("sdk/plait/protocol/pb", "sdk/plait/protocol/abi", "node/plait_node/wire/generated")
BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.Try, ast.Match)
LIFTED = re.compile(r"(#|//) budget: \w+")
HEAD_LINES = 15
SOLIDITY_START = re.compile(r"^ *(function \w+|constructor|modifier \w+|receive|fallback)\b[^;{]*(;|\{)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Excess:
    """Something over its budget."""

    path: str
    line: int
    what: str
    found: int
    limit: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what} has {self.found}, its budget is {self.limit}"


def written_files(suffix: str) -> list[Path]:
    """Return the files of that suffix that a person wrote."""
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob(f"*{suffix}")]
    return sorted(path for path in found if not path.relative_to(ROOT).as_posix().startswith(GENERATED))


def python_excess(path: str, source: str) -> Iterator[Excess]:
    lines = source.splitlines()
    if len(lines) > PYTHON_FILE and not any(LIFTED.search(line) for line in lines[:HEAD_LINES]):
        yield Excess(path=path, line=1, what="the file (lines)", found=len(lines), limit=PYTHON_FILE)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from function_excess(path, lines, node)


def function_excess(path: str, lines: list[str], node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[Excess]:
    end = node.end_lineno or node.lineno
    if any(LIFTED.search(line) for line in lines[node.lineno - 1 : end]):
        return
    free = docstring_lines(node)
    code = [number for number in range(node.lineno, end + 1) if number not in free and lines[number - 1].strip()]
    if len(code) > PYTHON_FUNCTION:
        what = f"{node.name} (lines)"
        yield Excess(path=path, line=node.lineno, what=what, found=len(code), limit=PYTHON_FUNCTION)
    deep = nesting(node)
    if deep > PYTHON_NESTING:
        yield Excess(path=path, line=node.lineno, what=f"{node.name} (nesting)", found=deep, limit=PYTHON_NESTING)


def docstring_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> range:
    first = node.body[0]
    if ast.get_docstring(node) is None:
        return range(0)
    return range(first.lineno, (first.end_lineno or first.lineno) + 1)


def nesting(node: ast.AST) -> int:
    """Return how many blocks lie inside each other below the node; `elif` is no deeper than its `if`."""
    return max((nesting(child) + is_deeper(node, child) for child in ast.iter_child_nodes(node)), default=0)


def is_deeper(parent: ast.AST, child: ast.AST) -> bool:
    chained = isinstance(parent, ast.If) and isinstance(child, ast.If) and parent.orelse == [child]
    return isinstance(child, BLOCKS) and not chained


def solidity_excess(path: str, source: str) -> Iterator[Excess]:
    lines = source.splitlines()
    if len(lines) > SOLIDITY_FILE and not any(LIFTED.search(line) for line in lines[:HEAD_LINES]):
        yield Excess(path=path, line=1, what="the file (lines)", found=len(lines), limit=SOLIDITY_FILE)
    for found in SOLIDITY_START.finditer(source):
        if found.group(2) == "{":
            body = source[found.start() : closing_brace(source, found.end())]
            count = sum(bool(line.strip()) for line in body.splitlines())
            line = source.count("\n", 0, found.start()) + 1
            if count > SOLIDITY_FUNCTION and not LIFTED.search(body):
                what = f"{found.group(1)} (lines)"
                yield Excess(path=path, line=line, what=what, found=count, limit=SOLIDITY_FUNCTION)


def closing_brace(source: str, start: int) -> int:
    depth = 1
    for position in range(start, len(source)):
        depth += {"{": 1, "}": -1}.get(source[position], 0)
        if depth == 0:
            return position + 1
    return len(source)


def test_python_of_this_repository_keeps_its_budgets() -> None:
    excess = [each for path in written_files(".py") for each in python_excess(name_of(path), path.read_text())]
    excess += list(python_excess("tools/setup", (ROOT / "tools" / "setup").read_text()))

    assert not excess, "\n" + "\n".join(map(str, excess))


def test_solidity_of_this_repository_keeps_its_budgets() -> None:
    excess = [each for path in written_files(".sol") for each in solidity_excess(name_of(path), path.read_text())]

    assert not excess, "\n" + "\n".join(map(str, excess))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize(("lines", "excessive"), [(39, False), (40, True)])
def test_python_function_over_forty_lines_is_found(lines: int, *, excessive: bool) -> None:
    source = 'def f():\n    """Say."""\n' + "    x = 1\n" * lines

    assert bool(list(python_excess("a.py", source))) is excessive


def test_python_nesting_over_three_is_found_and_elif_is_free() -> None:
    deep = "def f(a):\n for b in a:\n  if b:\n   while b:\n    try:\n     b()\n    except OSError:\n     pass\n"
    flat = "def f(a):\n if a: pass\n elif 1: pass\n elif 2: pass\n elif 3: pass\n elif 4: pass\n"

    assert [each.found for each in python_excess("a.py", deep)] == [4]
    assert not list(python_excess("a.py", flat))


def test_python_function_with_stated_reason_may_be_longer() -> None:
    source = "def f():\n    # budget: a table, one row a line\n" + "    x = 1\n" * 60

    assert not list(python_excess("a.py", source))


def test_python_file_over_four_hundred_lines_is_found() -> None:
    assert [each.found for each in python_excess("a.py", "x = 1\n" * 401)] == [401]


def test_solidity_function_over_sixty_lines_is_found() -> None:
    source = "contract A {\n    function f() external {\n" + "        x = 1;\n" * 60 + "    }\n}\n"

    assert [each.found for each in solidity_excess("A.sol", source)] == [62]
