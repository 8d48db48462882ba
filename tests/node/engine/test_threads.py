"""How many threads a stage takes when it is to find out by itself."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.model.tiny_families import write_family

from plait_model.manifest_build import build_manifest
from plait_node.engine import Lane, StageEngine
from plait_node.engine.native import NativeBlocks
from plait_node.engine.threads import fewest_of_fast, timed, usable_cores


@pytest.fixture
def _threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({1: 1.0}, 1),
        ({1: 1.0, 2: 0.5}, 2),
        ({1: 1.0, 2: 1.3}, 1),
        ({1: 1.0, 2: 0.96}, 1),  # within 5 %
        ({1: 1.06, 2: 1.0}, 2),
        ({1: 2.0, 2: 1.04, 3: 1.2, 4: 1.0}, 2),
        ({4: 1.0, 1: 1.0, 2: 1.0}, 1),
        ({1: 0.0, 2: 0.0}, 1),
    ],
)
def test_fewest_of_fast_prefers_fewer_threads_that_are_near(seconds: dict[int, float], chosen: int) -> None:
    assert fewest_of_fast(seconds) == chosen


def test_timed_takes_the_median_of_five_rounds_after_one_to_warm_up() -> None:
    now = [0.0]
    ran: list[int] = []
    slow = {(1, 0): 50.0, (1, 3): 9.0}  # the warm-up, and a busy moment

    def run(threads: int) -> None:
        now[0] += slow.get((threads, ran.count(threads)), 1.0 / threads)
        ran.append(threads)

    assert timed(run, [1, 2], clock=lambda: now[0]) == {1: pytest.approx(1.0), 2: pytest.approx(0.5)}
    assert ran == [1, 2] * 6


def test_usable_cores_are_at_most_eight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert usable_cores() == 8
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5}, raising=False)
    assert usable_cores() == 1


@pytest.mark.usefixtures("_threads_as_before")
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(("first", "last"), [(0, 2), (2, 4)])
def test_engine_measures_keeps_the_choice_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, *, compiled: bool, first: int, last: int
) -> None:
    folder = write_family(tmp_path, "llama")
    built = build_manifest(folder)
    caplog.set_level(logging.INFO, logger="plait_node.engine.threads")

    lane = Lane(threads=0, compiled=compiled)
    engine = StageEngine(folder, built.manifest, first=first, last=last, kv_steps=64, tensors=built.tensors, lane=lane)

    assert 1 <= engine.lane.threads <= usable_cores()
    assert torch.get_num_threads() == engine.lane.threads
    if isinstance(engine.blocks, NativeBlocks):
        assert engine.blocks.threads == engine.lane.threads
    (line,) = caplog.messages
    assert line.startswith(f"threads measured threads={engine.lane.threads} pass_micros=1:")
