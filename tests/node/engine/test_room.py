"""The account of steps over jobs and cached windows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plait.protocol.ids import Hash, keccak
from plait_node.engine.errors import NoRoomError
from plait_node.engine.room import KvRoom, KvShape

SHAPE = KvShape(layers=2, heads=1, head_dim=2)


def key(number: int, lineage: int = 0) -> Hash:
    return keccak(bytes([lineage, number]))


def keys(count: int, lineage: int = 0) -> list[Hash]:
    return [key(number, lineage) for number in range(count)]


def filled(room: KvRoom, job: Hash, steps: int, value: float = 1.0) -> None:
    room.open(job, steps)
    room.job(job).rows.fill_(value)
    room.job(job).inputs.add(np.zeros(steps, dtype=np.int64))
    room.job(job).length = steps


def test_take_returns_the_values_that_were_kept() -> None:
    room = KvRoom(SHAPE, total=200, prefix_limit=100)
    filled(room, key(90), 33, value=7.0)
    assert room.keep(key(90), keys(3)) == 2
    room.close(key(90))
    room.open(key(91), 40)

    assert room.take(key(91), keys(3)) == 32
    assert torch.equal(room.job(key(91)).rows[..., :32, :], torch.full((2, 2, 1, 1, 32, 2), 7.0))


def test_take_needs_the_lineage_from_its_start() -> None:
    room = KvRoom(SHAPE, total=200, prefix_limit=100)
    filled(room, key(90), 32)
    room.keep(key(90), keys(2))
    room.open(key(91), 32)

    assert room.held([key(1)]) == 1  # a key stands for its whole lineage, so position is the caller's to respect
    assert room.take(key(91), [key(7), key(1)]) == 0


def test_take_stops_at_the_job_room() -> None:
    room = KvRoom(SHAPE, total=200, prefix_limit=100)
    filled(room, key(90), 48)
    room.keep(key(90), keys(3))
    room.open(key(91), 40)

    assert room.take(key(91), keys(3)) == 32


def test_open_evicts_cached_windows_least_recently_used_first() -> None:
    room = KvRoom(SHAPE, total=96, prefix_limit=96)
    filled(room, key(90), 32)
    room.keep(key(90), keys(2))
    room.keep(key(90), keys(2, lineage=1))
    room.close(key(90))
    assert room.cached == 64
    room.open(key(91), 64)

    assert room.cached == 32
    assert room.held(keys(2)) == 0
    assert room.held(keys(2, lineage=1)) == 2
    assert room.evicted() == keys(2)[::-1]
    assert room.evicted() == []


def test_open_evicts_the_end_of_a_lineage_before_its_beginning() -> None:
    room = KvRoom(SHAPE, total=128, prefix_limit=96)
    filled(room, key(90), 64)
    room.keep(key(90), keys(4))
    room.close(key(90))
    room.open(key(91), 80)
    assert room.held(keys(4)) == 3
    assert room.take(key(91), keys(4)) == 48
    room.close(key(91))
    room.open(key(92), 96)

    assert room.held(keys(4)) == 2
    assert room.evicted() == [key(3), key(2)]


def test_keep_never_drops_the_window_it_builds_on() -> None:
    room = KvRoom(SHAPE, total=200, prefix_limit=32)
    filled(room, key(90), 64)

    assert room.keep(key(90), keys(4)) == 2
    assert room.held(keys(4)) == 2


def test_keep_of_another_lineage_replaces_the_oldest() -> None:
    room = KvRoom(SHAPE, total=200, prefix_limit=32)
    filled(room, key(90), 32)
    room.keep(key(90), keys(2))

    assert room.keep(key(90), keys(2, lineage=1)) == 2
    assert room.held(keys(2)) == 0
    assert room.evicted() == keys(2)[::-1]


@pytest.mark.parametrize("asked", [0, -1, 101])
def test_open_out_of_range_says_the_limit(asked: int) -> None:
    room = KvRoom(SHAPE, total=100, prefix_limit=50)

    with pytest.raises(NoRoomError) as caught:
        room.open(key(1), asked)

    assert caught.value.limit == 100


@given(st.lists(st.tuples(st.sampled_from(["open", "keep", "close"]), st.integers(0, 4), st.integers(1, 80))))
def test_room_of_any_calls_is_never_overcommitted(calls: list[tuple[str, int, int]]) -> None:
    room = KvRoom(SHAPE, total=160, prefix_limit=96)
    held: dict[int, int] = {}
    for call, job, steps in calls:
        if call == "open" and job not in held and steps <= 160 - sum(held.values()):
            filled(room, key(job), steps)
            held[job] = steps
        elif call == "keep" and job in held:
            room.keep(key(job), keys(5, lineage=job))
        elif call == "close":
            room.close(key(job))
            held.pop(job, None)
        assert room.free == 160 - sum(held.values())
        assert room.cached <= min(96, room.free)
