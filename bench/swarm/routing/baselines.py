"""How Petals and Parallax route, re-implemented from what facts/inference.md says of their sources.

Both know what nodes announce. What our stages cannot do is taken from neither: a stage is entered at its first block.
Petals is given the round trips that it measures (three nodes of each kind) or, with `omniscient`, all of them;
Parallax is given all of them, and times per layer that already contain the queue.
"""

from __future__ import annotations

import heapq
import random
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Final

from bench.swarm.routing.swarms import Node, Swarm

_PINGED: Final = 3
_UNKNOWN_RTT_S: Final = 0.150
_MOST_RTT_S: Final = 5.0
_SERIALIZATION_S: Final = 0.018
_NO_CACHE_S: Final = 10.0

_Cost = Callable[[Node | None, Node | None], float]  # from a node (None: the client) to the next one


def petals_route(swarm: Swarm, *, seed: int, omniscient: bool = False) -> tuple[Node, ...] | None:
    """Return Petals' route for one session: the shortest path over half round trips, overheads and block times."""
    pinged = None if omniscient else _pings(swarm, seed)

    def cost(before: Node | None, after: Node | None) -> float:
        total_s = 0.0
        trip_s = (before.place if before else swarm.worker).rtt_s(after.place if after else swarm.worker)
        if pinged is not None and _names(before, after) not in pinged:
            trip_s = _UNKNOWN_RTT_S
        if after is not None:
            facts = after.record.facts
            total_s += _SERIALIZATION_S + facts.step_micros / 1e6
            needed = (swarm.needs.prompt + swarm.needs.answer) * 2 * after.blocks
            total_s += _NO_CACHE_S if needed > facts.free_steps * 2 * after.blocks else 0.0
        return total_s + min(_MOST_RTT_S, trip_s) / 2

    return _shortest(swarm, swarm.nodes, cost)


def parallax_route(swarm: Swarm) -> tuple[Node, ...] | None:
    """Return Parallax's route of a request by its dynamic programme: times of layers and round trips."""
    return _shortest(swarm, swarm.nodes, _parallax_cost(swarm))


def parallax_pipelines(swarm: Swarm) -> list[tuple[Node, ...]]:
    """Return Parallax's registered pipelines, no node in two of them: requests take them in turn (its default)."""
    left = list(swarm.nodes)
    found: list[tuple[Node, ...]] = []
    while route := _shortest(swarm, left, _parallax_cost(swarm)):
        found.append(route)
        left = [node for node in left if node not in route]
    return found


def _parallax_cost(swarm: Swarm) -> _Cost:
    def cost(before: Node | None, after: Node | None) -> float:
        trip_s = (before.place if before else swarm.worker).rtt_s(after.place if after else swarm.worker)
        facts = after.record.facts if after else None
        return trip_s + (facts.step_micros / 1e6 * (1 + facts.queue) if facts else 0.0)

    return cost


def _pings(swarm: Swarm, seed: int) -> set[tuple[bytes, bytes]]:
    """Return the pairs whose round trip is known: the client's and each server's pings of three at random."""
    draw = random.Random(seed)  # noqa: S311  a seed, not entropy
    starting: defaultdict[int, list[Node]] = defaultdict(list)
    for node in swarm.nodes:
        starting[node.record.facts.first].append(node)
    known: set[tuple[bytes, bytes]] = set()
    firsts, lasts = starting[0], [node for node in swarm.nodes if node.record.facts.last == swarm.blocks]
    known |= {_names(None, node) for node in draw.sample(firsts, min(_PINGED, len(firsts)))}
    known |= {_names(node, None) for node in draw.sample(lasts, min(_PINGED, len(lasts)))}
    for node in swarm.nodes:
        following = starting[node.record.facts.last]
        known |= {_names(node, after) for after in draw.sample(following, min(_PINGED, len(following)))}
    return known


def _names(before: Node | None, after: Node | None) -> tuple[bytes, bytes]:
    return before.owner if before else b"", after.owner if after else b""


def _shortest(swarm: Swarm, nodes: Iterable[Node], cost: _Cost) -> tuple[Node, ...] | None:
    """Return Dijkstra's path from the client through nodes that follow one another and back to it."""
    starting: defaultdict[int, list[Node]] = defaultdict(list)
    for node in nodes:
        starting[node.record.facts.first].append(node)
    waiting: list[tuple[float, int, tuple[Node, ...], bool]] = [(0.0, 0, (), False)]
    done: set[bytes] = set()
    pushed = 0
    while waiting:
        time_s, _, path, home = heapq.heappop(waiting)
        if home:
            return path
        at = path[-1] if path else None
        if at is not None and at.owner in done:
            continue
        done |= {at.owner} if at is not None else set()
        reached = at.record.facts.last if at is not None else 0
        for after in [None] if reached == swarm.blocks else starting[reached]:
            pushed += 1
            longer = path if after is None else (*path, after)
            heapq.heappush(waiting, (time_s + cost(at, after), pushed, longer, after is None))
    return None
