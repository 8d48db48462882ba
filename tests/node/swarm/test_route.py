"""Routes against brute force, and what is said when there is none."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.node.swarm.chain import PROFILE, Node, facts
from tests.node.swarm.test_records import stored

from plait.protocol.ids import Address, Hash
from plait_node.swarm.errors import NoRouteError
from plait_node.swarm.records import NodeRecord, node_body, node_record
from plait_node.swarm.route import Blames, Needs, cost_s, plan, room_of, with_times

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


def brute_force(records: list[NodeRecord], needs: Needs, delays: dict[Address, float]) -> float | None:
    best: float | None = None
    for size in range(1, BLOCKS + 1):
        for path in itertools.permutations(records, size):
            tiles = [0, *(each.facts.last for each in path)]
            right = (
                [each.facts.first for each in path] == tiles[:-1]
                and tiles[-1] == needs.blocks
                and len({each.facts.profile for each in path}) == 1
                and path[0].facts.profile in needs.profiles
                and all(each.facts.free_steps >= needs.room for each in path)
                and not any(each.owner in needs.excluded for each in path)
                and sum(each.facts.price * (each.facts.last - each.facts.first) for each in path) <= needs.max_price
            )
            if right:
                total = sum(cost_s(each, hop_s=needs.hop_s, blamed_s=delays.get(each.owner, 0.0)) for each in path)
                best = total if best is None else min(best, total)
    return best


@settings(max_examples=60, deadline=None)
@given(
    swarms(),
    st.integers(0, 120),
    st.sampled_from([(PROFILE,), (PROFILE, OTHER), (OTHER,)]),
    st.sets(st.integers(0, 8), max_size=2),
    st.integers(0, 8),
)
def test_plan_any_swarm_is_as_good_as_brute_force(
    records: list[NodeRecord], max_price: int, profiles: tuple[Hash, ...], excluded: set[int], blamed: int
) -> None:
    needs = Needs(
        blocks=BLOCKS,
        profiles=profiles,
        room=100,
        max_price=max_price,
        excluded=frozenset(Address(owner.to_bytes(20, "big")) for owner in excluded),
    )
    delays = {Address(blamed.to_bytes(20, "big")): 1.0}
    small = records[:6]
    expected = brute_force(with_times([each for each in small if each.owner not in needs.excluded]), needs, delays)
    if expected is None:
        with pytest.raises(NoRouteError):
            plan(small, needs, blamed_s=delays)
        return
    route = plan(small, needs, blamed_s=delays)
    assert route.step_s == pytest.approx(expected)
    assert [stage.first for stage in route.stages()] == [0, *(stage.last for stage in route.stages()[:-1])]
    assert route.stages()[-1].last == BLOCKS
    assert route.price == sum(stage.price * (stage.last - stage.first) for stage in route.stages()) <= max_price


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
    assert [each.owner for each in plan([head, fresh, slow], NEEDS).records] == [head.owner, fresh.owner]


def test_blames_half_life_halves_and_adds_up() -> None:
    blames, owner = Blames(), Address(bytes(20))
    blames.add(owner, now=0)
    blames.add(owner, now=60)
    assert blames.weight(owner, now=60) == pytest.approx(1.5)
    assert blames.weight(owner, now=120) == pytest.approx(0.75)
