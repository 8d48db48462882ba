"""Who holds KV room: never more than there is, and who is set aside goes on where it was."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.model.tiny import write_tiny
from tests.node.engine.scheduled import PROMPT, Ids, alone, answer, engine_of, name, parts, scheduling, turns

from plait_model.manifest_build import build_manifest
from plait_node.engine import EngineError, Lane, StageEngine, StepInput, StepOutput
from plait_node.engine.errors import NoRoomError, StepOrderError, UnknownJobError
from plait_node.engine.scheduler import Scheduler


async def test_open_is_never_more_than_there_is() -> None:
    async with scheduling(kv_steps=100) as scheduler:
        await scheduler.open(name(1), 60, priority=0)
        with pytest.raises(NoRoomError) as caught:
            await scheduler.open(name(2), 60, priority=0)
        assert caught.value.limit == 40
        await scheduler.open(name(3), 40, priority=0)
        assert scheduler.load.free_steps == 0


async def test_open_of_higher_priority_sets_the_lowest_aside_and_it_goes_on_where_it_was() -> None:
    async with scheduling(kv_steps=120) as scheduler:
        for at, priority in ((1, 2.0), (2, 1.0)):
            await scheduler.open(name(at), 60, priority=priority)
        first = await answer(scheduler, name(2), PROMPT, 5)
        await scheduler.open(name(3), 60, priority=3.0)
        assert (scheduler.load.aside, scheduler.load.free_steps) == (1, 0)
        work = Ids(job=name(2), step=44, ids=first[-1:], whole=True)
        going_on = asyncio.create_task(parts(scheduler, work))
        assert await answer(scheduler, name(3), PROMPT[:9], 5) == alone(PROMPT[:9], 5)
        assert not going_on.done()
        await scheduler.close(name(3))
        ((_, _, drawn),) = await going_on
        assert [*first, drawn] == alone(PROMPT, 6)
        assert scheduler.load.aside == 0
        # It was set aside once: nobody does it to it again.
        await scheduler.close(name(1))
        await scheduler.open(name(4), 60, priority=3.0)
        with pytest.raises(NoRoomError):
            await scheduler.open(name(5), 60, priority=3.0)


async def test_open_of_a_newcomer_waits_for_who_was_set_aside_long_ago() -> None:
    clock = [0.0]
    async with scheduling(kv_steps=100, clock=clock) as scheduler:
        await scheduler.open(name(1), 60, priority=0)
        await scheduler.open(name(2), 60, priority=1)
        with pytest.raises(NoRoomError):  # of the same priority as the one set aside, which goes first
            await scheduler.open(name(3), 40, priority=0)
        await scheduler.open(name(3), 20, priority=1)
        clock[0] = 10.0
        with pytest.raises(NoRoomError):
            await scheduler.open(name(4), 20, priority=1)
        await scheduler.close(name(2))
        assert scheduler.load.aside == 0
        assert await answer(scheduler, name(1), PROMPT, 3) == alone(PROMPT, 3)


@pytest.mark.parametrize("step", [0, 7, 40])
async def test_rollback_while_set_aside_counts(step: int) -> None:
    async with scheduling(kv_steps=100) as scheduler:
        await scheduler.open(name(1), 60, priority=0)
        await parts(scheduler, Ids(job=name(1), step=0, ids=PROMPT))
        await scheduler.open(name(2), 60, priority=1)
        await scheduler.rollback(name(1), step)
        with pytest.raises(StepOrderError):
            await scheduler.rollback(name(1), step + 1)
        assert await scheduler.keep_prefix(name(1), []) == 0
        await scheduler.close(name(2))
        made = await parts(scheduler, Ids(job=name(1), step=step, ids=PROMPT[step:][:5] or [1]))
        assert made[-1][2] == alone((PROMPT[:step] + PROMPT[step:][:5]) if step < 40 else [*PROMPT, 1], 1)[0]


async def test_replay_that_fails_ends_its_job_alone() -> None:
    async with scheduling(kv_steps=100) as scheduler:
        engine = engine_of(scheduler)
        await scheduler.open(name(1), 60, priority=0)
        await parts(scheduler, Ids(job=name(1), step=0, ids=PROMPT))
        await scheduler.open(name(2), 60, priority=1)
        honest = engine.step

        def step(inputs: Sequence[StepInput]) -> list[StepOutput | EngineError]:
            changed = [replace(given, start=99) if given.job == name(1) else given for given in inputs]
            return honest(changed)

        engine.step = step  # type: ignore[method-assign]
        waiting = asyncio.create_task(parts(scheduler, Ids(job=name(1), step=40, ids=[1], whole=True)))
        await turns()
        await scheduler.close(name(2))
        with pytest.raises(StepOrderError):
            await waiting
        with pytest.raises(UnknownJobError):
            await parts(scheduler, Ids(job=name(1), step=40, ids=[1], whole=True))
        await scheduler.close(name(1))
        assert scheduler.load.free_steps == 100


async def test_run_over_a_real_engine_answers_as_it_does_alone_also_after_a_pause(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf")
    manifest, lane = build_manifest(path).manifest, Lane(compiled=False)
    engine, other = (
        StageEngine(path, manifest, first=0, last=manifest.blocks, kv_steps=120, lane=lane) for _ in range(2)
    )
    scheduler = Scheduler(engine)
    prompts = [PROMPT[at : at + 22] for at in (0, 3, 6)]
    for at, priority in enumerate((1.0, 0.0)):
        await scheduler.open(name(at), 60, priority=priority)
    first, second = await asyncio.gather(*(answer(scheduler, name(at), prompts[at], 8) for at in range(2)))
    await scheduler.open(name(2), 60, priority=2.0)
    assert scheduler.load.aside == 1
    work = Ids(job=name(1), step=29, ids=second[-1:], whole=True)
    waiting = asyncio.create_task(parts(scheduler, work))
    third = await answer(scheduler, name(2), prompts[2], 9)
    await scheduler.close(name(2))
    ((_, _, drawn),) = await waiting
    scheduler.stop()
    for at, ids in enumerate((first, [*second, drawn], third)):
        other.open(name(at), 60)
        made: list[int] = []
        while len(made) < len(ids):
            rows = np.array(made[-1:] or prompts[at], dtype=np.int64)
            logits = other.step_one(name(at), len(prompts[at]) + len(made) - 1 if made else 0, rows).logits
            assert logits is not None
            made.append(int(logits[-1].argmax()))
        assert ids == made
        other.close(name(at))
