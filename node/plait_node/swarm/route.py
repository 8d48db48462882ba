"""Routes: stages that tile a model's blocks exactly, the one first whose job is expected to be done the soonest.

What is expected of a stage is in `completion`, the exact search over the graph of block boundaries in `paths`.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from plait.protocol.messages import MAX_STAGES, Stage
from plait_node.swarm.completion import NOTHING_KNOWN, Costs, Edge, Known, Needs, block_micros
from plait_node.swarm.errors import NoRouteError
from plait_node.swarm.paths import Limits, soonest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from plait.protocol.ids import Address, Hash
    from plait_node.swarm.records import NodeRecord

# What one blame adds to a node's expected step time; it halves every minute.
_BLAME_S = 10.0
_HALF_LIFE_S = 60.0
_FORGOTTEN = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Stages in order, under one profile."""

    records: tuple[NodeRecord, ...]
    profile: Hash
    step_s: float  # expected time of one decode step through all stages, hops, queues and blames included
    price: int  # base units per 1,000,000 steps over all blocks
    job_s: float = 0.0  # expected time of the whole job
    guessed: frozenset[Address] = frozenset()  # stages that announce no time; their records have the usual one

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The blocks `[first, last)` to tile, and what the rest of the route takes already."""

    first: int
    last: int
    stages: int = 0  # of the rest of the route
    price: int = 0  # of the rest, base units per 1,000,000 steps over its blocks
    taken: frozenset[Address] = frozenset()  # nodes that may not serve here


def plan(
    records: Iterable[NodeRecord],
    needs: Needs,
    *,
    blamed_s: Mapping[Address, float] | None = None,
    known: Known = NOTHING_KNOWN,
) -> Route:
    """Return the route expected to be done first; raise `NoRouteError` naming what is missing.

    `blamed_s` adds to a node's step, `known` is what the worker measured itself.
    """
    return plan_span(records, needs, Span(first=0, last=needs.blocks), blamed_s=blamed_s, known=known)


def plan_span(
    records: Iterable[NodeRecord],
    needs: Needs,
    span: Span,
    *,
    blamed_s: Mapping[Address, float] | None = None,
    known: Known = NOTHING_KNOWN,
) -> Route:
    """Return the stages that tile `span` and are expected to be done first; raise `NoRouteError`."""
    barred = needs.excluded | span.taken
    usable = [record for record in records if record.owner not in barred]
    typical = block_micros(each.facts for each in usable)
    costs = Costs(needs, known, typical=typical)
    delays = blamed_s or {}
    best: Route | None = None
    for profile in needs.profiles:
        edges = [
            costs.edge(each, delays.get(each.owner, 0.0))
            for each in usable
            if each.facts.profile == profile and each.facts.free_steps >= needs.room
        ]
        found = soonest(edges, span.first, span.last, _limits(needs, span))
        if found is not None and (best is None or _job_s(found, needs) < best.job_s):
            best = _route(found, needs, profile, typical=typical)
    if best is None:
        raise _explain(usable, needs, span)
    return best


def room_of(records: Iterable[NodeRecord], needs: Needs) -> int:
    """Return the most steps of KV room that any route under these needs has; 0 when there is no route."""
    known = list(records)
    sizes = sorted({record.facts.free_steps for record in known})
    anybody = replace(needs, excluded=frozenset())

    def too_much(size: int) -> bool:
        try:
            plan(known, replace(anybody, room=size))
        except NoRouteError:
            return True
        return False

    fitting = bisect_left(sizes, True, key=too_much)
    return sizes[fitting - 1] if fitting else 0


def _limits(needs: Needs, span: Span) -> Limits:
    return Limits(price=needs.max_price - span.price, stages=MAX_STAGES - span.stages, repeats=needs.chunks - 1)


def _job_s(edges: Sequence[Edge], needs: Needs) -> float:
    return sum(edge.add_s for edge in edges) + (needs.chunks - 1) * max(edge.chunk_s for edge in edges)


def _route(edges: Sequence[Edge], needs: Needs, profile: Hash, *, typical: float) -> Route:
    return Route(
        records=tuple(_timed(edge.record, typical) for edge in edges),
        profile=profile,
        step_s=sum(edge.step_s for edge in edges),
        price=sum(edge.price for edge in edges),
        job_s=_job_s(edges, needs),
        guessed=frozenset(edge.record.owner for edge in edges if not edge.record.facts.step_micros),
    )


def _timed(record: NodeRecord, typical: float) -> NodeRecord:
    facts = record.facts
    if facts.step_micros or not typical:
        return record
    return replace(record, facts=replace(facts, step_micros=round(typical * (facts.last - facts.first))))


def _explain(records: Sequence[NodeRecord], needs: Needs, span: Span) -> NoRouteError:
    right = [record for record in records if record.facts.profile in needs.profiles]
    missing = _gaps(right, span)
    if missing:
        ranges = ", ".join(f"{first}-{last - 1}" for first, last in missing)
        return NoRouteError(
            f"no active stage serves blocks {ranges} of {needs.blocks} under an allowed profile: "
            "wait for one to join, or start one there",
            missing=missing,
        )
    roomy = [record for record in right if record.facts.free_steps >= needs.room]
    missing = _gaps(roomy, span)
    if missing:
        ranges = ", ".join(f"{first}-{last - 1}" for first, last in missing)
        return NoRouteError(
            f"no stage of blocks {ranges} has room for {needs.room} steps: shorten the prompt or ask for fewer tokens",
            missing=missing,
        )
    limits = Limits(price=1 << 128, stages=MAX_STAGES - span.stages, repeats=0)
    costs = Costs(needs, NOTHING_KNOWN, typical=block_micros(each.facts for each in roomy))
    prices: list[int] = []
    for profile in needs.profiles:
        edges = [costs.edge(each) for each in roomy if each.facts.profile == profile]
        found = soonest(edges, span.first, span.last, limits)
        prices += [sum(edge.price for edge in found)] if found else []
    if prices:
        return NoRouteError(
            f"every route costs more than {needs.max_price - span.price} base units per 1,000,000 steps; the soonest "
            f"asks {min(prices)}: raise the price asked of payers, or wait for cheaper stages"
        )
    return NoRouteError(
        f"blocks {span.first}-{span.last - 1} are all served, but no stages follow one another from the first to the "
        "last: wait for a stage that fills the gap between two others"
    )


def _gaps(records: Iterable[NodeRecord], span: Span) -> tuple[tuple[int, int], ...]:
    gaps: list[tuple[int, int]] = []
    reached = span.first
    for first, last in sorted((record.facts.first, record.facts.last) for record in records):
        if min(first, span.last) > reached:
            gaps.append((reached, min(first, span.last)))
        reached = max(reached, last)
    if reached < span.last:
        gaps.append((reached, span.last))
    return tuple(gaps)
