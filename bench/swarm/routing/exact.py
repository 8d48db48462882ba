"""The best route that there is, when everything is known: an independent search over nodes, not boundaries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from bench.swarm.routing.swarms import Node, Swarm

# One way to a node: seconds that add up, the slowest chunk so far, the price, and the nodes.
_Way = tuple[float, float, int, tuple[Node, ...]]


def optimum(swarm: Swarm) -> tuple[Node, ...] | None:
    """Return the route of the least real expected completion within the price limit; None where there is none.

    At each node all ways are kept that no other beats in time, slowest chunk and price together. A hop is known
    between any two nodes, so ways are compared per node and not per boundary.
    """
    starting: defaultdict[int, list[Node]] = defaultdict(list)
    for node in swarm.nodes:
        starting[node.record.facts.first].append(node)
    passes, repeats = swarm.passes(), swarm.needs.chunks - 1
    ways: dict[int, list[_Way]] = {}
    best: tuple[float, tuple[Node, ...]] | None = None
    for node in sorted(swarm.nodes, key=lambda each: each.record.facts.first):
        facts = node.record.facts
        alone_s, chunk_s, price = swarm.alone_s(node), swarm.chunk_s(node), facts.price * node.blocks
        found = ways.pop(id(node), [])
        if facts.first == 0:
            found.append((passes * swarm.worker.rtt_s(node.place) / 2, 0.0, 0, ()))
        reached = [
            (time_s + alone_s, max(slowest_s, chunk_s), paid + price, (*path, node))
            for time_s, slowest_s, paid, path in _unbeaten(found)
            if paid + price <= swarm.needs.max_price
        ]
        if facts.last == swarm.blocks:
            back_s = passes * node.place.rtt_s(swarm.worker) / 2
            for time_s, slowest_s, _, path in reached:
                total_s = time_s + back_s + repeats * slowest_s
                best = (total_s, path) if best is None or total_s < best[0] else best
            continue
        for after in starting[facts.last] if reached else ():
            hop_s = passes * node.place.rtt_s(after.place) / 2
            ways.setdefault(id(after), []).extend((way[0] + hop_s, *way[1:]) for way in reached)
    return best[1] if best is not None else None


def brute_force(swarm: Swarm) -> tuple[Node, ...] | None:
    """Return the same by trying every route; for small swarms."""
    best: tuple[float, tuple[Node, ...]] | None = None
    waiting: list[tuple[Node, ...]] = [()]
    while waiting:
        path = waiting.pop()
        reached = path[-1].record.facts.last if path else 0
        if reached == swarm.blocks:
            total_s = swarm.completion_s(path)
            best = (total_s, path) if best is None or total_s < best[0] else best
            continue
        for node in swarm.nodes:
            longer = (*path, node)
            price = sum(each.record.facts.price * each.blocks for each in longer)
            if node.record.facts.first == reached and price <= swarm.needs.max_price:
                waiting.append(longer)
    return best[1] if best is not None else None


def _unbeaten(ways: Sequence[_Way]) -> list[_Way]:
    kept: list[_Way] = []
    for way in sorted(ways, key=lambda each: each[:3]):
        if not any(other[1] <= way[1] and other[2] <= way[2] for other in kept):
            kept.append(way)
    return kept
