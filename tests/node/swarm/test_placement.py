"""Where a joining node helps most, against every other place that it could take."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from tests.node.swarm.chain import PROFILE
from tests.node.swarm.test_route import OTHER, record

from plait_node.swarm.placement import Bottleneck, bottleneck, choose_blocks
from plait_node.swarm.records import NodeRecord

BLOCKS = 6


def stage(first: int, last: int, *, owner: int = 0, block_ms: int = 10) -> NodeRecord:
    return record(first, last, owner=owner, step_micros=block_ms * 1_000 * (last - first))


@st.composite
def stages(draw: st.DrawFn) -> list[NodeRecord]:
    found: list[NodeRecord] = []
    for owner in range(draw(st.integers(0, 8))):
        first = draw(st.integers(0, BLOCKS - 1))
        last = draw(st.integers(first + 1, BLOCKS))
        found.append(stage(first, last, owner=owner, block_ms=draw(st.integers(1, 40))))
    return found


def flow_by_linear_programme(records: list[NodeRecord]) -> float:
    """Return steps a second of whole routes, from the definition: what enters a boundary leaves it."""
    if not records:
        return 0.0
    balance = np.zeros((BLOCKS - 1, len(records)))
    gain = np.zeros(len(records))
    for at, each in enumerate(records):
        for boundary, sign in ((each.facts.first, -1.0), (each.facts.last, 1.0)):
            if 0 < boundary < BLOCKS:
                balance[boundary - 1, at] += sign
        gain[at] = -1.0 if each.facts.first == 0 else 0.0
    bounds = [(0, 1e6 / each.facts.step_micros) for each in records]
    return -float(linprog(gain, A_eq=balance, b_eq=np.zeros(BLOCKS - 1), bounds=bounds).fun)


def test_bottleneck_names_the_weakest_blocks_and_their_rate() -> None:
    swarm = [stage(0, 2), stage(2, 6, owner=1), stage(2, 4, owner=2)]
    assert bottleneck(swarm, BLOCKS, PROFILE) == Bottleneck(
        first=4, last=6, steps_s=pytest.approx(25), routed_steps_s=pytest.approx(25)
    )


def test_bottleneck_blocks_that_nobody_serves_have_rate_0() -> None:
    assert bottleneck([stage(0, 2)], BLOCKS, PROFILE) == Bottleneck(first=2, last=6, steps_s=0.0, routed_steps_s=0.0)
    assert bottleneck([], BLOCKS, PROFILE) == Bottleneck(first=0, last=6, steps_s=0.0, routed_steps_s=0.0)
    assert bottleneck([stage(0, 6)], BLOCKS, OTHER).steps_s == 0.0


def test_bottleneck_stages_that_do_not_follow_one_another_route_nothing() -> None:
    found = bottleneck([stage(0, 4), stage(3, 6, owner=1)], BLOCKS, PROFILE)
    assert found.steps_s == pytest.approx(25)
    assert found.routed_steps_s == 0.0


@settings(max_examples=60, deadline=None)
@given(stages())
def test_bottleneck_any_swarm_routes_what_the_linear_programme_says(records: list[NodeRecord]) -> None:
    found = bottleneck(records, BLOCKS, PROFILE)
    assert found.routed_steps_s == pytest.approx(flow_by_linear_programme(records), abs=1e-6)
    assert found.routed_steps_s <= found.steps_s + 1e-9


@settings(max_examples=20, deadline=None)
@given(stages(), st.integers(1, BLOCKS), st.integers(1, 40))
def test_choose_any_swarm_no_other_place_raises_it_more(records: list[NodeRecord], room: int, block_ms: int) -> None:
    chosen = choose_blocks(records, BLOCKS, PROFILE, room=room, block_s=block_ms / 1e3)
    before = flow_by_linear_programme(records)
    raised = {
        (first, last): flow_by_linear_programme([*records, stage(first, last, owner=99, block_ms=block_ms)])
        for first in range(BLOCKS)
        for last in range(first + 1, min(first + room, BLOCKS) + 1)
    }
    assert chosen.routed_steps_s == pytest.approx(raised[chosen.first, chosen.last], abs=1e-6)
    assert chosen.routed_steps_s == pytest.approx(max(raised.values()), abs=1e-6)
    assert chosen.gained_steps_s == pytest.approx(chosen.routed_steps_s - before, abs=1e-6)


def test_choose_empty_swarm_is_tiled_node_by_node() -> None:
    swarm: list[NodeRecord] = []
    for owner in range(3):
        chosen = choose_blocks(swarm, BLOCKS, PROFILE, room=2, block_s=0.01)
        swarm.append(stage(chosen.first, chosen.last, owner=owner))
    assert sorted((each.facts.first, each.facts.last) for each in swarm) == [(0, 2), (2, 4), (4, 6)]
    assert bottleneck(swarm, BLOCKS, PROFILE).routed_steps_s == pytest.approx(50)


def test_choose_gap_smaller_than_the_room_is_filled_exactly() -> None:
    chosen = choose_blocks([stage(0, 3), stage(5, 6, owner=1)], BLOCKS, PROFILE, room=4, block_s=0.01)
    assert (chosen.first, chosen.last, chosen.moved) == (3, 5, 2)


def test_choose_swarm_that_measured_nothing_counts_as_fast_as_the_node_that_joins() -> None:
    swarm = [record(first, first + 2, owner=first, step_micros=0) for first in (0, 2, 4)]
    chosen = choose_blocks([*swarm, record(0, 2, owner=9, step_micros=0)], BLOCKS, PROFILE, room=6, block_s=0.01)
    assert (chosen.first, chosen.last) == (2, 6)
    assert chosen.routed_steps_s == pytest.approx(50 + 25)


def test_choose_weakest_blocks_are_doubled() -> None:
    swarm = [stage(0, 2), stage(2, 4, owner=1, block_ms=40), stage(4, 6, owner=2)]
    chosen = choose_blocks(swarm, BLOCKS, PROFILE, room=2, block_s=0.04)
    assert (chosen.first, chosen.last) == (2, 4)
    assert chosen.gained_steps_s == pytest.approx(12.5)


def test_choose_of_equal_places_takes_the_blocks_that_it_holds() -> None:
    swarm = [stage(first, first + 2, owner=first) for first in (0, 2, 4)]
    blank = choose_blocks(swarm, BLOCKS, PROFILE, room=2, block_s=0.01)
    again = choose_blocks(swarm, BLOCKS, PROFILE, room=2, block_s=0.01, held={4, 5}, sizes=[10] * BLOCKS)
    assert (blank.first, blank.last, blank.moved) == (0, 2, 2)
    assert (again.first, again.last, again.moved) == (4, 6, 0)


def test_choose_joins_leave_everybody_where_they_are_and_never_lower_the_rate() -> None:
    swarm: list[NodeRecord] = []
    reached = 0.0
    for owner in range(25):
        chosen = choose_blocks(swarm, BLOCKS, PROFILE, room=1 + owner % 5, block_s=0.01 * (1 + owner % 3))
        assert chosen.routed_steps_s >= reached - 1e-9
        reached = chosen.routed_steps_s
        swarm.append(stage(chosen.first, chosen.last, owner=owner, block_ms=10 * (1 + owner % 3)))
        assert bottleneck(swarm, BLOCKS, PROFILE).routed_steps_s == pytest.approx(reached)
    fair = sum(1 / (0.01 * (1 + owner % 3)) for owner in range(25)) / BLOCKS  # no placement does better
    assert reached > 0.8 * fair


@pytest.mark.parametrize("wrong", [{"room": 0}, {"block_s": 0.0}, {"sizes": [1]}])
def test_choose_without_room_time_or_sizes_is_refused(wrong: dict[str, object]) -> None:
    given_ = {"room": 1, "block_s": 0.01} | wrong
    with pytest.raises(ValueError, match="must be above 0"):
        choose_blocks([], BLOCKS, PROFILE, **given_)  # type: ignore[arg-type]
