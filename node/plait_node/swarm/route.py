"""Routes: stages that tile a model's blocks exactly, the soonest done first.

Exact over the graph of block boundaries: at each boundary all routes so far that no other beats in
both time and price are kept, so a price limit costs no optimality.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING

from plait.protocol.messages import MAX_STAGES, Stage
from plait_node.swarm.errors import NoRouteError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from plait.protocol.ids import Address, Hash
    from plait_node.swarm.records import NodeRecord

# What one blame adds to a node's expected step time; it halves every minute.
_BLAME_S = 10.0
_HALF_LIFE_S = 60.0
_FORGOTTEN = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a job asks of a route."""

    blocks: int
    profiles: tuple[Hash, ...]  # in the payer's order; a tie goes to the earlier
    room: int  # steps of KV room on every stage
    max_price: int  # base units per 1,000,000 steps over all blocks
    hop_s: float = 0.001  # expected time between two stages
    excluded: frozenset[Address] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Stages in order, under one profile."""

    records: tuple[NodeRecord, ...]
    profile: Hash
    step_s: float  # expected time of one decode step through all stages
    price: int  # base units per 1,000,000 steps over all blocks

    def stages(self) -> tuple[Stage, ...]:
        """Return the route as a job record names it."""
        return tuple(
            Stage(node=each.owner, first=each.facts.first, last=each.facts.last, price=each.facts.price)
            for each in self.records
        )


class Blames:
    """Who failed lately; a blame fades, so that a node that came back is tried again."""

    def __init__(self) -> None:
        """Start with nobody blamed."""
        self._weights: dict[Address, tuple[float, float]] = {}

    def add(self, owner: Address, *, now: float) -> None:
        """Blame a node once more."""
        self._weights[owner] = (self.weight(owner, now=now) + 1.0, now)

    def weight(self, owner: Address, *, now: float) -> float:
        """Return the blames of a node, each worth half of what it was a minute ago."""
        weight, since = self._weights.get(owner, (0.0, now))
        return weight * 0.5 ** (max(0.0, now - since) / _HALF_LIFE_S)

    def seconds(self, *, now: float) -> dict[Address, float]:
        """Return what each blamed node's expected step time grows by; forget the faded."""
        weights = {owner: self.weight(owner, now=now) for owner in self._weights}
        self._weights = {owner: self._weights[owner] for owner, weight in weights.items() if weight > _FORGOTTEN}
        return {owner: weights[owner] * _BLAME_S for owner in self._weights}


@dataclass(frozen=True, slots=True)
class _Label:
    """One way to a boundary."""

    time_s: float
    price: int
    path: tuple[NodeRecord, ...]

    def order(self) -> tuple[float, int, int, tuple[bytes, ...]]:
        return (self.time_s, self.price, len(self.path), tuple(record.owner for record in self.path))


def plan(records: Iterable[NodeRecord], needs: Needs, *, blamed_s: Mapping[Address, float] | None = None) -> Route:
    """Return the route expected to be done first; raise `NoRouteError` naming what is missing."""
    usable = with_times([record for record in records if record.owner not in needs.excluded])
    delays = blamed_s or {}
    best: Route | None = None
    for profile in needs.profiles:
        offered = [record for record in usable if record.facts.profile == profile]
        roomy = [record for record in offered if record.facts.free_steps >= needs.room]
        label = _shortest(roomy, needs, delays)
        if label is not None and (best is None or label.time_s < best.step_s):
            best = Route(records=label.path, profile=profile, step_s=label.time_s, price=label.price)
    if best is None:
        raise _explain(usable, needs, delays)
    return best


def room_of(records: Iterable[NodeRecord], needs: Needs) -> int:
    """Return the most steps of KV room that any route under these needs has; 0 when there is no route."""
    known = list(records)
    sizes = sorted({record.facts.free_steps for record in known}, reverse=True)
    for size in sizes:
        try:
            plan(known, Needs(blocks=needs.blocks, profiles=needs.profiles, room=size, max_price=needs.max_price))
        except NoRouteError:
            continue
        return size
    return 0


def with_times(records: Sequence[NodeRecord]) -> list[NodeRecord]:
    """Return the records with the median time of a block in place of times that no stage has measured yet."""
    measured = [each.facts.step_micros / _blocks(each) for each in records if each.facts.step_micros]
    if not measured:
        return list(records)
    typical = median(measured)
    return [each if each.facts.step_micros else _guessed(each, typical) for each in records]


def _blocks(record: NodeRecord) -> int:
    return record.facts.last - record.facts.first


def _guessed(record: NodeRecord, block_micros: float) -> NodeRecord:
    return replace(record, facts=replace(record.facts, step_micros=round(block_micros * _blocks(record))))


def cost_s(record: NodeRecord, *, hop_s: float, blamed_s: float) -> float:
    """Return a stage's expected time for one step: jobs in its queue share it."""
    return record.facts.step_micros / 1e6 * (1 + record.facts.queue) + hop_s + blamed_s


def _shortest(records: Sequence[NodeRecord], needs: Needs, delays: Mapping[Address, float]) -> _Label | None:
    starting: defaultdict[int, list[NodeRecord]] = defaultdict(list)
    for record in records:
        if record.facts.last <= needs.blocks:
            starting[record.facts.first].append(record)
    fronts: dict[int, list[_Label]] = {0: [_Label(0.0, 0, ())]}
    for boundary in sorted({*starting, *(record.facts.last for record in records)}):
        labels = fronts.get(boundary, [])
        for record in starting[boundary] if labels else []:
            fronts[record.facts.last] = _front(
                [*fronts.get(record.facts.last, []), *_extend(labels, record, needs, delays)]
            )
    ends = fronts.get(needs.blocks, [])
    return min(ends, key=_Label.order, default=None)


def _extend(
    labels: Sequence[_Label], record: NodeRecord, needs: Needs, delays: Mapping[Address, float]
) -> list[_Label]:
    facts = record.facts
    time_s = cost_s(record, hop_s=needs.hop_s, blamed_s=delays.get(record.owner, 0.0))
    price = facts.price * (facts.last - facts.first)
    return [
        _Label(label.time_s + time_s, label.price + price, (*label.path, record))
        for label in labels
        if label.price + price <= needs.max_price and len(label.path) < MAX_STAGES
    ]


def _front(labels: list[_Label]) -> list[_Label]:
    """Keep the labels that no other beats in time, price and number of stages together."""
    kept: list[_Label] = []
    for label in sorted(labels, key=_Label.order):
        if not any(other.price <= label.price and len(other.path) <= len(label.path) for other in kept):
            kept.append(label)
    return kept


def _explain(records: Sequence[NodeRecord], needs: Needs, delays: Mapping[Address, float]) -> NoRouteError:
    right = [record for record in records if record.facts.profile in needs.profiles]
    missing = _gaps(right, needs.blocks)
    if missing:
        ranges = ", ".join(f"{first}-{last - 1}" for first, last in missing)
        return NoRouteError(
            f"no active stage serves blocks {ranges} of {needs.blocks} under an allowed profile: "
            "wait for one to join, or start one there",
            missing=missing,
        )
    roomy = [record for record in right if record.facts.free_steps >= needs.room]
    missing = _gaps(roomy, needs.blocks)
    if missing:
        ranges = ", ".join(f"{first}-{last - 1}" for first, last in missing)
        return NoRouteError(
            f"no stage of blocks {ranges} has room for {needs.room} steps: shorten the prompt or ask for fewer tokens",
            missing=missing,
        )
    unlimited = Needs(blocks=needs.blocks, profiles=needs.profiles, room=needs.room, max_price=1 << 128)
    costs = [
        label.price
        for profile in needs.profiles
        if (label := _shortest([each for each in roomy if each.facts.profile == profile], unlimited, delays))
    ]
    if costs:
        return NoRouteError(
            f"every route costs more than {needs.max_price} base units per 1,000,000 steps; the soonest asks "
            f"{min(costs)}: raise the price asked of payers, or wait for cheaper stages"
        )
    return NoRouteError(
        f"all {needs.blocks} blocks are served, but no stages follow one another from block 0 to the end: "
        "wait for a stage that fills the gap between two others"
    )


def _gaps(records: Iterable[NodeRecord], blocks: int) -> tuple[tuple[int, int], ...]:
    gaps: list[tuple[int, int]] = []
    reached = 0
    for first, last in sorted((record.facts.first, record.facts.last) for record in records):
        if min(first, blocks) > reached:
            gaps.append((reached, min(first, blocks)))
        reached = max(reached, last)
    if reached < blocks:
        gaps.append((reached, blocks))
    return tuple(gaps)
