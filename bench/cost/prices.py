"""Every price and assumed size that `bench.cost` uses, in one table; nothing else in it is a number of ours.

"Assumed" means that nobody looked it up on the day: it is of the order of public price lists. Change a line and run
again; shares that depend on it move, measured seconds, gas and bytes do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from plait_node.selector.bench.settings import PRICES

__all__ = ["FIGURES", "Figure", "figure"]

_DAY: Final = "2026-11-26"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure, what it is, and why it is that much."""

    value: float
    unit: str
    what: str
    source: str
    date: str = _DAY


FIGURES: Final[Mapping[str, Figure]] = {
    "cpu": Figure(
        value=PRICES["cpu"],
        unit="USD / core hour",
        what="a core of a small rented machine",
        source="plait_node.selector.bench.settings.PRICES, which budgets count with as well; assumed",
    ),
    "cuda": Figure(
        value=PRICES["cuda"],
        unit="USD / device hour",
        what="a rented H200 with its host",
        source="plait_node.selector.bench.settings.PRICES; assumed",
    ),
    "gb_near": Figure(
        value=0.01,
        unit="USD / GB",
        what="traffic between machines that are at most 2 ms apart",
        source="assumed: what large clouds ask between zones of a region, sender's side",
    ),
    "gb_far": Figure(
        value=0.09,
        unit="USD / GB",
        what="traffic over the internet",
        source="assumed: what large clouds ask for the first terabytes out; cheap hosts ask a tenth or nothing",
    ),
    "near_s": Figure(value=0.002, unit="s", what="round trip up to which traffic is near", source="a data centre"),
    "gwei_mainnet": Figure(
        value=1.0,
        unit="gwei / gas",
        what="gas on Ethereum",
        source="assumed: between quiet (0.1 to 0.5) and busy (5 and more) hours",
    ),
    "gwei_l2": Figure(
        value=0.01,
        unit="gwei / gas",
        what="gas on a rollup, the share of its data's price included",
        source="assumed: large rollups ask 0.002 to 0.02",
    ),
    "ether": Figure(value=3_000.0, unit="USD / ETH", what="ether", source="assumed; no exchange was asked"),
    "audit_rate": Figure(
        value=0.02,
        unit="share of a stage's jobs",
        what="how often a stage is drawn to be run again",
        source="the default of the verification design (docs/protocol.md, audit draw, has the rate as a parameter)",
    ),
    "leaf_bytes": Figure(
        value=300.0,
        unit="bytes / stage and window",
        what="a signed leaf on its way to the payer",
        source="docs/protocol.md: six hashes, 14 bytes of numbers, a signature of 65, and about 30 of framing",
    ),
    "progress_bytes": Figure(
        value=200.0,
        unit="bytes / window",
        what="a signed progress and the sealing of its tokens",
        source="docs/protocol.md: three hashes, 4 bytes, a signature of 65, a tag of 16, and about 20 of framing",
    ),
    "frame_bytes": Figure(
        value=100.0,
        unit="bytes / frame",
        what="what a frame costs besides its rows: job, step, gRPC, TLS, TCP and IP heads",
        source="assumed from the message's fields (32 + 12 bytes) and usual heads",
    ),
}


def figure(name: str) -> float:
    """Return a figure's value."""
    return FIGURES[name].value
