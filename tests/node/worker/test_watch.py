"""A stage that takes rows and keeps them is found, by its own word or by its neighbours', and replaced."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.node.worker.test_answers import note
from tests.node.worker.test_failures import PROMPT, slow_down, spare_for
from tests.node.worker.world import until, world

from plait.protocol.pb import stage_pb2
from plait_node.worker.watch import Watch


def at(came: int, given: int) -> stage_pb2.At:
    return stage_pb2.At(came=came, given=given)


def watching() -> Watch:
    """Return a watch over three stages that decode a token each 0.1 s."""
    watch = Watch(stages=3, expected_s=0.1, first_s=0.0, now=0.0)
    for step in range(1, 5):
        watch.moved(step * 0.1)
    return watch


def told(watch: Watch, places: Sequence[tuple[int, int]]) -> list[int | None]:
    return [watch.told(place, at(*steps)) for place, steps in enumerate(places)]


def test_watch_asks_when_a_step_takes_five_times_what_it_should() -> None:
    watch = watching()
    assert not watch.asks(0.8)
    assert watch.asks(0.95)
    assert not watch.asks(1.0)


def test_watch_blames_the_first_stage_that_holds_rows_at_three_looks() -> None:
    watch = watching()
    for look, now in enumerate((1.0, 1.6, 2.2)):
        assert watch.asks(now)
        blamed = told(watch, [(9, 9), (9, 8), (8, 7)])
        assert blamed == [None, None, 1 if look == 2 else None]


def test_watch_forgives_a_stage_that_is_quick_again() -> None:
    watch, now = watching(), 0.4
    for _ in range(6):
        assert watch.asks(now + 0.6)
        assert told(watch, [(9, 8), (8, 8), (8, 8)]) == [None] * 3
        watch.moved(now + 0.6)
        watch.moved(now + 0.7)
        now += 0.7


def test_watch_lets_a_long_prompt_go_on_that_moves() -> None:
    watch = Watch(stages=2, expected_s=0.1, first_s=0.5, now=0.0)
    for look in range(1, 9):
        assert watch.asks(look * 2.6)
        assert told(watch, [(900, look * 64), (look * 64, look * 64)]) == [None, None]


def test_watch_blames_who_stands_still_in_a_prompt() -> None:
    watch = Watch(stages=2, expected_s=0.1, first_s=0.5, now=0.0)
    blamed = []
    for look in range(1, 5):
        assert watch.asks(look * 2.6)
        blamed.append(told(watch, [(900, 900), (900, 128)])[1])
    assert blamed == [None, None, None, 1]


def slow_from_the_first() -> Watch:
    """Return a watch over three stages that should decode a token each 0.01 s, and take one each second."""
    watch = Watch(stages=3, expected_s=0.01, first_s=0.0, now=0.0)
    for step in range(1, 5):
        watch.moved(float(step))
    return watch


def test_watch_blames_who_alone_was_slow_from_the_first_step_on() -> None:
    watch, blamed = slow_from_the_first(), list[int | None]()
    for step in range(4, 10):
        assert watch.asks(step + 0.4)
        blamed.append(told(watch, [(9, 9), (9, 8), (8, 8)])[2])
        watch.moved(step + 1.0)
    assert blamed == [None, None, None, None, 1, 1]


def test_watch_blames_nobody_where_all_were_slow_from_the_first_step_on() -> None:
    watch, places = slow_from_the_first(), [(9, 9)] * 3
    for step in range(4, 40):
        assert watch.asks(step + 0.4)
        holder = step % 4  # of four looks one finds the rows at the worker
        held = [(9, 8) if place == holder else each for place, each in enumerate(places)]
        assert told(watch, held) == [None] * 3
        watch.moved(step + 1.0)


def in_a_run(step_s: float, holders: Sequence[int | None]) -> list[int | None]:
    """Decode a token each 0.01 s, then one each `step_s`; return who is blamed at each look, held by these in turn."""
    watch, now = Watch(stages=3, expected_s=0.01, first_s=0.0, now=0.0), 0.0
    for _ in range(100):
        watch.moved(now := now + 0.01)
    blamed, waiting = list[int | None](), list(holders)
    for _ in range(80):
        if waiting and watch.asks(now + step_s - 0.01):
            holder = waiting.pop(0)
            blamed.append(told(watch, [(9, 8) if place == holder else (9, 9) for place in range(3)])[2])
        watch.moved(now := now + step_s)
    return blamed


def test_watch_blames_who_is_twenty_times_slower_though_no_step_is_long() -> None:
    assert in_a_run(0.2, [1] * 9)[:6] == [None, None, None, None, 1, 1]
    assert in_a_run(0.06, [1] * 9)[4] == 1  # one stage of several, at that
    assert in_a_run(0.2, [1, 1, 0, 1, 1, 1])[:6] == [None, None, None, None, None, 1]


def test_watch_blames_nobody_in_a_run_that_all_of_them_share_or_that_is_not_slow() -> None:
    assert in_a_run(0.2, [0, 1, 2, None] * 3) == [None] * 12
    assert in_a_run(0.04, [1] * 9) == []


def test_watch_forgets_a_run_that_ended() -> None:
    watch, now = Watch(stages=3, expected_s=0.01, first_s=0.0, now=0.0), 0.0
    for _ in range(30):
        watch.moved(now := now + 0.01)
        watch.moved(now := now + 0.01)
        assert not watch.asks(now + 0.19)
        watch.moved(now := now + 0.2)


async def test_stage_that_loses_a_little_at_each_step_is_replaced_inside_the_answer(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        slow = made.net.nodes[1]
        spare = await spare_for(made, slow)
        made.choice = note("plain")
        asked = await made.asking_long(PROMPT, max_tokens=90)
        running = asyncio.create_task(asked.run())
        await until(lambda: len(asked.verifier.ids) >= 25)
        slow_down(slow, 0.25)
        assert await running == asked.expected(90)
        assert asked.job is not None
        assert asked.job.message.route[1].node == spare.identity.owner


async def test_slow_stage_is_replaced_inside_the_answer(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        slow = made.net.nodes[1]
        spare = await spare_for(made, slow)
        asked = await made.asking_long(PROMPT, max_tokens=60)
        running = asyncio.create_task(asked.run())
        await until(lambda: len(asked.verifier.ids) >= 5)
        slow_down(slow, 0.7)
        assert await running == asked.expected(60)
        assert asked.job is not None
        assert asked.job.message.route[1].node == spare.identity.owner


@pytest.mark.parametrize("pause_s", [0.25, 0.7])
async def test_slow_stage_that_nobody_can_replace_keeps_its_job(tmp_path: Path, pause_s: float) -> None:
    async with world(tmp_path) as made:
        made.choice = note("plain")
        asked = await made.asking_long(PROMPT, max_tokens=40)
        running = asyncio.create_task(asked.run())
        await until(lambda: len(asked.verifier.ids) >= 20)
        slow_down(made.net.nodes[1], pause_s)
        assert await running == asked.expected(40)
        assert asked.events.count("job") == 1


async def test_stage_whose_engine_hangs_is_replaced_inside_the_answer(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        stuck = made.net.nodes[2]
        spare = await spare_for(made, stuck)
        asked = await made.asking_long(PROMPT, max_tokens=60)
        slow_down(made.net.nodes[0], 0.02)
        running = asyncio.create_task(asked.run())
        await until(lambda: len(asked.verifier.ids) >= 5)
        stuck.engine.gate = threading.Event()
        assert await running == asked.expected(60)
        stuck.engine.gate.set()
        assert asked.job is not None
        assert asked.job.message.route[2].node == spare.identity.owner


async def test_stages_that_are_all_slow_keep_their_job(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        for node in list(made.net.nodes):
            await spare_for(made, node)
        for node in made.net.nodes[:3]:
            slow_down(node, 0.08)
        made.choice = note("plain")
        asked = await made.asking_long(PROMPT, max_tokens=20)
        assert await asked.run() == asked.expected(20)
        assert asked.events.count("job") == 1
