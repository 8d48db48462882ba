"""What a million tokens cost: compute, gas, verification, relay; with the selector, without, one node or a swarm."""

from __future__ import annotations

from bench.cost.parts import Parts, gas_per_job, parts_of, payer_bytes, relay_bytes, rows_sent
from bench.cost.prices import FIGURES, Figure, figure
from bench.cost.study import chosen, study

__all__ = [
    "FIGURES",
    "Figure",
    "Parts",
    "chosen",
    "figure",
    "gas_per_job",
    "parts_of",
    "payer_bytes",
    "relay_bytes",
    "rows_sent",
    "study",
]
