"""How Petals and Parallax place a joining node, re-implemented from what facts/inference.md says of their sources."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

_BALANCED: Final = 0.75  # Petals moves a server when the weakest block could be a third better
_LEAST: Final = 1e-9

Span = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Joiner:
    """A node that joins: room for so many blocks, and the time of a decode step over one."""

    room: int
    block_s: float

    def rate(self, span: Span) -> float:
        """Return its steps a second over these blocks."""
        return 1 / (self.block_s * (span[1] - span[0]))


class Petals:
    """Each server takes as many blocks as it has room for, where the weakest are, and moves when that pays."""

    def __init__(self, blocks: int, seed: int) -> None:
        """Begin with an empty swarm."""
        self._blocks = blocks
        self._draw = random.Random(seed)  # noqa: S311  a seed, not entropy
        self.joined: list[Joiner] = []
        self.spans: list[Span] = []
        self.moved = 0

    def join(self, joiner: Joiner) -> None:
        """Place a node; then every server checks once, in random order, whether it should move."""
        self.joined.append(joiner)
        self.spans.append(self._best(joiner, self._rates(self.spans)))
        self.moved += self.spans[-1][1] - self.spans[-1][0]
        order = list(range(len(self.spans)))
        self._draw.shuffle(order)
        for at in order:
            self._check(at)

    def _check(self, at: int) -> None:
        others = self._rates(self.spans, without=at)
        if min(others) < _LEAST:
            return  # without this server the swarm would fall apart
        wanted = self._best(self.joined[at], others)
        if wanted == self.spans[at]:
            return
        simulated = list(self.spans)
        simulated[at] = wanted
        for _ in range(len(simulated) * 4):  # to a fixed point, which such moves need not have
            changed = False
            for other in range(len(simulated)):
                best = self._best(self.joined[other], self._rates(simulated, without=other))
                changed |= best != simulated[other]
                simulated[other] = best
            if not changed:
                break
        if min(self._rates(self.spans)) / min(self._rates(simulated)) < _BALANCED:
            self.moved += len(set(range(*wanted)) - set(range(*self.spans[at])))
            self.spans[at] = wanted

    def _best(self, joiner: Joiner, rates: Sequence[float]) -> Span:
        """Return the window whose sorted throughputs are the least: the one with the weakest block first."""
        length = min(joiner.room, self._blocks)
        first = min(range(self._blocks - length + 1), key=lambda at: (sorted(rates[at : at + length]), at))
        return first, first + length

    def _rates(self, spans: Sequence[Span], *, without: int = -1) -> list[float]:
        """Return each block's throughput as Petals reckons it: a server's requests a second over half its blocks."""
        rates = [0.0] * self._blocks
        for at, (first, last) in enumerate(spans):
            for block in range(first, last) if at != without else ():
                rates[block] += 1 / self.joined[at].block_s / ((last - first + 1) / 2)
        return rates


class Parallax:
    """Pipelines by Z(k) = k^2 / stages once there are nodes for one, layers by speed; later nodes to the lightest."""

    def __init__(self, blocks: int) -> None:
        """Begin with an empty swarm."""
        self._blocks = blocks
        self._waiting: list[Joiner] = []
        self.joined: list[Joiner] = []
        self.spans: list[Span] = []
        self.moved = 0

    def join(self, joiner: Joiner) -> None:
        """Place a node, or keep it waiting until the first pipeline can be built."""
        if self.spans:
            self._place(joiner)
            return
        self._waiting.append(joiner)
        placed = allocate(self._waiting, self._blocks)
        for node, span in placed:
            if span is not None:
                self._put(node, span)
        for node in [node for node, span in placed if span is None] if self.spans else []:
            self._place(node)

    def _place(self, joiner: Joiner) -> None:
        """Put a node where the layers are lightest, by the memory for keys and values that hosts them."""
        weights = [0.0] * self._blocks
        for node, (first, last) in zip(self.joined, self.spans, strict=True):
            for block in range(first, last):
                weights[block] += node.room / (last - first)
        length = min(joiner.room, self._blocks)
        first = min(min(range(self._blocks), key=lambda at: (weights[at], at)), self._blocks - length)
        self._put(joiner, (first, first + length))

    def _put(self, joiner: Joiner, span: Span) -> None:
        self.joined.append(joiner)
        self.spans.append(span)
        self.moved += span[1] - span[0]


def allocate(nodes: Sequence[Joiner], blocks: int) -> list[tuple[Joiner, Span | None]]:
    """Return Parallax's allocation of all nodes at once, None for those left over.

    Of all numbers k of pipelines that which maximises k^2 / s(k), s(k) being the fewest stages of k pipelines. The
    fewest are always had with the largest nodes. Within a pipeline layers are shared by speed, within each one's room.
    """
    ordered = sorted(nodes, key=lambda node: -node.room)
    best: tuple[float, list[list[Joiner]]] = (0.0, [])
    for count in range(1, sum(node.room for node in nodes) // blocks + 1):
        found = _pipelines(ordered, count, blocks)
        if found is not None:
            best = max(best, (count**2 / sum(len(each) for each in found), found), key=lambda each: each[0])
    placed: list[tuple[Joiner, Span | None]] = []
    for pipeline in best[1]:
        first = 0
        for node, length in zip(pipeline, _filled(pipeline, blocks), strict=True):
            placed += [(node, (first, first + length) if length else None)]
            first += length
    used = {id(node) for node, _ in placed}
    return placed + [(node, None) for node in nodes if id(node) not in used]


def _pipelines(ordered: Sequence[Joiner], count: int, blocks: int) -> list[list[Joiner]] | None:
    """Return `count` pipelines out of as few of the largest nodes as hold them."""
    for used in range(count, len(ordered) + 1):
        rooms = tuple(min(node.room, blocks) for node in ordered[:used])
        if sum(rooms) >= count * blocks and (bins := _covered(rooms, count, blocks)) is not None:
            return [[ordered[at] for at in each] for each in bins]
    return None


def _covered(rooms: tuple[int, ...], count: int, blocks: int) -> list[list[int]] | None:
    """Return the nodes of `count` bins that hold `blocks` each, by a dynamic programme over what the bins lack."""

    @cache
    def fit(at: int, lacking: tuple[int, ...]) -> tuple[int, ...] | None:
        """Return for each node from `at` on the lack of the bin that it goes into."""
        if not any(lacking):
            return ()
        if at == len(rooms) or sum(rooms[at:]) < sum(lacking):
            return None
        for lack in sorted(set(lacking) - {0}, reverse=True):
            rest = list(lacking)
            rest[rest.index(lack)] = max(0, lack - rooms[at])
            after = fit(at + 1, tuple(sorted(rest)))
            if after is not None:
                return (lack, *after)
        return None

    choice = fit(0, (blocks,) * count)
    if choice is None:
        return None
    bins: list[tuple[int, list[int]]] = [(blocks, []) for _ in range(count)]
    for at, lack in enumerate(choice):
        index = next(index for index, (left, _) in enumerate(bins) if left == lack)
        bins[index] = (max(0, lack - rooms[at]), [*bins[index][1], at])
    return [nodes for _, nodes in bins]


def _filled(pipeline: Sequence[Joiner], blocks: int) -> list[int]:
    """Return the layers of each node: as much water per speed for all, capped by their room."""
    low, high = 0.0, blocks * max(node.block_s for node in pipeline)
    for _ in range(60):
        level = (low + high) / 2
        full = sum(min(node.room, level / node.block_s) for node in pipeline) >= blocks
        low, high = (low, level) if full else (level, high)
    ideal = [min(node.room, high / node.block_s) for node in pipeline]
    layers = [math.floor(each) for each in ideal]
    for at in sorted(range(len(ideal)), key=lambda at: layers[at] - ideal[at]):
        layers[at] += layers[at] < pipeline[at].room and sum(layers) < blocks
    for at in range(len(layers)):
        layers[at] += min(pipeline[at].room - layers[at], blocks - sum(layers))
    return layers
