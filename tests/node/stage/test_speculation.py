"""Rows that may be taken back: the same tokens, the same leaves, and nobody gets away with a lie."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.node.stage.driver import Task, driver, first_fault
from tests.node.stage.network import Network, network, until
from tests.node.stage.tiny import VOCABULARY

from plait.protocol.messages import Leaf
from plait.protocol.pb import stage_pb2 as pb
from plait.protocol.typed import Signed
from plait_node.stage.outgoing import rows_frames

PROMPT = [(7 * at + 3) % 60 for at in range(40)]


async def speculate(task: Task, count: int, *, depth: int, wrong_every: int) -> None:
    """Generate `count` ids, guessing `depth` at a time of which every so many is wrong."""
    expected = task.expected(count + depth + 1)
    guesses = [token if (at + 1) % wrong_every else (token + 1) % (VOCABULARY - 1) for at, token in enumerate(expected)]
    await task.feed(0, task.prompt)
    while not task.ids:
        await task.hear()
    while len(task.ids) < count:
        known = len(task.ids)
        ahead = guesses[known:][: min(depth, count - known - 1)]
        await (task.guess(ahead) if ahead else task.feed(len(task.prompt) + known - 1, task.ids[-1:]))
        while len(task.ids) == known:
            await task.hear()


async def plainly(task: Task, count: int) -> tuple[list[int], dict[int, list[Signed[Leaf]]]]:
    await task.open()
    await task.start()
    ids = list(await task.generate(count))
    await task.end()
    return ids, {stage: list(leaves) for stage, leaves in task.leaves.items()}


async def forget(net: Network, task: Task) -> None:
    """Let the very same job be opened again; what the stages signed for it they remember."""
    await until(lambda: all(node.role._jobs._jobs[task.hash].closed for node in net.nodes))
    for node in net.nodes:
        await node.role._jobs._jobs[task.hash].wait_closed()
        node.role._jobs._jobs.clear()
        node.role._jobs._attempts.clear()
    task.ids.clear()
    task.leaves.clear()
    task.opened.clear()


@pytest.mark.parametrize("temperature", [0, 900_000])
@pytest.mark.parametrize(("stages", "depth", "wrong_every"), [(1, 4, 3), (2, 15, 7), (3, 5, 2), (3, 15, 99), (3, 3, 1)])
async def test_speculation_gives_the_same_tokens_and_the_same_signed_leaves(
    tmp_path: Path, stages: int, temperature: int, depth: int, wrong_every: int
) -> None:
    async with network(tmp_path, stages=stages) as net, driver(net) as worker:
        task = worker.task(PROMPT, max_tokens=60, temperature=temperature)
        ids, leaves = await plainly(task, 45)
        assert ids == task.expected(45)
        await forget(net, task)
        passes = len(net.nodes[0].engine.passes)
        await task.open()
        await task.start()
        await speculate(task, 45, depth=depth, wrong_every=wrong_every)
        task.check_leaves(await task.end())
        assert task.ids == ids
        assert task.leaves == leaves
        assert all(not node.blames for node in net.nodes)
        if wrong_every > depth:
            assert len(net.nodes[0].engine.passes) - passes < 25


async def test_speculation_end_before_the_accepted_end_signs_only_what_is_before_it(tmp_path: Path) -> None:
    async with network(tmp_path) as net, driver(net) as worker:
        task = worker.task(PROMPT, max_tokens=20)
        await plainly(task, 4)
        leaves = {stage: list(each) for stage, each in task.leaves.items()}
        await forget(net, task)
        await task.open()
        await task.start()
        await task.generate(1)
        await task.guess(task.expected(9)[1:])
        while len(task.ids) < 9:
            await task.hear()
        del task.ids[4:]  # the fourth one ended the answer, as a stop string does
        await task.end()
        assert task.leaves == leaves


async def test_speculation_frame_larger_than_a_stages_frames_stays_whole(tmp_path: Path) -> None:
    async with network(tmp_path, step_rows=4) as net, driver(net) as worker:
        task = worker.task(PROMPT, max_tokens=30)
        await task.open()
        await task.start()
        await speculate(task, 20, depth=9, wrong_every=8)
        assert task.ids == task.expected(20)
        assert max(count for _, start, count in net.nodes[2].engine.calls if start >= len(PROMPT)) == 10


async def guessed(task: Task, ids: Sequence[int], *, step: int | None = None, draft: Sequence[int] = ()) -> None:
    """Send guessed rows with a draft that is not theirs."""
    at = len(task.prompt) + len(task.ids) - 1
    sent = pb.Draft(job=task.hash, step=at + 1 if step is None else step, ids=draft)
    await task.send(task.stages - 1, pb.Frame(draft=sent))
    await task.send(0, pb.Frame(rows=task.guessed_frame(at, [task.ids[-1], *ids])))


async def begun(task: Task) -> int:
    """Generate one id, guess four of which two are right, and return where the next rows belong."""
    await task.open()
    await task.start()
    await task.generate(1)
    right = task.expected(3)[1:]
    await task.guess([*right, 61, 61])
    while len(task.ids) < 4:
        await task.hear()
    return len(task.prompt) + 3


CLAIMS: dict[str, Callable[[Task, int], pb.Rows]] = {
    "more than was sent": lambda task, at: task.rows_frame(at + 4, [1]),
    "the certain row again": lambda task, at: task.rows_frame(at - 3, [1]),
    "a row of the prompt again": lambda task, _: task.rows_frame(3, [1]),
    "beyond the room": lambda task, at: task.guessed_frame(at, [1] * 16),
    "more than a window": lambda task, at: task.guessed_frame(at, [1] * 17),
    "guesses that go on from where none were sent": lambda task, at: speculative(task.rows_frame(at, [1, 2]), 2),
    "half of them speculative": lambda task, at: speculative(task.rows_frame(at, [1, 2, 3]), 1),
    "several and none speculative": lambda task, at: task.rows_frame(at, [1, 2, 3]),
    "an id outside the vocabulary": lambda task, at: task.guessed_frame(at, [1, VOCABULARY]),
}


def speculative(rows: pb.Rows, count: int) -> pb.Rows:
    rows.speculative = count
    return rows


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS.keys())
async def test_speculation_hostile_rows_close_the_workers_link(
    tmp_path: Path, claim: Callable[[Task, int], pb.Rows]
) -> None:
    async with network(tmp_path) as net, driver(net) as worker:
        task = worker.task(PROMPT, max_tokens=12)
        at = await begun(task)
        await task.send(0, pb.Frame(rows=claim(task, at)))
        await asyncio.wait_for(worker.links[0].wait_closed(), 30)
        assert [blame.owner for blame in net.nodes[0].blames] == [worker.identity.owner]


async def test_speculation_on_a_prompts_rows_closes_the_workers_link(tmp_path: Path) -> None:
    async with network(tmp_path) as net, driver(net) as worker:
        task = worker.task(PROMPT, max_tokens=12)
        await task.open()
        await task.start()
        await task.send(0, pb.Frame(rows=task.guessed_frame(0, PROMPT[:9])))
        await asyncio.wait_for(worker.links[0].wait_closed(), 30)
        assert [blame.owner for blame in net.nodes[0].blames] == [worker.identity.owner]


@pytest.mark.parametrize("offset", [-1, 1])
async def test_speculation_another_accepted_end_than_the_tails_fails_the_job(tmp_path: Path, offset: int) -> None:
    """Stages above cannot know better, so no link is closed: the worker hears who contradicts whom."""
    async with network(tmp_path) as net, driver(net) as worker:
        task = worker.task(PROMPT, max_tokens=12)
        at = await begun(task)
        await task.send(0, pb.Frame(rows=task.rows_frame(at + offset, [1])))
        fault = await first_fault(task)
        assert (fault.code, fault.said_by) == ("speculation", net.nodes[2].identity.owner)
        assert fault.blamed == net.nodes[1].identity.owner
        assert all(not node.blames for node in net.nodes)


@pytest.mark.parametrize(("draft", "step"), [([1], None), ([1, 2, 3], None), ([1, 2], 40), ([1, 2], 42)])
async def test_speculation_draft_that_does_not_fit_its_rows_fails_the_job(
    tmp_path: Path, draft: list[int], step: int | None
) -> None:
    async with network(tmp_path) as net, driver(net) as worker:
        task = worker.task(PROMPT, max_tokens=12)
        await task.open()
        await task.start()
        await task.generate(1)
        await guessed(task, [1, 2], draft=draft, step=step)
        fault = await first_fault(task)
        assert (fault.code, fault.said_by) == ("speculation", net.nodes[2].identity.owner)


async def test_speculation_without_its_draft_fails_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plait_node.stage.arrivals._DRAFT_S", 0.1)
    async with network(tmp_path) as net, driver(net) as worker:
        task = worker.task(PROMPT, max_tokens=12)
        await task.open()
        await task.start()
        await task.generate(1)
        await task.send(0, pb.Frame(rows=task.guessed_frame(40, [task.ids[-1], 1])))
        fault = await first_fault(task)
        assert (fault.code, fault.said_by) == ("speculation", net.nodes[2].identity.owner)


@pytest.mark.parametrize(
    ("stage", "ids", "times"), [(2, [VOCABULARY], 1), (2, [], 1), (2, [1] * 17, 1), (2, [1], 9), (0, [1], 1)]
)
async def test_speculation_hostile_draft_closes_the_workers_link(
    tmp_path: Path, stage: int, ids: list[int], times: int
) -> None:
    async with network(tmp_path) as net, driver(net) as worker:
        task = worker.task(PROMPT, max_tokens=12)
        await task.open()
        await task.start()
        for _ in range(times):
            await task.send(stage, pb.Frame(draft=pb.Draft(job=task.hash, step=41, ids=ids)))
        await asyncio.wait_for(worker.links[stage].wait_closed(), 30)
        assert [blame.owner for blame in net.nodes[stage].blames] == [worker.identity.owner]


async def test_speculation_draft_of_another_workers_job_closes_the_link(tmp_path: Path) -> None:
    async with network(tmp_path) as net, driver(net) as good, driver(net) as bad:
        task = good.task(PROMPT, max_tokens=12)
        await task.open()
        await task.start()
        await bad.links[2].send(pb.Frame(draft=pb.Draft(job=task.hash, step=41, ids=[1])))
        await asyncio.wait_for(bad.links[2].wait_closed(), 30)
        assert await task.generate(3) == task.expected(3)


async def chained(task: Task, *, ids: Sequence[int] = (5, 6), offset: int = 0, more: int = 0) -> pb.Rows:
    """Generate an id, guess four of which two are right, and return guesses behind them, sent too early or too late."""
    await task.open()
    await task.start()
    await task.generate(1)
    at = len(task.prompt) + 5 + offset
    await task.guess([*task.expected(3)[1:], 61, 61])
    return speculative(task.rows_frame(at, ids), len(ids) + 4 + offset + more)


async def drafted(task: Task, rows: pb.Rows, *, step: int = 0, count: int = 0) -> None:
    """Send rows that are all guesses behind their draft, or one that differs from it by so much."""
    ids = [int.from_bytes(rows.data[at : at + 4], "big") for at in range(0, len(rows.data), 4)]
    sent = pb.Draft(job=task.hash, step=rows.step + step, ids=[*ids, *[1] * count])
    await task.send(task.stages - 1, pb.Frame(draft=sent))
    await task.send(0, pb.Frame(rows=rows))


async def test_speculation_passes_over_guesses_behind_a_wrong_one_and_goes_on(tmp_path: Path) -> None:
    async with network(tmp_path) as net, driver(net) as worker:
        task = worker.task(PROMPT, max_tokens=12)
        await drafted(task, await chained(task))
        while len(task.ids) < 4:
            await task.hear()
        assert await task.generate(8) == task.expected(8)
        task.check_leaves(await task.end())
        assert all(not node.blames for node in net.nodes)
        assert [max(start + count for _, start, count in node.engine.calls) for node in net.nodes] == [47, 47, 47]
        tail = net.nodes[2].engine.calls
        assert (task.hash, 45, 2) not in tail  # passed over, not computed
        assert (task.hash, 45, 2) in net.nodes[1].engine.calls


async def test_speculation_stage_that_holds_rows_behind_rejected_ones_says_so(tmp_path: Path) -> None:
    async with network(tmp_path) as net, driver(net) as worker:
        task = worker.task(PROMPT, max_tokens=12)
        await drafted(task, await chained(task))
        while len(task.ids) < 4:
            await task.hear()
        where = [node.role._jobs._jobs[task.hash].where for node in net.nodes]
        await until(lambda: all(at().given >= at().came == 47 for at in where))  # passed over counts as given
        for node in net.nodes:
            node.engine.gate = threading.Event()
        await task.feed(43, task.ids[-1:])
        for node, at in zip(net.nodes, where, strict=True):
            await until(lambda at=at: at().came == 44)
            assert at().given < 44
            assert node.engine.gate is not None
            node.engine.gate.set()
        await task.hear()
        await until(lambda: all(at().given >= at().came for at in where))


@pytest.mark.parametrize(("step", "count"), [(1, 0), (-1, 0), (0, 1)])
async def test_speculation_draft_that_does_not_fit_guesses_behind_guesses_fails_the_job(
    tmp_path: Path, step: int, count: int
) -> None:
    async with network(tmp_path) as net, driver(net) as worker:
        task = worker.task(PROMPT, max_tokens=12)
        await drafted(task, await chained(task), step=step, count=count)
        fault = await first_fault(task)
        assert (fault.code, fault.said_by) == ("speculation", net.nodes[2].identity.owner)


async def test_speculation_guesses_behind_guesses_without_their_draft_fail_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plait_node.stage.arrivals._DRAFT_S", 0.1)
    async with network(tmp_path) as net, driver(net) as worker:
        task = worker.task(PROMPT, max_tokens=12)
        await task.send(0, pb.Frame(rows=await chained(task)))
        fault = await first_fault(task)
        assert (fault.code, fault.said_by) == ("speculation", net.nodes[2].identity.owner)


async def test_speculation_more_called_certain_than_the_tail_accepted_fails_the_job(tmp_path: Path) -> None:
    async with network(tmp_path) as net, driver(net) as worker:
        task = worker.task(PROMPT, max_tokens=12)
        await drafted(task, await chained(task, more=-4))
        fault = await first_fault(task)
        assert (fault.code, fault.said_by) == ("speculation", net.nodes[2].identity.owner)
        assert fault.blamed == net.nodes[1].identity.owner


@pytest.mark.parametrize(
    ("ids", "offset", "more"),
    [((5, 6), -1, 0), ((5, 6), 1, 0), ((5, 6), 0, 59), ((5, 6), 0, 1), ((5,) * 17, 0, 0)],
    ids=["behind too few", "behind too many", "65 guesses", "a certain row as a guess", "17 rows"],
)
async def test_speculation_hostile_guesses_behind_guesses_close_the_workers_link(
    tmp_path: Path, ids: Sequence[int], offset: int, more: int
) -> None:
    async with network(tmp_path) as net, driver(net) as worker:
        task = worker.task(PROMPT, max_tokens=80)
        rows = await chained(task, ids=ids, offset=offset, more=more)
        await task.send(0, pb.Frame(rows=rows))
        await asyncio.wait_for(worker.links[0].wait_closed(), 30)
        assert [blame.owner for blame in net.nodes[0].blames] == [worker.identity.owner]


async def test_speculation_guesses_that_a_stage_moves_are_blamed_on_that_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with network(tmp_path, stages=2) as net, driver(net) as worker:
        task = worker.task(PROMPT, max_tokens=12)
        rows = await chained(task)
        while len(task.ids) < 4:
            await task.hear()
        honest = rows_frames

        def moved(*args: Any, **options: Any) -> Iterator[pb.Frame]:
            for frame in honest(*args, **options):
                frame.rows.step += 1
                yield frame

        monkeypatch.setattr("plait_node.stage.job.rows_frames", moved)
        await drafted(task, rows)
        await until(lambda: bool(net.nodes[1].blames))
        assert [blame.owner for blame in net.nodes[1].blames] == [net.nodes[0].identity.owner]
        assert not net.nodes[0].blames
