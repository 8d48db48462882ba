"""Many jobs over one engine: batched, bounded, fair, and each with its own errors."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest
from tests.node.engine.scheduled import PROMPT, Ids, alone, answer, engine_of, name, parts, scheduling, turns

from plait.protocol.ids import Hash
from plait_node.engine import EngineError, StepInput, StepOutput
from plait_node.engine.errors import NoMemoryError, StepOrderError, UnknownJobError


async def test_run_prompt_comes_in_parts_that_follow_each_other() -> None:
    async with scheduling() as scheduler:
        await scheduler.open(name(1), 100, priority=0)
        made = await parts(scheduler, Ids(job=name(1), step=0, ids=PROMPT))
        assert [start for start, _, _ in made] == [sum(count for _, count, _ in made[:at]) for at in range(len(made))]
        assert sum(count for _, count, _ in made) == len(PROMPT)
        assert made[0][1] == 16
        assert scheduler.load.rows_per_second > 64
        assert scheduler.load.pass_rows.total == len(PROMPT)


async def test_run_many_jobs_share_passes_and_answer_as_alone() -> None:
    async with scheduling() as scheduler:
        prompts = [PROMPT[at : at + 20 + at] for at in range(6)]
        for at in range(6):
            await scheduler.open(name(at), 100, priority=-at)
        answers = await asyncio.gather(*(answer(scheduler, name(at), ids, 12) for at, ids in enumerate(prompts)))
        assert answers == [alone(ids, 12) for ids in prompts]
        passes = engine_of(scheduler).passes
        assert max(map(len, passes)) == 6
        assert all(len({job for job, _, _ in rows}) == len(rows) for rows in passes)
        assert scheduler.load.pass_jobs.count == len(passes)


async def test_run_waits_a_moment_for_a_job_that_is_on_its_way_back() -> None:
    async with scheduling() as scheduler:
        engine = engine_of(scheduler)
        for at in range(2):
            await scheduler.open(name(at), 100, priority=0)
            await answer(scheduler, name(at), PROMPT[:7], 1)
        honest = engine.step

        def slow(inputs: Sequence[StepInput]) -> list[StepOutput | EngineError]:
            threading.Event().wait(0.2)
            return honest(inputs)

        engine.step = slow  # type: ignore[method-assign]
        engine.passes.clear()

        async def decode(job: Hash, hops: int) -> None:
            for step in range(7, 14):
                await parts(scheduler, Ids(job=job, step=step, ids=[1], whole=True))
                for _ in range(hops):
                    await asyncio.sleep(0)  # on its way over the loop while the other one is back already

        await asyncio.gather(decode(name(0), 1), decode(name(1), 40))
        # One by one until it is known how long they take, and the one that is ahead ends alone.
        assert sum(len(rows) == 2 for rows in engine.passes) >= 5


async def test_run_takes_as_many_decoding_jobs_as_are_to_go_together() -> None:
    async with scheduling() as scheduler:
        engine = engine_of(scheduler)
        for at in range(5):
            await scheduler.open(name(at), 100, priority=0)
            await answer(scheduler, name(at), PROMPT[:7], 1)
        engine.passes.clear()
        scheduler._gathering.wait_s = lambda *_, **__: 0.0  # type: ignore[method-assign]
        scheduler._gathering.most = 2
        works = [parts(scheduler, Ids(job=name(at), step=7, ids=[1], whole=True)) for at in range(5)]
        await asyncio.gather(*works)
        assert [len(rows) for rows in engine.passes] == [2, 2, 1]


@pytest.mark.parametrize(("off_cpu", "expected"), [(False, [16, 32, 64]), (True, [16] * 7)])
async def test_run_passes_are_bounded_by_what_they_compute_not_by_waiting_for_a_core(
    *, off_cpu: bool, expected: list[int]
) -> None:
    """A thread that has no core is asleep, as it is here; one that has a device compute for it sleeps as well."""
    async with scheduling() as scheduler:
        engine = engine_of(scheduler)
        engine.off_cpu = off_cpu
        honest = engine.step

        def slow(inputs: Sequence[StepInput]) -> list[StepOutput | EngineError]:
            threading.Event().wait(0.3)
            return honest(inputs)

        engine.step = slow  # type: ignore[method-assign]
        await scheduler.open(name(1), 200, priority=0)
        made = await parts(scheduler, Ids(job=name(1), step=0, ids=(PROMPT * 3)[:112]))
        assert [count for _, count, _ in made] == expected


async def test_run_newcomer_joins_while_a_long_prompt_is_computed() -> None:
    async with scheduling(kv_steps=1_000) as scheduler:
        await scheduler.open(name(1), 500, priority=0)
        await scheduler.open(name(2), 100, priority=0)
        long = scheduler.run(Ids(job=name(1), step=0, ids=PROMPT * 12))
        await anext(long)
        assert await answer(scheduler, name(2), PROMPT[:5], 3) == alone(PROMPT[:5], 3)
        rest = [part.made[1] async for part in long]
        assert sum(rest) + 16 == len(PROMPT) * 12
        assert rest[-1]


async def test_run_errors_are_their_jobs_own() -> None:
    async with scheduling() as scheduler:
        for at in range(5):
            await scheduler.open(name(at), 100, priority=0)
        works = [
            Ids(job=name(0), step=0, ids=PROMPT[:9]),
            Ids(job=name(1), step=0, ids=PROMPT[:9], broken="given"),
            Ids(job=name(2), step=0, ids=PROMPT[:9], broken="made"),
            Ids(job=name(3), step=7, ids=PROMPT[:9]),
            Ids(job=name(9), step=0, ids=PROMPT[:9]),
        ]
        engine_of(scheduler).gate = threading.Event()
        running = [asyncio.create_task(parts(scheduler, work)) for work in works]
        await turns()
        engine_of(scheduler).gate.set()
        good, *bad = await asyncio.gather(*running, return_exceptions=True)
        assert good == [(0, 9, alone(PROMPT[:9], 1)[0])]
        assert [type(error) for error in bad] == [ValueError, ValueError, StepOrderError, UnknownJobError]


async def test_run_engine_that_raises_for_one_job_serves_the_others() -> None:
    async with scheduling() as scheduler:
        engine = engine_of(scheduler)
        honest = engine.step

        def step(inputs: Sequence[StepInput]) -> list[StepOutput | EngineError]:
            if any(given.job == name(2) for given in inputs):
                raise ZeroDivisionError("a bug")
            return honest(inputs)

        engine.step = step  # type: ignore[method-assign]
        for at in range(5):
            await scheduler.open(name(at), 100, priority=0)
        works = (answer(scheduler, name(at), PROMPT[:9], 3) for at in range(5))
        answers = await asyncio.gather(*works, return_exceptions=True)
        assert isinstance(answers.pop(2), ZeroDivisionError)
        assert answers == [alone(PROMPT[:9], 3)] * 4


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory"), RuntimeError("out of memory")]
)
async def test_run_without_memory_for_a_large_pass_makes_smaller_ones(error: Exception) -> None:
    async with scheduling() as scheduler:
        engine = engine_of(scheduler)
        honest = engine.step

        def step(inputs: Sequence[StepInput]) -> list[StepOutput | EngineError]:
            if sum(len(given.rows) for given in inputs) > 20:
                raise error
            return honest(inputs)

        engine.step = step  # type: ignore[method-assign]
        for at in range(4):
            await scheduler.open(name(at), 200, priority=0)
        answers = await asyncio.gather(*(answer(scheduler, name(at), PROMPT * 2, 3) for at in range(4)))
        assert answers == [alone(PROMPT * 2, 3)] * 4


async def test_run_without_any_memory_refuses_the_prompt_and_decodes_go_on() -> None:
    async with scheduling() as scheduler:
        engine = engine_of(scheduler)
        honest = engine.step

        def step(inputs: Sequence[StepInput]) -> list[StepOutput | EngineError]:
            if any(len(given.rows) > 1 for given in inputs):
                raise MemoryError
            return honest(inputs)

        for at in range(2):
            await scheduler.open(name(at), 100, priority=0)
        first = await answer(scheduler, name(0), PROMPT[:9], 1)
        engine.step = step  # type: ignore[method-assign]
        refused = asyncio.create_task(parts(scheduler, Ids(job=name(1), step=0, ids=PROMPT)))
        ((_, _, drawn),) = await parts(scheduler, Ids(job=name(0), step=9, ids=first, whole=True))
        assert [*first, drawn] == alone(PROMPT[:9], 2)
        with pytest.raises(NoMemoryError):
            await refused


async def test_run_cancelled_waiter_is_dropped_from_the_queue() -> None:
    async with scheduling() as scheduler:
        engine = engine_of(scheduler)
        for at in range(3):
            await scheduler.open(name(at), 100, priority=0)
        engine.gate = threading.Event()
        first = asyncio.create_task(parts(scheduler, Ids(job=name(0), step=0, ids=PROMPT[:9])))
        await turns()
        second = asyncio.create_task(parts(scheduler, Ids(job=name(1), step=0, ids=PROMPT[:9])))
        await turns()
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        engine.gate.set()
        await first
        await parts(scheduler, Ids(job=name(2), step=0, ids=PROMPT[:9]))
        assert [job for job, _, _ in engine.calls] == [name(0), name(2)]


async def test_close_ends_what_waits_and_frees_the_room_after_the_pass_in_hand() -> None:
    async with scheduling() as scheduler:
        engine = engine_of(scheduler)
        await scheduler.open(name(1), 400, priority=0)
        engine.gate = threading.Event()
        running = asyncio.create_task(parts(scheduler, Ids(job=name(1), step=0, ids=PROMPT * 5)))
        await turns()
        closing = asyncio.create_task(scheduler.close(name(1)))
        await turns()
        with pytest.raises(UnknownJobError):
            await running
        engine.gate.set()
        await closing
        assert scheduler.load.free_steps == 1_000
        assert len(engine.passes) == 1


async def test_stop_ends_what_waits() -> None:
    async with scheduling() as scheduler:
        engine_of(scheduler).gate = threading.Event()
        await scheduler.open(name(1), 60, priority=0)
        running = asyncio.create_task(parts(scheduler, Ids(job=name(1), step=0, ids=PROMPT)))
        await turns()
        closing = asyncio.create_task(scheduler.rollback(name(1), 0))
        await turns()
        scheduler.stop()
        engine_of(scheduler).gate.set()
        ended = await asyncio.gather(running, closing, return_exceptions=True)
        assert [type(error) for error in ended] == [UnknownJobError, asyncio.CancelledError]
        late = [parts(scheduler, Ids(job=name(1), step=0, ids=PROMPT)), scheduler.close(name(1))]
        ended = await asyncio.gather(*late, return_exceptions=True)
        assert [type(error) for error in ended] == [UnknownJobError, asyncio.CancelledError]


async def test_run_engine_that_answers_too_little_ends_the_pass_and_not_the_scheduler() -> None:
    async with scheduling() as scheduler:
        engine = engine_of(scheduler)
        await scheduler.open(name(1), 60, priority=0)
        honest = engine.step
        engine.step = lambda _: []  # type: ignore[method-assign]
        with pytest.raises(ValueError, match="zip"):
            await parts(scheduler, Ids(job=name(1), step=0, ids=PROMPT))
        engine.step = honest  # type: ignore[method-assign]
        await parts(scheduler, Ids(job=name(1), step=0, ids=PROMPT))
