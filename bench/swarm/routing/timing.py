"""How long one choice of a route takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from bench.swarm.routing.routes import everything
from bench.swarm.routing.swarms import Swarm, random_swarm

from plait_node.swarm.errors import NoRouteError
from plait_node.swarm.mending import mend
from plait_node.swarm.route import plan


def routing_ms(*, nodes: int, swarms: int, repeats: int = 5) -> dict[str, dict[str, float]]:
    """Return the milliseconds of a plan, of one whose price binds, and of a mend, by the clock and of the processor.

    On a busy machine the clock counts what others take.
    """
    free: list[tuple[float, float]] = []
    bound: list[tuple[float, float]] = []
    mended: list[tuple[float, float]] = []
    for seed in range(swarms):
        swarm = random_swarm(seed, nodes=nodes)
        records, known, needs = [node.record for node in swarm.nodes], everything(swarm), swarm.needs
        route = plan(records, needs, known=known)
        dear = replace(needs, max_price=_between(swarm, route.price, seed))
        lost = route.stages()[seed % len(route.records)].node
        free += _timed(lambda: plan(records, needs, known=known), repeats)  # noqa: B023  called at once
        bound += _timed(lambda: plan(records, dear, known=known), repeats)  # noqa: B023
        mended += _timed(lambda: mend(records, route.stages(), lost, needs, known=known), repeats)  # noqa: B023
    return {"plan": _summary(free), "plan_price_binds": _summary(bound), "mend": _summary(mended)}


def _between(swarm: Swarm, price: int, seed: int) -> int:
    """Return a price limit below that of the soonest route and not below the cheapest stage everywhere."""
    cheapest = min(node.record.facts.price for node in swarm.nodes) * swarm.blocks
    return round(cheapest + (price - cheapest) * (0.4 + 0.5 * (seed % 10) / 10))


def _timed(call: Callable[[], object], repeats: int) -> list[tuple[float, float]]:
    """Return milliseconds by the clock and of the processor, for each call that found something."""
    taken: list[tuple[float, float]] = []
    for _ in range(repeats):
        began, busy = time.perf_counter(), time.thread_time()
        try:
            call()
        except NoRouteError:
            continue
        taken.append(((time.perf_counter() - began) * 1e3, (time.thread_time() - busy) * 1e3))
    return taken


def _summary(taken: list[tuple[float, float]]) -> dict[str, float]:
    clock, processor = sorted(each[0] for each in taken), sorted(each[1] for each in taken)
    return {
        "p50": clock[len(clock) // 2],
        "p95": clock[int(0.95 * (len(clock) - 1))],
        "most": clock[-1],
        "processor_p50": processor[len(processor) // 2],
        "processor_p95": processor[int(0.95 * (len(processor) - 1))],
        "calls": len(clock),
    }
