"""A tier that rose on chain counts at once, and one that is only claimed never."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from plait.protocol.ids import Address
from plait_node.chain_tiers import ChainTiers

NODE = Address(b"\x01" * 20)


@dataclass
class Chain:
    tier: int = 0
    now: float = 0.0
    reads: list[float] = field(default_factory=list[float])

    async def tiers(self, owners: Iterable[Address], /) -> Mapping[Address, int]:
        self.reads.append(self.now)
        return dict.fromkeys(owners, self.tier)


async def test_tier_that_rose_since_the_last_look_is_believed_at_once() -> None:
    chain = Chain()
    tiers = ChainTiers(chain, clock=lambda: chain.now)
    assert await tiers.tier(NODE) == 0
    chain.tier, chain.now = 2, 5.0
    assert await tiers.has(NODE, 2)
    assert not await tiers.has(NODE, 3)


async def test_tier_that_is_only_claimed_costs_one_look_a_second() -> None:
    chain = Chain()
    tiers = ChainTiers(chain, clock=lambda: chain.now)
    for tick in range(40):
        chain.now = tick / 10
        assert not await tiers.has(NODE, 1)
    assert len(chain.reads) == 4
