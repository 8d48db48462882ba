"""Nodes that join one after another: the weakest block afterwards, against the best placement of all of them."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from itertools import product

import numpy as np
from bench.swarm.routing.placing import Joiner, Parallax, Petals, Span
from bench.swarm.routing.swarms import PROFILE, made_record
from numpy.typing import NDArray
from scipy.optimize import LinearConstraint, linprog, milp
from scipy.sparse import csr_array

from plait_node.swarm.placement import bottleneck, choose_blocks
from plait_node.swarm.records import NodeRecord


class Ours:
    """`choose_blocks`, one node after another; nobody moves."""

    def __init__(self, blocks: int) -> None:
        """Begin with an empty swarm."""
        self._blocks = blocks
        self._records: list[NodeRecord] = []
        self.joined: list[Joiner] = []
        self.spans: list[Span] = []
        self.moved = 0

    def join(self, joiner: Joiner) -> None:
        """Place a node."""
        chosen = choose_blocks(
            self._records, self._blocks, PROFILE, room=min(joiner.room, self._blocks), block_s=joiner.block_s
        )
        self.joined.append(joiner)
        self.spans.append((chosen.first, chosen.last))
        self.moved += chosen.moved
        self._records.append(record_of(len(self.spans), joiner, self.spans[-1]))


def record_of(owner: int, joiner: Joiner, span: Span) -> NodeRecord:
    """Return the record of a node that serves these blocks."""
    return made_record(owner, *span, step_s=joiner.block_s * (span[1] - span[0]))


def random_joiners(seed: int, *, few: bool = False) -> tuple[int, list[Joiner]]:
    """Return a model's blocks and 10 to 30 nodes that join one after another; `few`: 4 to 6 nodes for 6 blocks."""
    draw = random.Random(seed)  # noqa: S311  a seed, not entropy
    blocks = 6 if few else draw.choice([12, 16, 24, 32])
    joiners = [
        Joiner(room=draw.randint(2, blocks * 2 // 3), block_s=math.exp(draw.gauss(math.log(0.01), 0.6)))
        for _ in range(draw.randint(4, 6) if few else draw.randint(10, 30))
    ]
    return blocks, joiners


def rates(blocks: int, joiners: Sequence[Joiner], spans: Sequence[Span]) -> tuple[float, float]:
    """Return the weakest block's steps a second, and those of whole routes."""
    records = [
        record_of(owner, joiner, span) for owner, (joiner, span) in enumerate(zip(joiners, spans, strict=True), start=1)
    ]
    found = bottleneck(records, blocks, PROFILE)
    return found.steps_s, found.routed_steps_s


def best_weakest(blocks: int, joiners: Sequence[Joiner], *, prove_s: float) -> tuple[float, bool]:
    """Return the best possible throughput of the weakest block, and whether that is proven; else an upper bound.

    A mixed integer programme: one span for each node, all nodes placed at once, none of them to be moved later.
    """
    spans = [(at, span) for at, joiner in enumerate(joiners) for span in _spans(blocks, joiner)]
    rows, columns, values = [], [], []
    for column, (at, (first, last)) in enumerate(spans):
        for block in range(first, last):
            rows.append(block)
            columns.append(column)
            values.append(-joiners[at].rate((first, last)))
        rows.append(blocks + at)
        columns.append(column)
        values.append(1.0)
    for block in range(blocks):
        rows.append(block)
        columns.append(len(spans))
        values.append(1.0)
    matrix = csr_array((values, (rows, columns)), shape=(blocks + len(joiners), len(spans) + 1))
    most = np.concatenate([np.zeros(blocks), np.ones(len(joiners))])
    goal = np.zeros(len(spans) + 1)
    goal[-1] = -1.0
    if prove_s > 0:
        whole = np.ones(len(spans) + 1)
        whole[-1] = 0
        found = milp(
            goal, constraints=LinearConstraint(matrix, ub=most), integrality=whole, options={"time_limit": prove_s}
        )
        if found.status == 0:
            return -float(found.fun), True
        if found.mip_dual_bound is not None:
            return -float(found.mip_dual_bound), False
    return -float(linprog(goal, A_ub=matrix, b_ub=most).fun), False


def brute_weakest(blocks: int, joiners: Sequence[Joiner]) -> float:
    """Return the same by trying every placement; for very few nodes."""
    return max(
        rates(blocks, joiners, spans)[0] for spans in product(*(list(_spans(blocks, joiner)) for joiner in joiners))
    )


def _spans(blocks: int, joiner: Joiner) -> list[Span]:
    return [(first, last) for first in range(blocks) for last in range(first + 1, min(first + joiner.room, blocks) + 1)]


def improved(blocks: int, joiners: Sequence[Joiner], spans: Sequence[Span]) -> float:
    """Return the weakest block's steps a second once nodes have moved, one at a time, as long as that helps.

    What is reached so is below the optimum, so the optimum lies between this and the upper bound.
    """
    choices = [np.array([_served(blocks, joiner, span) for span in _spans(blocks, joiner)]) for joiner in joiners]
    serving = [_served(blocks, joiner, span) for joiner, span in zip(joiners, spans, strict=True)]
    total = np.sum(serving, axis=0)
    least, moving = _load(total), True
    while moving:
        moving = False
        for at, choice in enumerate(choices):
            others = total - serving[at]
            loads = _load(others + choice)
            if loads.min() < least * (1 - 1e-9):
                least, moving = loads.min(), True
                serving[at] = choice[int(loads.argmin())]
                total = others + serving[at]
    return float(total.min())


def _served(blocks: int, joiner: Joiner, span: Span) -> NDArray[np.float64]:
    served = np.zeros(blocks)
    served[span[0] : span[1]] = joiner.rate(span)
    return served


def _load(rates_: NDArray[np.float64]) -> NDArray[np.float64]:
    return (np.maximum(rates_, 1e-3) ** -12.0).sum(axis=-1)


def shares(cases: Iterable[tuple[int, list[Joiner]]], *, prove_s: float = 0.0) -> dict[str, object]:
    """Return what each rule reaches of the best weakest block, and how many blocks a join fetches.

    `best` is the optimum where that could be proven within `prove_s` seconds, else a bound above it; `found` is the
    best that was found by moving everybody about.
    """
    weakest: dict[str, list[float]] = {"ours": [], "petals": [], "parallax": []}
    routed: dict[str, list[float]] = {name: [] for name in weakest}
    of_found: dict[str, list[float]] = {name: [] for name in weakest}
    fetched: dict[str, list[float]] = {name: [] for name in weakest}
    proven = 0
    for seed, (blocks, joiners) in enumerate(cases):
        best, exact = best_weakest(blocks, joiners, prove_s=prove_s)
        if best <= 0:
            continue  # together they do not hold the model
        proven += exact
        rules = {"ours": Ours(blocks), "petals": Petals(blocks, seed), "parallax": Parallax(blocks)}
        for joiner, rule in product(joiners, rules.values()):
            rule.join(joiner)
        found = best if exact else improved(blocks, rules["ours"].joined, rules["ours"].spans)
        for name, rule in rules.items():
            weak, whole = rates(blocks, rule.joined, rule.spans)
            weakest[name].append(weak / best)
            of_found[name].append(weak / found)
            routed[name].append(whole / best)
            fetched[name].append(rule.moved / len(joiners))
    swarms = len(weakest["ours"])
    return {
        "swarms": swarms,
        "optimum_proven": proven,
        "weakest_block": {name: _spread(values) for name, values in weakest.items()},
        "weakest_block_of_found": {name: _spread(values) for name, values in of_found.items()},
        "whole_routes": {name: _spread(values) for name, values in routed.items()},
        "blocks_fetched_a_join": {name: sum(values) / swarms for name, values in fetched.items()},
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {"mean": sum(ordered) / len(ordered), "p5": ordered[int(0.05 * (len(ordered) - 1))], "least": ordered[0]}
