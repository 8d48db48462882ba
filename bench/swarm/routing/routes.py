"""How far from the optimum each way of routing ends up, on random swarms."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from bench.swarm.routing.baselines import parallax_pipelines, parallax_route, petals_route
from bench.swarm.routing.exact import optimum
from bench.swarm.routing.swarms import Node, Swarm, random_swarm

from plait.protocol.ids import Address
from plait_node.swarm.completion import Known
from plait_node.swarm.errors import NoRouteError
from plait_node.swarm.route import plan
from plait_node.swarm.speeds import SpeedBook

LEARNT_JOBS: Final = 40
_JOB_GAP_S: Final = 30.0
_NOISE: Final = 0.05
_LINKED: Final = 0.3  # share of the nodes to which the worker has a link before any job

Route = tuple[Node, ...]


class Worker:
    """Our planner in a simulated swarm, and what it learns from the jobs that it runs there."""

    def __init__(self, swarm: Swarm, seed: int) -> None:
        """Have links to some of the nodes, and nothing else."""
        self.swarm = swarm
        self.book = SpeedBook()
        self._draw = random.Random(seed)  # noqa: S311  a seed, not entropy
        self._nodes = {node.owner: node for node in swarm.nodes}
        self._now = 0.0
        linked = [node for node in swarm.nodes if self._draw.random() < _LINKED]
        self.rtt_s: dict[Address, float] = {node.owner: swarm.worker.rtt_s(node.place) for node in linked}

    def route(self, known: Known | None = None) -> Route | None:
        """Return the planner's route."""
        records = [node.record for node in self.swarm.nodes]
        try:
            found = plan(records, self.swarm.needs, known=known or self.book.known(now=self._now, rtt_s=self.rtt_s))
        except NoRouteError:
            return None
        return tuple(self._nodes[record.owner] for record in found.records)

    def run(self) -> Route | None:
        """Run one job over the route that is chosen now, and learn from it."""
        records = [node.record for node in self.swarm.nodes]
        found = plan(records, self.swarm.needs, known=self.book.known(now=self._now, rtt_s=self.rtt_s))
        route = tuple(self._nodes[record.owner] for record in found.records)
        self._now += _JOB_GAP_S
        failed = next((node.owner for node in route if self._draw.random() < node.risk), None)
        self.rtt_s |= {node.owner: self.swarm.worker.rtt_s(node.place) for node in route}
        if failed is None:
            seen_s = self.swarm.step_s(route) * math.exp(self._draw.gauss(0, _NOISE))
            self.book.took(found, seen_s, now=self._now, rtt_s=self.rtt_s)
        self.book.ended([node.owner for node in route], failed=failed)
        return route


def gaps(seeds: Sequence[int], *, liars: float) -> dict[str, dict[str, float]]:
    """Return, per way of routing, mean, median and p95 of (completion - optimum) / optimum over these swarms."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for seed in seeds:
        swarm = random_swarm(seed, liars=liars)
        best = optimum(swarm)
        if best is None:
            raise AssertionError  # unreachable: every swarm has whole routes
        least_s = swarm.completion_s(best)
        for name, over in _completions(swarm, seed).items():
            found[name].append(over / least_s - 1)
    return {name: _summary(values) for name, values in found.items()}


def priced_gaps(seeds: Sequence[int]) -> dict[str, float]:
    """Return the gap where the optimum's price is 5 to 40 % too dear, everything about single nodes known."""
    found: list[float] = []
    for seed in seeds:
        swarm = random_swarm(seed)
        free = optimum(swarm)
        draw = random.Random(seed)  # noqa: S311  a seed, not entropy
        price = sum(node.record.facts.price * node.blocks for node in free or ())
        limited = replace(swarm, needs=replace(swarm.needs, max_price=round(price * draw.uniform(0.6, 0.95))))
        best = optimum(limited)
        if best is not None:
            route = Worker(limited, seed).route(everything(limited))
            found.append(limited.completion_s(route or ()) / limited.completion_s(best) - 1)
    return _summary(found)


def everything(swarm: Swarm) -> Known:
    """Return what a worker would know after very many jobs: all but the round trips between stages."""
    return Known(
        rtt_s={node.owner: swarm.worker.rtt_s(node.place) for node in swarm.nodes},
        factors={node.owner: node.block_s * node.blocks / node.record.facts.step_micros * 1e6 for node in swarm.nodes},
        risks={node.owner: node.risk for node in swarm.nodes},
    )


def _completions(swarm: Swarm, seed: int) -> Mapping[str, float]:
    """Return the real expected seconds of the job over each way's route."""
    worker = Worker(swarm, seed)
    first = worker.route()
    during = [swarm.completion_s(worker.run() or ()) for _ in range(LEARNT_JOBS)]
    pipelines = parallax_pipelines(swarm)
    routes: dict[str, Route | None] = {
        "ours_first_job": first,
        "ours": worker.route(),
        "ours_single_nodes_known": worker.route(everything(swarm)),
        "petals": petals_route(swarm, seed=seed),
        "petals_all_trips_known": petals_route(swarm, seed=seed, omniscient=True),
        "parallax_dp": parallax_route(swarm),
    }
    seconds = {name: swarm.completion_s(route) for name, route in routes.items() if route}
    seconds["ours_mean_while_learning"] = sum(during) / len(during)
    seconds["parallax_pipelines"] = sum(swarm.completion_s(each) for each in pipelines) / len(pipelines)
    return seconds


def _summary(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "mean": sum(ordered) / len(ordered),
        "p50": ordered[len(ordered) // 2],
        "p95": ordered[min(len(ordered) - 1, math.ceil(0.95 * len(ordered)) - 1)],
        "swarms": len(ordered),
    }
