"""Compare routing and placement with the exact optimum, with Petals' rules and with Parallax's.

Run it as: python -m bench.swarm.routing [--seeds N] [--nodes N] [--out FILE].

Every swarm is simulated, so the truth is known: real step times (some nodes announce faster ones), real round trips
between any two nodes, queues, chances of failure. A route is judged by the time in which its job is expected to be
done; the optimum is the best route of all when everything is known. Our worker knows what it learnt from 40 jobs.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any, Final

from bench.swarm.routing.joins import random_joiners, shares
from bench.swarm.routing.routes import LEARNT_JOBS, gaps, priced_gaps
from bench.swarm.routing.timing import routing_ms

_LIARS: Final = 0.15
_PROVE_S: Final = 5.0  # for one optimum


def measure(*, seeds: int, nodes: int) -> dict[str, Any]:
    """Return everything that the report says; seconds, and shares of the optimum."""
    began = time.perf_counter()
    some = max(2, seeds // 5)
    found: dict[str, Any] = {
        "routing_ms": routing_ms(nodes=nodes, swarms=min(100, some)),
        "gap": {
            "honest": gaps(range(seeds), liars=0.0),
            "some_lie": gaps(range(seeds), liars=_LIARS),
            "ours_price_binds": priced_gaps(range(some)),
        },
        "placement": {
            "4_to_6_joins": shares((random_joiners(seed, few=True) for seed in range(some)), prove_s=_PROVE_S),
            "10_to_30_joins": shares(random_joiners(seed) for seed in range(some)),
        },
        "set_up": {"seeds": seeds, "nodes": nodes, "liars": _LIARS, "jobs_learnt_from": LEARNT_JOBS},
    }
    found["took_s"] = time.perf_counter() - began
    return found


def lines(found: dict[str, Any]) -> list[str]:
    """Return the report as text."""
    text = [f"one choice of a route among {found['set_up']['nodes']} nodes, ms"]
    text += [
        f"  {name:28} p50 {ms['p50']:.2f}  p95 {ms['p95']:.2f}  of the processor p50 {ms['processor_p50']:.2f}  p95 "
        f"{ms['processor_p95']:.2f}"
        for name, ms in found["routing_ms"].items()
    ]
    for name in ("honest", "some_lie"):
        text += [f"gap to the optimum, {name} ({found['set_up']['seeds']} swarms)"]
        text += [
            f"  {rule:28} mean {gap['mean']:.3f}  p50 {gap['p50']:.3f}  p95 {gap['p95']:.3f}"
            for rule, gap in found["gap"][name].items()
        ]
    gap = found["gap"]["ours_price_binds"]
    text += [f"  {'ours, price binds':28} mean {gap['mean']:.3f}  p50 {gap['p50']:.3f}  p95 {gap['p95']:.3f}"]
    for name, placed in found["placement"].items():
        proven = f"{placed['optimum_proven']} of {placed['swarms']} proven, else of a bound above it"
        text += [f"placement, {name}: share of the optimum ({proven})"]
        text += [
            f"  {rule:28} weakest block {placed['weakest_block'][rule]['mean']:.3f} (of the best found "
            f"{placed['weakest_block_of_found'][rule]['mean']:.3f})  whole routes "
            f"{placed['whole_routes'][rule]['mean']:.3f}  blocks fetched a join "
            f"{placed['blocks_fetched_a_join'][rule]:.1f}"
            for rule in placed["weakest_block"]
        ]
    return text


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.swarm.routing", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1_000, help="random swarms (default: %(default)s)")
    parser.add_argument("--nodes", type=int, default=500, help="nodes where time is taken (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=Path("build/bench/swarm-routing.json"), help="file (default: %(default)s)"
    )
    given = parser.parse_args()
    found = measure(seeds=given.seeds, nodes=given.nodes)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(found, indent=1) + "\n")
    print("\n".join(lines(found)))
    print(f"report in {given.out}")


if __name__ == "__main__":
    main()
