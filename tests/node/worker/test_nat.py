"""Stages that only dial out carry jobs like others, over links that they opened themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.node.stage.network import PRICE, Node
from tests.node.stage.tiny import MANIFEST
from tests.node.wire.peers import MemoryDirectory, identity
from tests.node.worker.world import CALM, World, until, world

from plait.protocol.money import stage_fee_of
from plait.protocol.pb import stage_pb2 as pb
from plait_node.wire import Destination, Dialer, Link, LinkServer, Meeting
from plait_node.worker import LinkPool
from plait_node.worker.links import Arrived, Inbox, Lost

PROMPT = [token % 60 for token in range(3, 40)]


@asynccontextmanager
async def listening(made: World) -> AsyncIterator[Destination]:
    """Let the worker be dialed."""
    meeting, pool = made.meeting, made.pool
    server = LinkServer(made.who, made.net.directory, pool.serve, patience=CALM, book=meeting.book)
    port = await server.start("127.0.0.1")
    at = Destination(owner=made.who.owner, host="127.0.0.1", port=port, certificate=made.who.certificate.fingerprint)
    meeting.attach(pool.serve, at=at)
    try:
        yield at
    finally:
        await server.stop()


async def hide(made: World, index: int, behind: Sequence[Destination], *, relayed: bool = False) -> Node:
    """Put a stage that nobody can dial in the place of another one: it has no open port, unless it is relayed to."""
    gone = made.net.nodes.pop(index)
    await gone.stop()
    node = await made.net.add(gone.engine.first, gone.engine.last, behind=behind, patience=CALM)
    if not relayed:
        await node.server.stop()
    made.net.nodes.insert(index, made.net.nodes.pop())
    await made.announce(node)
    return node


async def carries(made: World, hidden: Node, *, tokens: int = 9) -> None:
    """Check that a whole job goes over the hidden stage, and that it is paid for."""
    asked = await made.asking(PROMPT, max_tokens=tokens)
    assert await asked.run() == asked.expected(tokens)
    assert asked.job is not None
    assert hidden.identity.owner in [stage.node for stage in asked.job.message.route]
    await made.settled()
    jobs = [job for job in made.book.jobs() if job.request == asked.digest and job.payee == hidden.identity.owner]
    assert jobs[0].leaf is not None
    assert jobs[0].leaf.hop_amount == stage_fee_of(hidden.stage, len(PROMPT) + tokens - 1)


@pytest.mark.parametrize("index", [0, 1, 2])
async def test_nat_stage_that_only_dials_out_carries_a_job_end_to_end(tmp_path: Path, index: int) -> None:
    async with world(tmp_path) as made, listening(made):
        point = made.net.nodes[(index + 1) % 3]
        hidden = await hide(made, index, [point.destination])
        assert hidden.destination.via == (point.destination,)
        await carries(made, hidden)


async def test_nat_worker_is_the_meeting_point_itself(tmp_path: Path) -> None:
    async with world(tmp_path) as made, listening(made) as at:
        hidden = await hide(made, 2, [at])
        await carries(made, hidden)
        assert made.pool.number(hidden.identity.owner) == 1


async def test_nat_lost_link_is_opened_again_for_the_next_job(tmp_path: Path) -> None:
    async with world(tmp_path) as made, listening(made):
        hidden = await hide(made, 1, [made.net.nodes[0].destination])
        await carries(made, hidden)
        await made.pool.accuse(hidden.identity.owner, "the test cuts it")
        await carries(made, hidden)
        assert made.pool.number(hidden.identity.owner) == 2


async def test_nat_neither_stage_nor_worker_can_be_dialed_and_a_third_relays(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        hidden = await hide(made, 1, [made.net.nodes[2].destination], relayed=True)
        await carries(made, hidden)


async def test_nat_two_stages_that_only_dial_out_follow_each_other(tmp_path: Path) -> None:
    async with world(tmp_path) as made, listening(made):
        point = made.net.nodes[0].destination
        before = await hide(made, 1, [point])
        after = await hide(made, 2, [point], relayed=True)
        await carries(made, before)
        assert made.pool.alive(after.identity.owner)


async def test_nat_stage_without_a_meeting_point_is_left_out_and_another_serves(tmp_path: Path) -> None:
    async with world(tmp_path) as made, listening(made):
        point = made.net.nodes[0]
        hidden = await hide(made, 1, [point.destination])
        spare = await made.net.add(1, 2)
        await made.announce(spare, step_micros=50_000)
        assert hidden.keeping is not None
        hidden.keeping.cancel()
        for link in hidden.role._neighbours.all():
            await link.close("its line is cut")
        asked = await made.asking(PROMPT, max_tokens=9)
        assert await asked.run() == asked.expected(9)
        assert asked.job is not None
        assert spare.identity.owner in [stage.node for stage in asked.job.message.route]


@asynccontextmanager
async def paired() -> AsyncIterator[tuple[LinkPool, list[Link], Dialer, Destination]]:
    """Run a pool that stages can open links to, and one stage's dialer."""
    directory = MemoryDirectory()
    worker, stage = identity(directory), identity(directory)
    meeting = Meeting(Dialer(identity=worker, directory=directory, patience=CALM))
    pool, links = LinkPool(meeting), list[Link]()

    async def on_link(link: Link) -> None:
        links.append(link)
        await pool.serve(link)

    server = LinkServer(worker, directory, on_link, patience=CALM, book=meeting.book)
    port = await server.start("127.0.0.1")
    at = Destination(owner=worker.owner, host="127.0.0.1", port=port, certificate=worker.certificate.fingerprint)
    try:
        yield pool, links, Dialer(identity=stage, directory=directory, patience=CALM), at
    finally:
        await pool.close()
        await server.stop()


def tokens(job: bytes) -> pb.Frame:
    return pb.Frame(tokens=pb.Tokens(job=job, step=1, ids=[2]))


async def test_pool_link_that_a_stage_opened_carries_frames_and_its_loss_is_told() -> None:
    async with paired() as (pool, links, dialer, at):
        link = await dialer.dial(at)
        owner = dialer.identity.owner
        await until(lambda: pool.alive(owner))
        inbox = Inbox(job=MANIFEST.model_id, owners=frozenset({owner}))
        pool.subscribe(inbox)
        await pool.send(owner, pb.Frame(cancel=pb.CancelJob(job=inbox.job)))
        assert (await link.receive(deadline_s=30)).cancel.job == inbox.job
        await link.send(tokens(inbox.job))
        arrived = await asyncio.wait_for(inbox.events.get(), 30)
        assert isinstance(arrived, Arrived)
        assert arrived.frame.tokens.ids == [2]
        await link.close()
        lost = await asyncio.wait_for(inbox.events.get(), 30)
        assert isinstance(lost, Lost)
        assert lost.owner == owner
        assert len(links) == 1


async def test_pool_second_link_to_a_stage_waits_and_takes_the_place_of_the_first() -> None:
    async with paired() as (pool, links, dialer, at):
        first, second = await dialer.dial(at), await dialer.dial(at)
        owner = dialer.identity.owner
        await until(lambda: len(links) == 2)
        inbox = Inbox(job=MANIFEST.model_id, owners=frozenset({owner}))
        pool.subscribe(inbox)
        await pool.send(owner, pb.Frame(cancel=pb.CancelJob(job=inbox.job)))
        assert (await first.receive(deadline_s=30)).cancel.job == inbox.job
        assert pool.number(owner) == 1
        await first.close()
        assert isinstance(await asyncio.wait_for(inbox.events.get(), 30), Lost)
        await until(lambda: pool.number(owner) == 2)
        await pool.send(owner, pb.Frame(cancel=pb.CancelJob(job=inbox.job)))
        assert (await second.receive(deadline_s=30)).cancel.job == inbox.job


async def test_pool_loss_of_a_link_that_no_job_uses_is_told_to_none() -> None:
    async with paired() as (pool, links, dialer, at):
        await dialer.dial(at)
        second = await dialer.dial(at)
        owner = dialer.identity.owner
        await until(lambda: len(links) == 2)
        inbox = Inbox(job=MANIFEST.model_id, owners=frozenset({owner}))
        pool.subscribe(inbox)
        await second.close()
        await until(lambda: links[1].closed)
        await asyncio.sleep(0.05)
        assert inbox.events.empty()
        assert pool.alive(owner)


async def test_pool_stage_that_answers_another_jobs_session_is_refused_and_blamed() -> None:
    async with paired() as (pool, links, dialer, at):
        link = await dialer.dial(at)
        await until(lambda: bool(links))
        inbox = Inbox(job=MANIFEST.model_id, owners=frozenset({identity().owner}))
        pool.subscribe(inbox)
        await link.send(tokens(bytes(32)))  # of no job: late, and nobody's fault
        await link.send(tokens(inbox.job))
        await asyncio.wait_for(link.wait_closed(), 30)
        assert "another route" in link.reason
        assert isinstance(inbox.events.get_nowait(), Lost)  # of the stage that the job has, to which there is no link
        assert inbox.events.empty()
        assert not pool.alive(dialer.identity.owner)


async def test_stage_twin_with_one_key_cannot_end_a_job_of_the_other(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        node = made.net.nodes[0]
        twin = Dialer(identity=made.who, directory=made.net.directory, patience=CALM)
        link = await twin.dial(node.destination)
        asked = await made.asking(PROMPT, max_tokens=40)
        running = asyncio.create_task(asked.run())
        await until(lambda: bool(list(node.role._jobs)))
        await link.send(pb.Frame(end=pb.End(job=next(iter(node.role._jobs)).hash, step=1)))
        await asyncio.wait_for(link.wait_closed(), 30)
        assert "another worker" in link.reason
        assert node.blames[0].owner == made.who.owner
        assert await running == asked.expected(40)
        assert node.stage.price == PRICE
