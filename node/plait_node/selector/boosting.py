"""Boosted trees as plain numbers: LightGBM grows and runs them, what is kept and checked is ours.

A file of LightGBM's is text that C++ parses without suspecting it: its offsets, counts and child numbers are trusted.
So trees are kept as lists, each checked to be a tree over the features that there are, and the text that LightGBM reads
is always written here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import lightgbm
import numpy as np
from numpy.typing import NDArray

__all__ = ["Forest", "Growth", "Tree"]

Matrix = NDArray[np.float64]
_lightgbm = cast("Any", lightgbm)  # its types name those of packages that are not here
_MOST_LEAVES: Final = 1_024
_MOST_TREES: Final = 20_000
_DECISIONS: Final = frozenset({0, 2})  # numeric splits without missing values: those are not given to trees
_THREADS: Final[Mapping[str, Any]] = {"num_threads": 1, "deterministic": True, "force_row_wise": True, "verbose": -1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """How trees are grown; small data wants small trees, many rows a leaf and randomness."""

    rounds: int = 250
    rate: float = 0.05
    leaves: int = 12
    least_rows: int = 8  # of a leaf
    features: float = 0.5  # share that each tree sees
    rows: float = 0.8
    ridge: float = 1.0  # on leaf values


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """Node i splits feature `features[i]` at `thresholds[i]`; a child below 0 is leaf -1 - child."""

    features: Sequence[int]
    thresholds: Sequence[float]
    decisions: Sequence[int]
    left: Sequence[int]
    right: Sequence[int]
    values: Sequence[float]  # of the leaves: one more than nodes

    def check(self, width: int) -> None:
        """Raise `ValueError` unless this is one tree over features 0 to width - 1."""
        nodes, leaves = len(self.features), len(self.values)
        if {len(each) for each in (self.thresholds, self.decisions, self.left, self.right)} != {nodes}:
            raise ValueError("lists of a tree's nodes differ in length")
        if leaves != nodes + 1 or leaves > _MOST_LEAVES:
            raise ValueError(f"a tree of {nodes} nodes has {leaves} leaves")
        if any(type(each) is not int for part in self._whole for each in part):
            raise ValueError("a tree's features, decisions and children are not whole numbers")
        if any(not 0 <= feature < width for feature in self.features) or set(self.decisions) - _DECISIONS:
            raise ValueError("a tree splits by what is no feature")
        if not all(map(math.isfinite, itertools.chain(self.thresholds, self.values))):
            raise ValueError("a tree's numbers are not all finite")
        # Children come after their parents and each but the root once: no circle, nothing unreachable.
        if nodes and sorted([*self.left, *self.right]) != [*range(-leaves, 0), *range(1, nodes)]:
            raise ValueError("a tree's children are not each of its nodes and leaves once")
        if any(0 <= child <= parent for part in (self.left, self.right) for parent, child in enumerate(part)):
            raise ValueError("a tree's child comes before its parent")

    @property
    def _whole(self) -> tuple[Sequence[int], ...]:
        return self.features, self.decisions, self.left, self.right

    def text(self, number: int) -> str:
        """Return what LightGBM reads; a tree of one leaf has no nodes."""
        parts: list[tuple[str, Iterable[object]]] = [
            ("split_feature", self.features),
            ("threshold", map(float.__repr__, map(float, self.thresholds))),
            ("decision_type", self.decisions),
            ("left_child", self.left),
            ("right_child", self.right),
            ("leaf_value", map(float.__repr__, map(float, self.values))),
        ]
        lines = "\n".join(f"{name}={' '.join(map(str, values))}" for name, values in parts)
        return f"Tree={number}\nnum_leaves={len(self.values)}\nnum_cat=0\n{lines}\nis_linear=0\nshrinkage=1\n\n\n"


class Forest:
    """Trees whose values are summed: one prediction a row."""

    def __init__(self, trees: Sequence[Tree], width: int) -> None:
        """Take trees over `width` features; raise `ValueError` unless they are that."""
        if not 1 <= len(trees) <= _MOST_TREES or not 1 <= width <= 4_096:
            raise ValueError(f"{len(trees)} trees over {width} features are none, or too many")
        for tree in trees:
            tree.check(width)
        self.trees: Final = tuple(trees)
        self.width: Final = width
        self._booster = _lightgbm.Booster(model_str=_text(self.trees, width))

    @classmethod
    def grow(
        cls, matrix: Matrix, target: Matrix, *, quantile: float | None, growth: Growth, seeds: Sequence[int]
    ) -> Forest:
        """Grow on rows (n, width) and their targets (n,), once for each seed, and average; None: the mean.

        The same rows, growth and seeds give the same trees.
        """
        grown = [_grown(matrix, target, quantile, growth, seed) for seed in seeds]
        return cls.average([cls(trees, matrix.shape[1]) for trees in grown])

    @classmethod
    def average(cls, forests: Sequence[Forest]) -> Forest:
        """Return one that says the mean of what these say, which are of one width."""
        share = 1 / len(forests)
        trees = [
            replace(tree, values=[share * value for value in tree.values])
            for forest in forests
            for tree in forest.trees
        ]
        return cls(trees, forests[0].width)

    def predict(self, matrix: Matrix) -> Matrix:
        """Return (n,) for (n, width), all finite."""
        return cast("Matrix", self._booster.predict(matrix, num_threads=1))

    def to_lists(self) -> dict[str, Any]:
        """Return what JSON can hold, numbers exactly."""
        rows = [
            [each.features, each.thresholds, each.decisions, each.left, each.right, each.values] for each in self.trees
        ]
        return {"width": self.width, "trees": [[list(part) for part in row] for row in rows]}

    @classmethod
    def from_lists(cls, value: Mapping[str, Any]) -> Forest:
        """Return what `to_lists` gave; raise `ValueError`, `TypeError` or `KeyError`."""
        width, trees = value["width"], cast("Sequence[Any]", value["trees"])
        if type(width) is not int or len(trees) > _MOST_TREES:
            raise ValueError("that is no forest")
        return cls([_tree(each) for each in trees], width)


def _tree(parts: Sequence[Any]) -> Tree:
    features, thresholds, decisions, left, right, values = parts
    return Tree(features=features, thresholds=thresholds, decisions=decisions, left=left, right=right, values=values)


def _grown(matrix: Matrix, target: Matrix, quantile: float | None, growth: Growth, seed: int) -> list[Tree]:
    objective: dict[str, Any] = (
        {"objective": "regression"} if quantile is None else {"objective": "quantile", "alpha": quantile}
    )
    wanted = {
        **_THREADS,
        **objective,
        "learning_rate": growth.rate,
        "num_leaves": growth.leaves,
        "min_data_in_leaf": growth.least_rows,
        "feature_fraction": growth.features,
        "bagging_fraction": growth.rows,
        "bagging_freq": 1,
        "lambda_l2": growth.ridge,
        "max_bin": 63,
        "seed": seed,
    }
    data = _lightgbm.Dataset(matrix, target, params={"verbose": -1, "max_bin": 63, "num_threads": 1})
    text: str = _lightgbm.train(wanted, data, num_boost_round=growth.rounds).model_to_string()
    return [_read(each) for each in text.partition("\nend of trees")[0].split("\nTree=")[1:]]


def _read(text: str) -> Tree:
    """Read a tree from what LightGBM has just written in this process."""
    fields = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    def numbers(name: str) -> list[int]:
        return [int(word) for word in fields.get(name, "").split()]

    single = fields["num_leaves"] == "1"
    return Tree(
        features=[] if single else numbers("split_feature"),
        thresholds=[] if single else [float(word) for word in fields["threshold"].split()],
        decisions=[] if single else numbers("decision_type"),
        left=[] if single else numbers("left_child"),
        right=[] if single else numbers("right_child"),
        values=[float(word) for word in fields["leaf_value"].split()],
    )


def _text(trees: Sequence[Tree], width: int) -> str:
    """Return a model; without sizes of its trees, which LightGBM would jump by."""
    names = " ".join(f"f{number}" for number in range(width))
    infos = " ".join(["[-1e308:1e308]"] * width)
    head = (
        "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nlabel_index=0\n"
        f"max_feature_idx={width - 1}\nobjective=regression\nfeature_names={names}\nfeature_infos={infos}\n\n"
    )
    return head + "".join(tree.text(number) for number, tree in enumerate(trees)) + "end of trees\n"
