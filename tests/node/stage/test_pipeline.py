from __future__ import annotations

import asyncio
import logging
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tests.node.stage.driver import FaultError, driver, first_fault
from tests.node.stage.network import Network, network, until

from plait.protocol.pb import stage_pb2 as pb
from plait_node.stage import compute

log = logging.getLogger(__name__)

PROMPT = [(7 * at + 3) % 60 for at in range(40)]


async def freed(net: Network, stages: Sequence[int] = (0, 1, 2)) -> None:
    await until(lambda: all(net.nodes[stage].role.facts.free_steps == 2_048 for stage in stages))
    assert all(net.nodes[stage].engine.open_jobs == 0 for stage in stages)


@pytest.mark.parametrize(("chunk", "temperature"), [(None, 0), (16, 0), (7, 0), (None, 900_000)])
async def test_route_of_three_answers_as_the_whole_model_and_leaves_join(
    tmp_path: Path, chunk: int | None, temperature: int
) -> None:
    async with network(tmp_path) as net, driver(net) as worker:
        task = worker.task(PROMPT, max_tokens=24, temperature=temperature)
        await task.open()
        await task.start()
        ids = await task.generate(24, chunk=chunk)
        end = await task.end()
        task.check_leaves(end)
        assert ids == task.expected(24)
        await freed(net)
        assert all(node.role.facts.step_micros > 0 for node in net.nodes)
        assert all(not node.blames for node in net.nodes)


@pytest.mark.parametrize("stages", [1, 2])
async def test_route_of_fewer_stages_answers_the_same(tmp_path: Path, stages: int) -> None:
    async with network(tmp_path, stages=stages) as net, driver(net) as worker:
        task = worker.task(PROMPT[:5], max_tokens=6)
        await task.open()
        await task.start()
        assert await task.generate(6) == task.expected(6)
        task.check_leaves(await task.end())


async def test_route_large_prompt_is_split_into_frames_the_next_stage_takes(tmp_path: Path) -> None:
    async with network(tmp_path, step_rows=9) as net, driver(net) as worker:
        task = worker.task(PROMPT, max_tokens=3)
        await task.open()
        await task.start()
        assert await task.generate(3) == task.expected(3)
        task.check_leaves(await task.end())
        counts = [count for _, start, count in net.nodes[1].engine.calls if start < len(PROMPT)]
        assert sum(counts) == len(PROMPT)
        assert max(counts) == 9


async def test_route_two_workers_at_once_get_their_own_answers(tmp_path: Path) -> None:
    async with network(tmp_path) as net, driver(net) as one, driver(net) as two:
        tasks = [one.task(PROMPT, max_tokens=20), two.task(PROMPT[::-1], max_tokens=20)]
        for task in tasks:
            await task.open()
            await task.start()
        answers = await asyncio.gather(*(task.generate(20) for task in tasks))
        for task, ids in zip(tasks, answers, strict=True):
            assert ids == task.expected(20)
            task.check_leaves(await task.end())


async def test_rows_of_several_jobs_are_computed_in_one_pass(tmp_path: Path) -> None:
    async with network(tmp_path) as net, driver(net) as one, driver(net) as two, driver(net) as three:
        tasks = [
            worker.task(PROMPT[at:], max_tokens=20, temperature=700_000) for at, worker in enumerate((one, two, three))
        ]
        for task in tasks:
            await task.open()
            await task.start()
        engine = net.nodes[0].engine
        engine.gate = threading.Event()
        first = asyncio.create_task(tasks[0].generate(20))
        await until(lambda: net.nodes[0].role.facts.load.waiting == 1)
        others = [asyncio.create_task(task.generate(20)) for task in tasks[1:]]
        await until(lambda: net.nodes[0].role.facts.load.waiting == 3)  # while the first is in the engine's hands
        engine.gate.set()
        await asyncio.gather(first, *others)
        assert max(len({job for job, _, _ in rows}) for rows in engine.passes) > 1
        assert all(len(rows) == len({job for job, _, _ in rows}) for rows in engine.passes)
        for task in tasks:
            assert task.ids == task.expected(20)
            task.check_leaves(await task.end())


async def test_job_with_an_earlier_deadline_takes_room_and_the_other_goes_on_later(tmp_path: Path) -> None:
    async with network(tmp_path, stages=1) as net, driver(net) as one, driver(net) as two:
        net.nodes[0].engine._kv_steps = 100
        slow = one.task(PROMPT, max_tokens=24, temperature=700_000)
        quick = two.task(PROMPT[::-1], max_tokens=20, request={"deadline": int(time.time()) + 60})
        for task in (slow, quick):
            await task.open()
            await task.start()
            if task is slow:
                await task.generate(7)
        load = net.nodes[0].role.facts.load
        assert (load.aside, load.free_steps) == (1, 0)
        waiting = asyncio.create_task(slow.generate(24))
        assert await quick.generate(20) == quick.expected(20)
        assert len(slow.ids) == 7
        quick.check_leaves(await quick.end())
        assert await waiting == slow.expected(24)
        slow.check_leaves(await slow.end())


async def test_memory_that_is_short_for_good_refuses_the_job_and_blames_nobody(tmp_path: Path) -> None:
    async with network(tmp_path) as net, driver(net) as worker:
        task = worker.task(PROMPT, max_tokens=9)
        await task.open()

        def no_memory(_: object) -> None:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

        net.nodes[1].engine.step = no_memory
        await task.start()
        await task.feed(0, PROMPT)
        fault = await first_fault(task)
        assert (fault.code, fault.blamed) == ("busy", b"")


def no_memory(*_: object) -> None:
    raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")


async def test_memory_that_is_short_when_a_job_is_opened_refuses_it_and_the_next_one_is_taken(tmp_path: Path) -> None:
    async with network(tmp_path) as net, driver(net) as worker:
        engine = net.nodes[1].engine
        opens, engine.open = engine.open, no_memory
        task = worker.task(PROMPT, max_tokens=9)
        for stage in range(3):
            await task.send(stage, pb.Frame(open=task.open_frame(stage)))
        fault = await first_fault(task)
        assert (fault.code, fault.blamed, fault.said_by) == ("busy", b"", net.nodes[1].identity.owner)
        assert "no memory" in str(fault)
        assert net.nodes[1].role.facts.rows.used == 0

        engine.open = opens
        second = worker.task(PROMPT, max_tokens=4)
        await second.open()
        await second.start()
        assert await second.generate(4) == second.expected(4)


async def test_memory_that_is_short_for_the_cache_costs_the_job_nothing(tmp_path: Path) -> None:
    async with network(tmp_path) as net, driver(net) as worker:
        net.nodes[1].engine.keep_prefix = no_memory
        task = worker.task(PROMPT, max_tokens=5)
        await task.open()
        await task.start()
        assert await task.generate(5) == task.expected(5)
        task.check_leaves(await task.end())
        await until(lambda: not any(node.role._jobs.of() for node in net.nodes))
        assert worker.inbox.empty()  # no fault of anybody
        assert net.nodes[1].role.facts.rows.cached == 0


async def test_memory_that_is_short_for_rows_that_came_refuses_the_job_and_blames_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with network(tmp_path) as net, driver(net) as worker:
        task = worker.task(PROMPT, max_tokens=5)
        await task.open()
        await task.start()

        def numpy_has_none(*_: object, **__: object) -> None:
            raise MemoryError

        monkeypatch.setattr(compute, "decode_rows", numpy_has_none)
        await task.feed(0, PROMPT)
        fault = await first_fault(task)
        assert (fault.code, fault.blamed) == ("busy", b"")


async def test_rows_that_come_before_the_start_wait_for_it(tmp_path: Path) -> None:
    async with network(tmp_path) as net, driver(net) as worker:
        task = worker.task(PROMPT, max_tokens=2)
        await task.open()
        await task.feed(0, PROMPT)
        await task.start()
        while not task.ids:
            await task.hear()
        assert task.ids == task.expected(1)


async def test_end_in_the_middle_of_a_window_closes_it_everywhere(tmp_path: Path) -> None:
    async with network(tmp_path) as net, driver(net) as worker:
        task = worker.task(PROMPT[:20], max_tokens=9)
        await task.open()
        await task.start()
        await task.generate(9)
        end = await task.end()
        assert [leaf.message.count for leaf in task.leaves[2]] == [16, 4, 8]
        task.check_leaves(end)


async def test_hop_adds_little_to_the_engines_time(tmp_path: Path) -> None:
    async with network(tmp_path) as net, driver(net) as worker:
        task = worker.task(PROMPT, max_tokens=90)
        await task.open()
        await task.start()
        took: list[float] = []
        for count in range(1, 91):
            before = time.perf_counter()
            await task.generate(count)
            took.append(time.perf_counter() - before)
        token_s = statistics.median(took)  # a moment in which the machine does something else counts for nothing
        hops = [node.role.facts.hop_micros - node.role.facts.step_micros for node in net.nodes]
        told = f"token {token_s * 1e3:.2f} ms over 3 stages and 4 links; beside the engine a hop costs {hops} us"
        log.info(told)
        assert token_s < 0.1, told


async def test_stage_killed_in_the_middle_is_blamed_within_seconds(tmp_path: Path) -> None:
    """What the others computed is held for another attempt, for a while."""
    async with network(tmp_path, hold_s=60) as net, driver(net) as worker:
        task = worker.task(PROMPT, max_tokens=60)
        await task.open()
        await task.start()
        await task.generate(3)
        before = time.monotonic()
        await net.nodes[1].kill()
        await task.feed(len(PROMPT) + 2, task.ids[-1:])
        faults: list[FaultError] = []
        while len(faults) < 2:
            try:
                await task.hear()
            except FaultError as fault:
                faults.append(fault)
            except ConnectionError:
                continue
        assert time.monotonic() - before < 20
        assert {fault.code for fault in faults} == {"stage_failed"}
        assert {fault.blamed for fault in faults} == {net.nodes[1].identity.owner}
        assert {fault.said_by for fault in faults} == {net.nodes[0].identity.owner, net.nodes[2].identity.owner}
        assert net.nodes[0].engine.open_jobs == 1
        for stage in (0, 2):
            jobs = net.nodes[stage].role._jobs
            jobs._config = replace(jobs._config, hold_s=0.1)  # now, as if so much time had passed
        await freed(net, [0, 2])


async def test_worker_that_vanishes_leaves_no_job_behind(tmp_path: Path) -> None:
    async with network(tmp_path) as net:
        async with driver(net) as worker:
            task = worker.task(PROMPT, max_tokens=9)
            await task.open()
            await task.start()
            await task.generate(2)
        await freed(net)


async def test_cancel_frees_the_job_on_every_stage(tmp_path: Path) -> None:
    async with network(tmp_path) as net, driver(net) as worker:
        task = worker.task(PROMPT, max_tokens=9)
        await task.open()
        await task.start()
        await task.generate(2)
        await task.to_all(pb.Frame(cancel=pb.CancelJob(job=task.hash)))
        await freed(net)


async def test_tampered_row_downstream_signs_nothing_and_blames(tmp_path: Path) -> None:
    async with network(tmp_path) as net, driver(net) as worker:
        task = worker.task(PROMPT, max_tokens=9)
        await task.open()
        (job,) = net.nodes[0].role._jobs
        honest = job.downstream.send

        async def tamper(frame: pb.Frame, **kwargs: float) -> None:
            at = 16 - frame.rows.step
            if frame.WhichOneof("body") == "rows" and 0 <= at < frame.rows.count:
                data = bytearray(frame.rows.data)
                data[at * 32] ^= 1  # the lowest bit of one number in row 16
                frame.rows.data = bytes(data)
            await honest(frame, **kwargs)

        job.downstream.send = tamper
        await task.start()
        await task.feed(0, PROMPT)
        fault = await first_fault(task)
        assert fault.code == "disagreement"
        assert fault.blamed == net.nodes[0].identity.owner
        assert fault.said_by == net.nodes[1].identity.owner
        assert [leaf.message.window for leaf in task.leaves.get(1, [])] in ([], [0])
        assert [leaf.message.window for leaf in net.nodes[1].role._jobs._jobs[task.hash]._notary._committer.signed] == [
            0
        ]


async def test_leaf_signed_by_a_stranger_is_not_built_upon(tmp_path: Path) -> None:
    async with network(tmp_path) as net, driver(net) as worker:
        task = worker.task(PROMPT[:20], max_tokens=9)
        await task.open()
        (job,) = net.nodes[0].role._jobs
        job._notary._committer._sign_leaf = lambda leaf: worker.payer.signed(job._around.domain, leaf)
        await task.start()
        await task.feed(0, PROMPT[:20])
        fault = await first_fault(task)
        assert fault.said_by == net.nodes[1].identity.owner
        assert fault.blamed == net.nodes[0].identity.owner
        assert net.nodes[1].role._jobs._jobs[task.hash]._notary._committer.signed == []


async def test_idle_job_is_closed_and_says_so(tmp_path: Path) -> None:
    async with network(tmp_path, idle_s=0.3) as net, driver(net) as worker:
        task = worker.task(PROMPT, max_tokens=9)
        await task.open()
        fault = await first_fault(task)
        assert fault.code == "idle"
        await freed(net)


async def test_job_past_its_deadline_is_closed(tmp_path: Path) -> None:
    async with network(tmp_path) as net, driver(net) as worker:
        task = worker.task(PROMPT, max_tokens=9)
        await task.open()
        net.nodes[1].role._clock = lambda: time.time() + 700
        fault = await first_fault(task)
        assert (fault.code, fault.said_by) == ("deadline", net.nodes[1].identity.owner)


async def test_settled_job_is_forgotten(tmp_path: Path) -> None:
    async with network(tmp_path, settle_s=0.2) as net, driver(net) as worker:
        task = worker.task(PROMPT, max_tokens=2)
        await task.open()
        await task.start()
        await task.generate(2)
        await task.end()
        await until(lambda: not any(list(node.role._jobs) for node in net.nodes))


async def test_decode_of_one_job_passes_a_queue_of_prompts(tmp_path: Path) -> None:
    async with network(tmp_path, stages=1) as net, driver(net) as worker, driver(net) as other:
        engine = net.nodes[0].engine
        task = worker.task(PROMPT, max_tokens=5)
        await task.open()
        await task.start()
        await task.generate(1)
        prompt = other.task(PROMPT[::-1], max_tokens=5)
        await prompt.open()
        await prompt.start()
        engine.gate = threading.Event()
        for at in range(0, 40, 10):
            await prompt.feed(at, prompt.prompt[at : at + 10])
        await until(lambda: net.nodes[0].role.facts.load.waiting == 1)  # the first chunk is in the engine's hands
        await task.feed(len(PROMPT), task.ids)
        await until(lambda: net.nodes[0].role.facts.load.waiting == 2)
        engine.gate.set()
        await task.generate(2)
        order = [job for job, _, _ in engine.calls[1:]]
        assert order.index(task.hash) <= 2


async def test_engine_that_fails_on_good_rows_blames_itself(tmp_path: Path) -> None:
    async with network(tmp_path) as net, driver(net) as worker:
        task = worker.task(PROMPT, max_tokens=9)
        await task.open()

        def broken(*_: object, **__: object) -> None:
            raise RuntimeError("memory")

        net.nodes[1].engine.step = broken
        await task.start()
        await task.feed(0, PROMPT)
        fault = await first_fault(task)
        assert (fault.code, fault.blamed) == ("stage_failed", net.nodes[1].identity.owner)
        assert "memory" not in str(fault)
