from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.node.stage.driver import Task, driver, first_fault
from tests.node.stage.network import network, until
from tests.node.wire.peers import STEADY

from plait.protocol.codec import signed_to_pb
from plait.protocol.pb import stage_pb2 as pb
from plait_node.wire import Dialer, encode_rows
from plait_node.wire.tensor import FP32

PROMPT = [(5 * at + 1) % 60 for at in range(20)]


def fp32(task: Task) -> pb.Rows:
    data = encode_rows(np.zeros((2, 8), dtype=np.float32), codec=FP32)
    return pb.Rows(job=task.hash, step=0, count=2, codec=FP32, data=data)


def changed(task: Task, **values: object) -> pb.Rows:
    made = task.rows_frame(0, PROMPT)
    for name, value in values.items():
        setattr(made, name, value)
    return made


HOSTILE: dict[str, Callable[[Task], pb.Frame]] = {
    "codec of another boundary": lambda task: pb.Frame(rows=fp32(task)),
    "unknown codec": lambda task: pb.Frame(rows=changed(task, codec="pickle")),
    "short data": lambda task: pb.Frame(rows=changed(task, data=b"123")),
    "no rows": lambda task: pb.Frame(rows=changed(task, count=0)),
    "more rows than room": lambda task: pb.Frame(rows=changed(task, count=1 << 31)),
    "id outside the vocabulary": lambda task: pb.Frame(rows=changed(task, data=b"\xff\xff\xff\xff" * 20)),
    "rows that skip a step": lambda task: pb.Frame(rows=changed(task, step=1)),
    "rows across the prompt's end": lambda task: pb.Frame(rows=task.rows_frame(0, [*PROMPT, 1])),
    "tokens": lambda task: pb.Frame(tokens=pb.Tokens(job=task.hash, step=1, ids=[1])),
    "opened": lambda task: pb.Frame(opened=pb.Opened(job=task.hash)),
    "ack": lambda task: pb.Frame(ack=pb.HopAck()),
    "open without a job": lambda _: pb.Frame(open=pb.Open()),
    "open with a short salt": lambda task: pb.Frame(open=task.open_frame(0, salt_rows=b"1")),
    "open with lineage beyond the prompt": lambda task: pb.Frame(
        open=task.open_frame(0, lineage_keys=[bytes(32), bytes(32)])
    ),
    "payment without a voucher": lambda _: pb.Frame(payment=pb.HopPayment()),
    "leaf without content": lambda _: pb.Frame(leaf=pb.LeafOf()),
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE.keys())
async def test_hostile_frame_closes_the_link_blames_the_worker_and_others_go_on(
    tmp_path: Path, make: Callable[[Task], pb.Frame]
) -> None:
    async with network(tmp_path) as net, driver(net) as good, driver(net) as bad:
        task, other = bad.task(PROMPT, max_tokens=4), good.task(PROMPT, max_tokens=6)
        for each in (task, other):
            await each.open()
            await each.start()
        await other.generate(2)
        await task.send(0, make(task))
        await asyncio.wait_for(bad.links[0].wait_closed(), 30)
        assert [blame.owner for blame in net.nodes[0].blames] == [bad.identity.owner]
        assert not net.nodes[0].blames[0].lost
        assert await other.generate(6) == other.expected(6)


async def test_rows_for_another_workers_job_close_the_link(tmp_path: Path) -> None:
    async with network(tmp_path) as net, driver(net) as good, driver(net) as bad:
        task = good.task(PROMPT, max_tokens=4)
        await task.open()
        await task.start()
        await bad.links[1].send(pb.Frame(rows=fp32(task)))
        await bad.links[0].send(pb.Frame(end=pb.End(job=task.hash, step=3)))
        for link in bad.links[:2]:
            await asyncio.wait_for(link.wait_closed(), 30)
        assert net.nodes[1].blames[0].owner == bad.identity.owner
        assert await task.generate(4) == task.expected(4)


async def test_nan_from_the_stage_before_blames_it(tmp_path: Path) -> None:
    async with network(tmp_path) as net, driver(net) as worker:
        task = worker.task(PROMPT, max_tokens=4)
        await task.open()
        (job,) = net.nodes[0].role._jobs
        rows = np.full((20, 8), np.nan, dtype="<f4").tobytes()
        await job.downstream.send(pb.Frame(rows=pb.Rows(job=task.hash, step=0, count=20, codec=FP32, data=rows)))
        await task.start()
        accused, accuser = net.nodes[0].identity.owner, net.nodes[1].identity.owner
        faults = {
            fault.said_by: fault for fault in [await first_fault(task), await first_fault(task)]
        }  # in either order
        assert "malformed rows" in str(faults[accuser])
        assert faults[accuser].blamed == accused
        assert faults[accused].blamed == accuser  # its link to the next stage is lost, it says
        assert net.nodes[1].blames[0].owner == accused


async def test_frames_for_unknown_jobs_are_ignored(tmp_path: Path) -> None:
    async with network(tmp_path) as net, driver(net) as worker:
        task = worker.task(PROMPT, max_tokens=4)
        for frame in (
            pb.Frame(rows=task.rows_frame(0, PROMPT)),
            pb.Frame(start=pb.Start(job=task.hash)),
            pb.Frame(end=pb.End(job=task.hash)),
            pb.Frame(cancel=pb.CancelJob(job=task.hash)),
            pb.Frame(fault=pb.JobFault(job=task.hash)),
        ):
            await task.send(0, frame)
        await task.open()
        await task.start()
        assert await task.generate(2) == task.expected(2)
        assert not net.nodes[0].blames


async def test_flood_of_calls_closes_the_link(tmp_path: Path) -> None:
    async with network(tmp_path, max_jobs=100, worker_jobs=100) as net, driver(net) as worker:
        waiting = asyncio.Event()

        async def slow(*_: object) -> None:
            await waiting.wait()

        net.channels.channel = slow
        for attempt in range(40):
            task = worker.task(PROMPT, attempt=attempt)
            await task.send(2, pb.Frame(open=task.open_frame(2)))
        await asyncio.wait_for(worker.links[2].wait_closed(), 30)
        waiting.set()
        assert net.nodes[2].blames[0].owner == worker.identity.owner


async def test_leaf_sent_again_fails_the_job_and_blames_its_sender(tmp_path: Path) -> None:
    async with network(tmp_path) as net, driver(net) as worker:
        task = worker.task(PROMPT, max_tokens=4)
        await task.open()
        await task.start()
        await task.generate(1)
        while 0 not in task.leaves:
            await task.hear()
        (job,) = net.nodes[0].role._jobs
        await job.downstream.send(pb.Frame(leaf=pb.LeafOf(leaf=signed_to_pb(task.leaves[0][0]))))
        fault = await first_fault(task)
        assert (fault.code, fault.blamed) == ("bad_leaf", net.nodes[0].identity.owner)


async def test_bad_rows_cost_the_link_that_they_came_over(tmp_path: Path) -> None:
    """Not the one over which the next ones came while they waited."""
    async with network(tmp_path) as net, driver(net) as worker:
        task = worker.task(PROMPT, max_tokens=4)
        await task.open()
        (job,) = net.nodes[0].role._jobs
        dialer = Dialer(identity=worker.identity, directory=net.directory, patience=STEADY)
        other = await dialer.dial(net.nodes[0].destination)
        await other.send(pb.Frame(rows=fp32(task)))
        await until(lambda: job._arrivals._queued == 2)
        await task.feed(0, PROMPT)
        await until(lambda: job._arrivals._queued == 2 + len(PROMPT))
        await task.start()
        await until(lambda: other.closed)
        assert "malformed rows" in other.reason
        assert not worker.links[0].closed
        await other.close()
