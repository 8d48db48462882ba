from __future__ import annotations

import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.protocol.ids import Hash, group_id
from plait_node.broker.groups import MOST_TIER, PACES, ROOMS, ClassMeasure, device_class, groups_of

rooms = st.integers(0, 200_000)
steps = st.floats(0.0001, 10) | st.just(float("inf"))


@pytest.mark.parametrize(
    ("room", "step_s", "name"),
    [
        (0, 0.01, "cpu-short-fast"),
        (4_095, 0.05, "cpu-short-fast"),
        (4_096, 0.051, "cpu-medium-steady"),
        (16_384, 0.2, "cpu-long-steady"),
        (10**6, 0.21, "cpu-long-slow"),
        (5_000, float("inf"), "cpu-medium-slow"),
    ],
)
def test_class_follows_room_and_step_time(room: int, step_s: float, name: str) -> None:
    assert device_class("cpu", room=room, step_s=step_s) == name


@given(rooms, steps, st.sampled_from(sorted(ROOMS)), st.sampled_from(sorted(PACES)))
def test_class_is_left_only_when_its_border_is_clearly_passed(room: int, step_s: float, size: str, pace: str) -> None:
    fresh = device_class("cpu", room=room, step_s=step_s)
    kept = device_class("cpu", room=room, step_s=step_s, before=f"cpu-{size}-{pace}")
    if kept != fresh:
        near_room = any(least and abs(room - least) <= 0.1 * least + 1 for least in ROOMS.values())
        near_pace = any(most < 1e9 and abs(step_s - most) <= 0.1 * most + 1e-9 for most in PACES.values())
        assert near_room or near_pace


@given(rooms, steps, st.integers(0, MOST_TIER))
def test_groups_that_a_key_opens_hold_whatever_a_worker_becomes(room: int, step_s: float, tier: int) -> None:
    model = Hash(bytes(32))
    group = group_id(model, device_class("cpu", room=room, step_s=step_s), tier, 0)
    assert group in groups_of(model, "cpu")


def test_groups_of_another_model_or_device_are_others() -> None:
    models = [Hash(secrets.token_bytes(32)) for _ in range(2)]
    sets = [set(groups_of(model, device)) for model in models for device in ("cpu", "cuda")]
    assert all(len(each) == (MOST_TIER + 1) * len(ROOMS) * len(PACES) for each in sets)
    assert len(set().union(*sets)) == sum(len(each) for each in sets)


def test_class_survives_what_running_jobs_take_of_room_and_pace() -> None:
    measure = ClassMeasure("cpu")
    assert measure.observe(0.0, room=20_000, step_s=0.04) == "cpu-long-fast"
    assert measure.observe(300.0, room=1_000, step_s=0.4) == "cpu-long-fast"
    assert measure.observe(599.0, room=1_000, step_s=0.4) == "cpu-long-fast"
    assert measure.observe(1_000.0, room=1_000, step_s=0.4) == "cpu-short-slow"
