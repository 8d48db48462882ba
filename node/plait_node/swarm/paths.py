"""The soonest way through the graph of block boundaries, exactly, under a price limit.

A way costs the sum of its edges and, for each further chunk of the prompt, its slowest edge. Without regard to the
price few ways to a boundary can be part of the best one. Only where the best is too dear are all ways kept that no
other beats in time and price, less those that a Lagrangian bound rules out.
"""

from __future__ import annotations

import math
from collections import defaultdict
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from plait_node.swarm.completion import Edge

_TRIES: Final = 16
_SLACK: Final = 1 + 1e-9  # a bound is summed in another order than a label
_IN_ORDER: Final = attrgetter("add_s", "chunk_s", "price")
_time: Final = attrgetter("add_s")


class Limits(NamedTuple):
    """What a way may cost and how long it may be."""

    price: int
    stages: int
    repeats: int  # chunks of the prompt after the first


class _Label(NamedTuple):
    """One way to a boundary; compared in this order."""

    time_s: float  # sum of its edges
    total_s: float  # with the further chunks
    price: int
    stages: int
    slowest_s: float
    edge: int
    before: _Label | None


_by_total: Final = itemgetter(slice(1, None))


class _Graph:
    """The edges that lie on some way from `first` to `last`, those beaten by a twin left out."""

    def __init__(self, edges: Iterable[Edge], first: int, last: int, *, by_price: bool) -> None:
        twins: defaultdict[tuple[int, int], list[Edge]] = defaultdict(list)
        for edge in edges:
            if first <= edge.first and edge.last <= last:
                twins[edge.first, edge.last].append(edge)
        ends = {last}
        for start, end in sorted(twins, reverse=True):
            if end in ends:
                ends.add(start)
        self.first = first
        self.last = last
        self.edges: list[Edge] = []
        self.coming: defaultdict[int, list[int]] = defaultdict(list)
        self.going: defaultdict[int, list[int]] = defaultdict(list)
        for start, end in sorted(twins):
            for edge in _unbeaten(twins[start, end], by_price=by_price) if end in ends else ():
                self.going[start].append(len(self.edges))
                self.coming[end].append(len(self.edges))
                self.edges.append(edge)
        self.boundaries = sorted(ends - {first})

    def sweep(self, repeats: int, prune: Callable[[int, list[_Label]], list[_Label]]) -> list[_Label]:
        """Return the labels of the last boundary, those of each boundary pruned."""
        fronts = {self.first: [_Label(0.0, 0.0, 0, 0, 0.0, -1, None)]}
        for boundary in self.boundaries:
            found: list[_Label] = []
            for at in self.coming[boundary]:
                edge = self.edges[at]
                add_s, chunk_s, price = edge.add_s, edge.chunk_s, edge.price
                for label in fronts.get(edge.first, ()):
                    time_s = label.time_s + add_s
                    slowest_s = max(label.slowest_s, chunk_s)
                    total_s = time_s + repeats * slowest_s
                    found.append(_Label(time_s, total_s, label.price + price, label.stages + 1, slowest_s, at, label))
            fronts[boundary] = prune(boundary, found)
        return fronts.get(self.last, [])

    def to_go(self, cost: Callable[[Edge], float]) -> dict[int, tuple[float, int]]:
        """Return, per boundary, the least sum of a cost up to the last, and the edge it begins with."""
        left: dict[int, tuple[float, int]] = {self.last: (0, -1)}
        for boundary in reversed([self.first, *self.boundaries[:-1]]):
            ways = [(left[self.edges[at].last][0] + cost(self.edges[at]), at) for at in self.going[boundary]]
            if ways:
                left[boundary] = min(ways)
        return left


def soonest(edges: Sequence[Edge], first: int, last: int, limits: Limits) -> tuple[Edge, ...] | None:
    """Return the edges of the soonest way from `first` to `last` within the limits; None where there is none."""
    graph = _Graph(edges, first, last, by_price=False)
    best = min(graph.sweep(limits.repeats, lambda _, labels: _quickest(labels)), key=_by_total, default=None)
    if best is not None and (best.price > limits.price or best.stages > limits.stages):
        graph = _Graph(edges, first, last, by_price=True)
        best = _within(graph, limits)
    found: list[Edge] = []
    while best is not None and best.before is not None:
        found.append(graph.edges[best.edge])
        best = best.before
    return tuple(reversed(found)) or None


def _unbeaten(twins: list[Edge], *, by_price: bool) -> list[Edge]:
    """Return the edges between two boundaries that no other beats, the soonest first."""
    if len(twins) == 1:
        return twins
    kept: list[Edge] = []
    for edge in sorted(twins, key=_IN_ORDER):
        chunk_s, price = edge.chunk_s, edge.price
        for other in kept:
            if other.chunk_s <= chunk_s and (other.price <= price or not by_price):
                break
        else:
            kept.append(edge)
    return kept


def _quickest(labels: list[_Label]) -> list[_Label]:
    """Keep the labels that no other beats now and after any slowest edge that may follow."""
    kept: list[_Label] = []
    least_s = math.inf
    for label in sorted(labels):
        if label.total_s < least_s:
            kept.append(label)
            least_s = label.total_s
    return kept


def _within(graph: _Graph, limits: Limits) -> _Label | None:
    """Return the best label within the limits; there is a way, but the best of all is beyond them."""
    cheapest = graph.to_go(lambda edge: edge.price)
    if cheapest[graph.first][0] > limits.price:
        return None
    weight, known_s = _worth(graph, limits)
    bounds = [
        (each, graph.to_go(lambda edge, each=each: edge.add_s + each * edge.price)) for each in sorted({0.0, weight})
    ]
    countless = graph.last - graph.first <= limits.stages  # then no way is too long

    def hopeful(boundary: int, label: _Label) -> bool:
        if label.price + cheapest[boundary][0] > limits.price or label.stages > limits.stages:
            return False
        spare = limits.price - label.price
        return all(label.total_s + left[boundary][0] - each * spare <= known_s * _SLACK for each, left in bounds)

    def prune(boundary: int, labels: list[_Label]) -> list[_Label]:
        kept: list[_Label] = []
        for label in sorted(labels):
            if hopeful(boundary, label) and not any(
                other.total_s <= label.total_s
                and other.price <= label.price
                and (countless or other.stages <= label.stages)
                for other in kept
            ):
                kept.append(label)
        return kept

    return min(graph.sweep(limits.repeats, prune), key=_by_total, default=None)


def _worth(graph: _Graph, limits: Limits) -> tuple[float, float]:
    """Return the weight of a price whose bound is the tightest, and the time of the best way met that fits.

    A way's time plus the weighted price that it has to spare is never below the least weighted sum of all ways; the
    weight is found by bisection between one whose best way is too dear and one whose best way fits.
    """
    low, high = 0.0, 0.0
    tightest = (-math.inf, 0.0)
    known_s = math.inf
    for _ in range(_TRIES):
        weight = (low + high) / 2 if high else (low * 8 or graph.to_go(_time)[graph.first][0] / max(1, limits.price))
        left = graph.to_go(lambda edge, weight=weight: edge.add_s + weight * edge.price)
        tightest = max(tightest, (left[graph.first][0] - weight * limits.price, weight))
        time_s, price, stages = _follow(graph, left, limits.repeats)
        if price > limits.price:
            low = weight
            continue
        high = weight
        if stages <= limits.stages:
            known_s = min(known_s, time_s)
    return tightest[1], known_s


def _follow(graph: _Graph, left: Mapping[int, tuple[float, int]], repeats: int) -> tuple[float, int, int]:
    """Return time, price and stages of the way that `left` tells."""
    time_s, slowest_s, price, stages, boundary = 0.0, 0.0, 0, 0, graph.first
    while boundary != graph.last:
        edge = graph.edges[left[boundary][1]]
        time_s += edge.add_s
        slowest_s = max(slowest_s, edge.chunk_s)
        price += edge.price
        stages += 1
        boundary = edge.last
    return time_s + repeats * slowest_s, price, stages
