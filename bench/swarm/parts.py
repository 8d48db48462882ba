"""The parts of the bench, in the order in which they run: each is a file of its own and has its bars with it."""

from __future__ import annotations

from typing import Final

from bench.swarm import (
    cluster,
    codecs,
    distance,
    failover,
    failover_cached,
    flood,
    hop,
    lookup,
    petals,
    prefill,
    stages,
)
from bench.swarm.figure import Part

__all__ = ["PARTS"]

PARTS: Final[tuple[Part, ...]] = (
    hop.PART,
    stages.TWO,
    stages.FOUR,
    prefill.PART,
    failover.PART,
    failover_cached.PART,
    lookup.PART,
    distance.PART,
    codecs.PART,
    petals.TINY,
    petals.REAL,
    petals.KILLS,
    flood.PART,
    cluster.PART,
)
