"""Routes against brute force, and what is said when there is none."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.node.swarm.chain import PROFILE, Node, facts
from tests.node.swarm.test_records import stored

from plait.protocol.ids import Address, Hash
from plait_node.swarm.completion import NOTHING_KNOWN, Costs, Known, Needs, block_micros
from plait_node.swarm.errors import NoRouteError
from plait_node.swarm.records import NodeRecord, node_body, node_record
from plait_node.swarm.route import Blames, plan, room_of

BLOCKS = 6
OTHER = Hash(b"\x55" * 32)


def record(first: int, last: int, *, owner: int = 0, **changes: object) -> NodeRecord:
    template = node_record(stored(_NODE, node_body(facts(first, last))))
    named = Address(owner.to_bytes(20, "big"))
    return replace(template, owner=named, facts=replace(template.facts, **changes))  # type: ignore[arg-type]


_NODE = Node()
NEEDS = Needs(blocks=BLOCKS, profiles=(PROFILE,), room=100, max_price=10**9)


@st.composite
def swarms(draw: st.DrawFn) -> list[NodeRecord]:
    found: list[NodeRecord] = []
    for owner in range(draw(st.integers(0, 9))):
        first = draw(st.integers(0, BLOCKS - 1))
        last = draw(st.integers(first + 1, BLOCKS + 1))
        found.append(
            record(
                first,
                last,
                owner=owner,
                step_micros=draw(st.integers(0, 40)) * 1_000,
                queue=draw(st.integers(0, 2)),
                price=draw(st.integers(0, 30)),
                free_steps=draw(st.sampled_from([50, 100, 200])),
                profile=draw(st.sampled_from([PROFILE, PROFILE, OTHER])),
            )
        )
    return found


def routes(records: list[NodeRecord], needs: Needs) -> Iterator[tuple[NodeRecord, ...]]:
    """Every order of every choice of stages that may serve the job, in the plainest way to say it."""
    for size in range(1, BLOCKS + 1):
        for path in itertools.permutations(records, size):
            tiles = [0, *(each.facts.last for each in path)]
            if (
                [each.facts.first for each in path] == tiles[:-1]
                and tiles[-1] == needs.blocks
                and len({each.facts.profile for each in path}) == 1
                and path[0].facts.profile in needs.profiles
                and all(each.facts.free_steps >= needs.room for each in path)
                and not any(each.owner in needs.excluded for each in path)
                and sum(each.facts.price * (each.facts.last - each.facts.first) for each in path) <= needs.max_price
            ):
                yield path


def job_s(path: Sequence[NodeRecord], costs: Costs, needs: Needs, delays: dict[Address, float]) -> float:
    edges = [costs.edge(each, delays.get(each.owner, 0.0)) for each in path]
    return sum(edge.add_s for edge in edges) + (needs.chunks - 1) * max(edge.chunk_s for edge in edges)


def named(owner: int) -> Address:
    return Address(owner.to_bytes(20, "big"))


_KNOWLEDGE = st.builds(
    Known,
    rtt_s=st.dictionaries(st.integers(0, 8).map(named), st.floats(0, 0.2)),
    factors=st.dictionaries(st.integers(0, 8).map(named), st.floats(0.1, 20)),
    doubt=st.sampled_from([0.0, 0.5]),
    risks=st.dictionaries(st.integers(0, 8).map(named), st.floats(0, 1)),
    risk=st.sampled_from([0.0, 0.1]),
)


_JOBS = st.builds(
    Needs,
    blocks=st.just(BLOCKS),
    profiles=st.sampled_from([(PROFILE,), (PROFILE, OTHER), (OTHER,)]),
    room=st.just(100),
    max_price=st.integers(0, 120),
    excluded=st.frozensets(st.integers(0, 8).map(named), max_size=2),
    prompt=st.integers(0, 900),
    answer=st.integers(1, 200),
    chunk=st.sampled_from([0, 16, 128]),
)


@settings(max_examples=150, deadline=None)
@given(swarms(), _JOBS, st.integers(0, 8), _KNOWLEDGE)
def test_plan_any_swarm_is_as_good_as_brute_force(
    records: list[NodeRecord], needs: Needs, blamed: int, known: Known
) -> None:
    delays, small = {named(blamed): 1.0}, records[:6]
    usable = [each for each in small if each.owner not in needs.excluded]
    costs = Costs(needs, known, typical=block_micros(each.facts for each in usable))
    expected = min((job_s(path, costs, needs, delays) for path in routes(small, needs)), default=None)
    if expected is None:
        with pytest.raises(NoRouteError):
            plan(small, needs, blamed_s=delays, known=known)
        return
    route = plan(small, needs, blamed_s=delays, known=known)
    assert route.job_s == pytest.approx(expected)
    announced = {each.owner: each for each in small}  # a route's records have guessed times, in whole microseconds
    path = [announced[each.owner] for each in route.records]
    assert route.job_s == pytest.approx(job_s(path, costs, needs, delays))
    assert [stage.first for stage in route.stages()] == [0, *(stage.last for stage in route.stages()[:-1])]
    assert route.stages()[-1].last == BLOCKS
    assert route.price == sum(stage.price * (stage.last - stage.first) for stage in route.stages()) <= needs.max_price


def test_plan_price_limit_forces_the_slower_of_two() -> None:
    fast, slow = record(0, 6, owner=1, step_micros=1, price=100), record(0, 6, owner=2, step_micros=9, price=10)
    assert plan([fast, slow], NEEDS).records == (fast,)
    assert plan([fast, slow], replace(NEEDS, max_price=599)).records == (slow,)


def test_plan_blocks_missing_names_them() -> None:
    with pytest.raises(NoRouteError, match=r"blocks 2-3, 5-5 of 6") as caught:
        plan([record(0, 2), record(4, 5)], NEEDS)
    assert caught.value.missing == ((2, 4), (5, 6))


def test_plan_nobody_at_all_names_every_block() -> None:
    with pytest.raises(NoRouteError, match="blocks 0-5 of 6"):
        plan([], NEEDS)


def test_plan_no_room_says_how_much_was_asked() -> None:
    swarm = [record(0, 3, owner=1), record(3, 6, owner=2, free_steps=99)]
    with pytest.raises(NoRouteError, match="blocks 3-5 has room for 100 steps"):
        plan(swarm, NEEDS)
    assert room_of(swarm, NEEDS) == 99


def test_plan_too_dear_says_what_the_soonest_asks() -> None:
    with pytest.raises(NoRouteError, match=r"more than 5 base units.*asks 60"):
        plan([record(0, 6, price=10)], replace(NEEDS, max_price=5))


def test_plan_overlapping_stages_that_do_not_tile_is_said() -> None:
    with pytest.raises(NoRouteError, match="no stages follow one another"):
        plan([record(0, 4, owner=1), record(3, 6, owner=2)], NEEDS)


def test_plan_blamed_stage_gives_way_to_its_spare_and_returns_later() -> None:
    holder, spare = record(0, 6, owner=1, step_micros=1_000), record(0, 6, owner=2, step_micros=2_000)
    blames = Blames()
    assert plan([holder, spare], NEEDS, blamed_s=blames.seconds(now=0)).records == (holder,)
    blames.add(holder.owner, now=0)
    assert plan([holder, spare], NEEDS, blamed_s=blames.seconds(now=1)).records == (spare,)
    assert plan([holder], NEEDS, blamed_s=blames.seconds(now=1)).records == (holder,)
    assert plan([holder, spare], NEEDS, blamed_s=blames.seconds(now=3_600)).records == (holder,)


def test_plan_unmeasured_stage_counts_as_typical_not_as_instant() -> None:
    fresh, fast, slow = (record(3, 6, owner=owner, step_micros=time) for owner, time in ((1, 0), (2, 1), (3, 9)))
    head = record(0, 3, owner=4, step_micros=5)

    assert plan([head, fresh, fast], NEEDS).records == (head, fast)
    route = plan([head, fresh, slow], NEEDS)
    assert [each.owner for each in route.records] == [head.owner, fresh.owner]
    assert route.guessed == {fresh.owner}
    assert route.records[1].facts.step_micros == 7  # the median, which was reckoned with


def test_blames_half_life_halves_and_adds_up() -> None:
    blames, owner = Blames(), Address(bytes(20))
    blames.add(owner, now=0)
    blames.add(owner, now=60)
    assert blames.weight(owner, now=60) == pytest.approx(1.5)
    assert blames.weight(owner, now=120) == pytest.approx(0.75)


def least_s(swarm: list[NodeRecord], needs: Needs) -> float:
    """Return the optimum by plain dynamic programming over boundary and money spent; infinite for none."""
    costs = Costs(needs, NOTHING_KNOWN, typical=0)
    best: dict[tuple[int, int], float] = {(0, 0): 0.0}
    for edge in sorted((costs.edge(each) for each in swarm), key=lambda edge: edge.first):
        reached = [(spent, time_s) for (boundary, spent), time_s in best.items() if boundary == edge.first]
        for spent, time_s in reached:
            key = (edge.last, spent + edge.price)
            best[key] = min(best.get(key, math.inf), time_s + edge.add_s)
    ends = [
        time_s for (boundary, spent), time_s in best.items() if boundary == needs.blocks and spent <= needs.max_price
    ]
    return min(ends, default=math.inf)


def test_plan_large_swarm_under_a_price_is_exact() -> None:
    draw = random.Random(7)
    blocks, tight = 10, 0
    for _ in range(30):
        firsts = [draw.randrange(blocks) for _ in range(60)]
        swarm = [
            record(
                first,
                first + draw.randint(1, min(4, blocks - first)),
                owner=owner,
                step_micros=draw.randint(1, 90_000),
                price=draw.randint(1, 9),
            )
            for owner, first in enumerate(firsts)
        ]
        needs = replace(NEEDS, blocks=blocks, max_price=draw.randint(15, 60))
        expected = least_s(swarm, needs)
        if expected == math.inf:
            with pytest.raises(NoRouteError):
                plan(swarm, needs)
            continue
        assert plan(swarm, needs).job_s == pytest.approx(expected)
        tight += plan(swarm, replace(needs, max_price=10**9)).job_s < expected - 1e-9
    assert tight >= 10  # the price did bind


def test_plan_more_stages_than_a_job_may_name_takes_fewer_and_slower_ones() -> None:
    blocks = 70
    singles = [record(at, at + 1, owner=at, step_micros=1, price=1) for at in range(blocks)]
    pairs = [record(at, at + 10, owner=100 + at, step_micros=90_000, price=1) for at in range(0, blocks, 10)]
    needs = replace(NEEDS, blocks=blocks)

    with pytest.raises(NoRouteError):
        plan(singles, needs)
    route = plan([*singles, *pairs], needs)

    assert len(route.records) == 61
    assert sum(each.facts.last - each.facts.first == 10 for each in route.records) == 1


def test_plan_long_prompt_in_chunks_avoids_the_stage_that_holds_up_the_pipeline() -> None:
    even = [record(0, 3, owner=1, step_micros=50_000), record(3, 6, owner=2, step_micros=50_000)]
    uneven = [record(0, 2, owner=3, step_micros=5_000), record(2, 6, owner=4, step_micros=90_000)]
    long = replace(NEEDS, prompt=2_048, answer=2)

    assert plan([*even, *uneven], replace(long, prompt=32, answer=100)).records == tuple(uneven)
    assert plan([*even, *uneven], long).records == tuple(uneven)  # one after the other: their sum counts
    assert plan([*even, *uneven], replace(long, chunk=128)).records == tuple(even)


def test_plan_near_stage_beats_a_faster_one_far_away() -> None:
    near, far = record(0, 6, owner=1, step_micros=30_000), record(0, 6, owner=2, step_micros=10_000)
    job = replace(NEEDS, prompt=10, answer=50)
    trips = Known(rtt_s={near.owner: 0.001, far.owner: 0.150})

    assert plan([near, far], job).records == (far,)
    route = plan([near, far], job, known=trips)
    assert route.records == (near,)
    assert route.step_s == pytest.approx(0.031)


def test_plan_measured_factor_outweighs_the_announced_speed() -> None:
    honest, liar = record(0, 6, owner=1, step_micros=20_000), record(0, 6, owner=2, step_micros=2_000)

    assert plan([honest, liar], NEEDS).records == (liar,)
    assert plan([honest, liar], NEEDS, known=Known(factors={liar.owner: 15.0})).records == (honest,)


def test_plan_doubted_announcement_is_taken_for_nearer_to_the_usual() -> None:
    stages = [record(0, 6, owner=owner, step_micros=micros) for owner, micros in enumerate([100, 10_000, 10_000])]
    route = plan(stages, NEEDS, known=Known(doubt=0.5))

    assert route.records == (stages[0],)
    assert route.step_s == pytest.approx(0.001 + NEEDS.hop_s)


def test_plan_risk_costs_what_a_failure_would_take() -> None:
    safe, risky = record(0, 6, owner=1, step_micros=11_000), record(0, 6, owner=2, step_micros=10_000)
    short, long = replace(NEEDS, prompt=10, answer=20), replace(NEEDS, prompt=10, answer=2_000)
    past = Known(risks={risky.owner: 0.2})

    assert plan([safe, risky], short, known=past).records == (safe,)
    assert plan([safe, risky], long, known=past).records == (risky,)


def test_plan_queue_is_waited_for() -> None:
    busy, idle = record(0, 6, owner=1, step_micros=4_000, queue=3), record(0, 6, owner=2, step_micros=9_000)
    assert plan([busy, idle], NEEDS).records == (idle,)
