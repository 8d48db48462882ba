"""The paper's motivating figure on the device: methods by batch size, on the 8B shape."""

from __future__ import annotations

from typing import Any

from bench.gpu import llama8b
from bench.methods import Grid, measure

from plait_node.engine.local_route import LocalRoute


def run(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the grid; see `bench.methods`."""
    del facts
    route = LocalRoute([llama8b.random_engine()], profile="bf16", margins=False)
    grid = Grid(shared=512, own=64, answer=32, chunk=512, vocabulary=100_000, repeats=1)
    return measure(route, grid)
