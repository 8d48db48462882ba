"""Others take over a lost stage's blocks, and only those."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.node.swarm.chain import PROFILE
from tests.node.swarm.test_route import BLOCKS, NEEDS, OTHER, named, record, swarms

from plait.protocol.messages import Stage
from plait_node.swarm.completion import Known
from plait_node.swarm.errors import NoRouteError
from plait_node.swarm.mending import mend
from plait_node.swarm.records import NodeRecord
from plait_node.swarm.route import plan

HEAD, LOST, TAIL = record(0, 2, owner=1), record(2, 4, owner=2), record(4, 6, owner=3)
ROUTE = plan([HEAD, LOST, TAIL], NEEDS).stages()


def test_mend_spare_that_holds_the_same_blocks_takes_over() -> None:
    spare, slower = record(2, 4, owner=4), record(2, 4, owner=5, step_micros=99_000)
    assert mend([HEAD, LOST, TAIL, slower, spare], ROUTE, LOST.owner, NEEDS) == (spare,)


def test_mend_two_smaller_stages_tile_the_blocks_in_order() -> None:
    halves = record(2, 3, owner=4), record(3, 4, owner=5)
    assert mend([halves[1], halves[0], HEAD], ROUTE, LOST.owner, NEEDS) == halves


@pytest.mark.parametrize("lost", [HEAD, TAIL])
def test_mend_first_and_last_stage_are_replaced_too(lost: NodeRecord) -> None:
    spare = replace(lost, owner=named(9))
    assert mend([HEAD, LOST, TAIL, spare], ROUTE, lost.owner, NEEDS) == (spare,)


def test_mend_only_stage_of_a_route_is_replaced() -> None:
    alone, spare = record(0, 6, owner=1), record(0, 6, owner=2)
    assert mend([alone, spare], plan([alone], NEEDS).stages(), alone.owner, NEEDS) == (spare,)
    assert mend([alone, spare], [], alone.owner, NEEDS) == (spare,)


@pytest.mark.parametrize(
    "useless",
    [
        record(2, 4, owner=2),  # the lost one, announced still
        record(1, 4, owner=4),
        record(2, 5, owner=4),
        record(2, 3, owner=4),
        record(2, 4, owner=1),  # serves another stage of this route
        record(2, 4, owner=4, profile=OTHER),
        record(2, 4, owner=4, free_steps=99),
        record(2, 4, owner=6),  # excluded
        record(2, 4, owner=4, price=10**9),
    ],
)
def test_mend_nobody_fit_is_no_route(useless: NodeRecord) -> None:
    needs = replace(NEEDS, excluded=frozenset({named(6)}))
    with pytest.raises(NoRouteError):
        mend([HEAD, TAIL, useless], ROUTE, LOST.owner, needs)


def test_mend_blocks_that_nobody_serves_are_named() -> None:
    with pytest.raises(NoRouteError, match="blocks 2-3 of 6") as caught:
        mend([HEAD, LOST, TAIL], ROUTE, LOST.owner, NEEDS)
    assert caught.value.missing == ((2, 4),)


def test_mend_price_limit_is_that_of_the_whole_route() -> None:
    cheap, dear = record(2, 4, owner=4, price=10, step_micros=90_000), record(2, 4, owner=5, price=11)
    kept = [Stage(node=HEAD.owner, first=0, last=2, price=10), Stage(node=TAIL.owner, first=4, last=6, price=10)]

    assert mend([cheap, dear], kept, LOST.owner, replace(NEEDS, max_price=62)) == (dear,)
    assert mend([cheap, dear], kept, LOST.owner, replace(NEEDS, max_price=61)) == (cheap,)
    with pytest.raises(NoRouteError, match=r"more than 19 base units.*asks 2[02]"):
        mend([cheap, dear], kept, LOST.owner, replace(NEEDS, max_price=59))


def test_mend_blamed_and_slow_spares_come_last() -> None:
    spares = [record(2, 4, owner=owner) for owner in (4, 5, 6)]
    found = mend(spares, ROUTE, LOST.owner, NEEDS, blamed_s={named(4): 10.0}, known=Known(factors={named(5): 20.0}))
    assert found == (spares[2],)


def test_mend_kept_stages_with_two_gaps_or_none_are_refused() -> None:
    with pytest.raises(ValueError, match="not the one range"):
        mend([LOST], ROUTE[1:2], named(9), NEEDS)
    with pytest.raises(ValueError, match="not the one range"):
        mend([LOST], ROUTE, named(9), NEEDS)


@settings(max_examples=60, deadline=None)
@given(swarms(), st.integers(0, 5))
def test_mend_any_swarm_result_makes_a_whole_route_and_keeps_the_rest(records: list[NodeRecord], which: int) -> None:
    needs = replace(NEEDS, profiles=(PROFILE,))
    cuts = itertools.pairwise([0, 2, 3, BLOCKS])
    records = [*records, *(record(first, last, owner=20 + first, step_micros=30_000) for first, last in cuts)]
    route = plan(records, needs)
    lost = route.records[which % len(route.records)]
    try:
        found = mend(records, route.stages(), lost.owner, needs)
    except NoRouteError:
        return
    others = [each for each in route.records if each != lost]
    whole = sorted([*others, *found], key=lambda each: each.facts.first)
    assert lost not in found
    assert [each.facts.first for each in whole] == [0, *(each.facts.last for each in whole[:-1])]
    assert whole[-1].facts.last == BLOCKS
    assert len({each.owner for each in whole}) == len(whole)
    assert plan(whole, needs).records == tuple(whole)
