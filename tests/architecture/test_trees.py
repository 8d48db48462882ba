"""Unit tests of contracts and the trees beside them tell the same story; chain_tests/unit/README.md has the rules."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "chain_tests" / "unit"
ABI = ROOT / "sdk" / "plait" / "protocol" / "abi"
# Every function of these that changes state has a pair of files.
CONTRACTS = ("AgentExport", "Channels", "ModelRegistry", "NodeRegistry", "Requests")
# Holds Solidity to the vectors that Python is held to; there is no entry point to draw.
WITHOUT_TREE = ("Vectors",)
TEST = re.compile(r"^    function (test\w+)\(", re.MULTILINE)
LINE = re.compile(r"(?P<indent>(?:│   |    )*)[├└]── (?P<text>.+)")
LEAF = re.compile(r"it .*[^ ] \[(?P<names>\w+(?:, \w+)*)\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One line of a tree below its root."""

    depth: int
    text: str

    @property
    def word(self) -> str:
        return self.text.split(" ", 1)[0]


def problems(name: str, tree: str, source: str) -> Iterator[str]:
    """Yield what is wrong with one pair of files, `name` being `<Contract>.<function>`."""
    root, *lines = tree.splitlines() or [""]
    if root != name:
        yield f"{name}: the tree's root is {root!r}"
    contract = "".join(part[0].upper() + part[1:] for part in name.split(".")) + "Test"
    if f"\ncontract {contract} is " not in source:
        yield f"{name}: its contract is not named {contract}"
    matches = [LINE.fullmatch(line) for line in lines]
    nodes = [Node(depth=len(match["indent"]) // 4, text=match["text"]) for match in matches if match]
    if list(drawn(nodes)) != lines:
        yield f"{name}: the tree's lines are not drawn right"
    named: list[str] = []
    for index, node in enumerate(nodes):
        yield from (f"{name}: {problem}" for problem in node_problems(nodes, index))
        named += named_by(node)
    yield from (f"{name}: {problem}" for problem in difference(named, TEST.findall(source)))


def drawn(nodes: Sequence[Node]) -> Iterator[str]:
    """Yield the lines as they should be drawn."""
    for index, node in enumerate(nodes):
        open_levels = [continues(nodes, index, depth) for depth in range(node.depth + 1)]
        indent = "".join("│   " if is_open else "    " for is_open in open_levels[:-1])
        yield f"{indent}{'├' if open_levels[-1] else '└'}── {node.text}"


def continues(nodes: Sequence[Node], index: int, depth: int) -> bool:
    """Say whether a line at that depth follows before one that is less deep."""
    following = (node.depth for node in nodes[index + 1 :] if node.depth <= depth)
    return next(following, -1) == depth


def node_problems(nodes: Sequence[Node], index: int) -> Iterator[str]:
    node = nodes[index]
    has_children = index + 1 < len(nodes) and nodes[index + 1].depth > node.depth
    match node.word:
        case "given" | "when":
            if not has_children:
                yield f"{node.text!r} has no leaf"
        case "it":
            if has_children:
                yield f"{node.text!r} is a leaf and has lines below it"
            if not LEAF.fullmatch(node.text):
                yield f"{node.text!r} names no tests"
            yield from prefix_problems(node, branch_of(nodes, index))
        case _:
            yield f"{node.text!r} begins with none of given, when, it"


def prefix_problems(node: Node, branch: str) -> Iterator[str]:
    reverts = node.text.startswith("it reverts")
    if reverts and not branch:
        yield f"{node.text!r} is below no given or when"
    for test in named_by(node):
        bare = test.removeprefix("test_").removeprefix("testFuzz_")
        if reverts and not bare.startswith(f"Revert{branch.capitalize()}_"):
            yield f"{test} is below {branch!r} and is not named Revert{branch.capitalize()}_…"
        if not reverts and bare.startswith("Revert"):
            yield f"{test} is named as if it reverted"


def branch_of(nodes: Sequence[Node], index: int) -> str:
    """Return the word of the nearest line above that this one is below."""
    depth = nodes[index].depth
    above = (node.word for node in reversed(nodes[:index]) if node.depth < depth)
    return next(above, "")


def named_by(node: Node) -> list[str]:
    match = LEAF.fullmatch(node.text)
    names = match["names"].split(", ") if match else []
    return [name if name.startswith("testFuzz_") else f"test_{name}" for name in names]


def difference(named: Sequence[str], written: Sequence[str]) -> Iterator[str]:
    for test in dict.fromkeys(named):
        if named.count(test) > 1:
            yield f"{test} is named by more than one leaf"
        if test not in written:
            yield f"{test} is named and does not exist"
    yield from (f"{test} is named by no leaf" for test in written if test not in named)


def unpaired(files: Iterable[str]) -> Iterator[str]:
    """Yield each name whose test or tree is missing."""
    known = set(files)
    tests = {file.removesuffix(".t.sol") for file in known if file.endswith(".t.sol")} - set(WITHOUT_TREE)
    trees = {file.removesuffix(".tree") for file in known if file.endswith(".tree")}
    yield from (f"{name}.t.sol has no tree" for name in sorted(tests - trees))
    yield from (f"{name}.tree has no tests" for name in sorted(trees - tests))


def source_of(contract: str) -> str:
    found = list((ROOT / "contracts").rglob(f"{contract}.sol"))
    return found[0].read_text() if found else ""


def functions_of(contract: str) -> Iterator[tuple[str, bool]]:
    """Yield each function of the contract's face and whether it changes state."""
    path = ABI / f"{contract}.json"
    if not path.exists():
        return
    entries: list[dict[str, Any]] = json.loads(path.read_text())["abi"]
    for entry in entries:
        if entry["type"] == "function":
            yield entry["name"], entry["stateMutability"] in {"nonpayable", "payable"}


def exists(name: str) -> bool:
    """Say whether there is such a function, a library's and a base's included, or a constructor."""
    contract, function = name.split(".")
    source = source_of(contract)
    if function == "constructor":
        return "    constructor(" in source
    return (function, True) in functions_of(contract) or bool(re.search(rf"function {function}\(", source))


def test_every_test_has_its_tree_and_every_tree_its_tests() -> None:
    assert not list(unpaired(path.name for path in UNIT.iterdir()))


def test_trees_and_tests_of_this_repository_say_the_same() -> None:
    names = sorted(path.name.removesuffix(".tree") for path in UNIT.glob("*.tree"))
    found = [
        problem
        for name in names
        for problem in problems(name, (UNIT / f"{name}.tree").read_text(), (UNIT / f"{name}.t.sol").read_text())
    ]

    assert names
    assert not found, "\n" + "\n".join(found)


def test_every_tree_is_about_a_function_that_exists() -> None:
    assert not [path.name for path in UNIT.glob("*.tree") if not exists(path.name.removesuffix(".tree"))]


@pytest.mark.parametrize("contract", CONTRACTS)
def test_every_function_that_changes_state_has_a_tree(contract: str) -> None:
    source = source_of(contract)
    # A function that only a library's base brings along is that library's to test.
    own = {name for name, changes in functions_of(contract) if changes and f"function {name}(" in source}

    assert own
    assert not sorted(name for name in own if not (UNIT / f"{contract}.{name}.tree").exists())


GOOD_TREE = """\
Box.put
├── when the thing is too large
│   └── it reverts [RevertWhen_TooLarge]
├── given the box is locked
│   ├── it reverts [testFuzz_RevertGiven_Locked]
│   └── when the caller has the key
│       └── it opens first [OpensFirst]
└── it keeps the thing [KeepsIt, testFuzz_KeepsAny]
"""
GOOD_SOURCE = "\ncontract BoxPutTest is Fixture {\n" + "".join(
    f"    function {name}() public {{}}\n"
    for name in (
        "test_RevertWhen_TooLarge",
        "testFuzz_RevertGiven_Locked",
        "test_OpensFirst",
        "test_KeepsIt",
        "testFuzz_KeepsAny",
    )
)


def test_good_pair_has_no_problems() -> None:
    assert not list(problems("Box.put", GOOD_TREE, GOOD_SOURCE))


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        ("Box.put", "Box.take", "the tree's root is 'Box.take'"),
        ("[OpensFirst]", "[OpensFirst, Dances]", "test_Dances is named and does not exist"),
        ("KeepsIt, ", "", "test_KeepsIt is named by no leaf"),
        ("[OpensFirst]", "[OpensFirst, KeepsIt]", "test_KeepsIt is named by more than one leaf"),
        ("[OpensFirst]", "", "names no tests"),
        ("when the thing", "given the thing", "test_RevertWhen_TooLarge is below 'given'"),
        ("it reverts [RevertWhen_TooLarge]", "it fails [RevertWhen_TooLarge]", "is named as if it reverted"),
        ("it opens first", "it reverts", "test_OpensFirst is below 'when' and is not named RevertWhen_…"),
        ("it keeps the thing", "it reverts", "is below no given or when"),
        ("│   └── it reverts [RevertWhen_TooLarge]\n", "", "'when the thing is too large' has no leaf"),
        ("when the thing", "because the thing", "begins with none of given, when, it"),
        ("when the caller has the key", "it finds a key [KeepsIt]", "is a leaf and has lines below it"),
        ("├── given the box", "└── given the box", "not drawn right"),
        ("│       └── it opens", "│     └── it opens", "not drawn right"),
    ],
)
def test_bad_tree_is_found(before: str, after: str, problem: str) -> None:
    found = list(problems("Box.put", GOOD_TREE.replace(before, after, 1), GOOD_SOURCE))

    assert any(problem in each for each in found), found


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        ("test_KeepsIt", "test_KeepsNothing", "test_KeepsIt is named and does not exist"),
        ("test_KeepsIt", "test_KeepsNothing", "test_KeepsNothing is named by no leaf"),
        ("BoxPutTest", "PutTest", "its contract is not named BoxPutTest"),
    ],
)
def test_bad_tests_are_found(before: str, after: str, problem: str) -> None:
    found = list(problems("Box.put", GOOD_TREE, GOOD_SOURCE.replace(before, after, 1)))

    assert any(problem in each for each in found), found


def test_files_without_their_other_half_are_found() -> None:
    files = ["A.f.t.sol", "A.f.tree", "A.g.t.sol", "A.h.tree", "Vectors.t.sol", "README.md"]

    assert list(unpaired(files)) == ["A.g.t.sol has no tree", "A.h.tree has no tests"]


def test_function_that_does_not_exist_is_found() -> None:
    assert exists("Channels.open")
    assert exists("Channels.constructor")
    assert exists("ReceiptsTree.contains")
    assert exists("AnswerKeeper.requestFulfilled")
    assert not exists("Channels.shut")
    assert not exists("ModelRegistry.constructor")
