"""Whatever happens to a stage, at any moment: it is replaced, and the answer is that of an undisturbed swarm."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.node.stage.network import Node
from tests.node.worker.test_answers import note
from tests.node.worker.test_failures import slow_down, spare_for
from tests.node.worker.world import World, until, world

from plait.protocol.ids import Address
from plait.protocol.pb import stage_pb2 as pb
from plait_node.wire import Destination, Link

PROMPT = [token % 60 for token in range(200)]
TOKENS = 40
Strike = Callable[[Node], Awaitable[None]]


async def killed(node: Node) -> None:
    await node.kill()


async def cut(node: Node) -> None:
    """Let nothing out any more; those around it hear silence."""
    for link in node.role._neighbours.all():
        link._transport.write = _nothing  # type: ignore[method-assign, assignment]


async def _nothing(_: bytes) -> None:
    return


async def slowed(node: Node) -> None:
    slow_down(node, 0.7)


async def garbage(node: Node) -> None:
    """Pass on rows that are no numbers, to whomever it is told to."""
    reach = node.role._neighbours.link_to

    async def link_to(where: Destination) -> Link:
        return spoiled(await reach(where))

    node.role._neighbours.link_to = link_to  # type: ignore[method-assign]
    for link in node.role._neighbours.all():
        spoiled(link)


def spoiled(link: Link) -> Link:
    send = link.send

    async def sending(frame: pb.Frame, *args: Any, **options: Any) -> None:
        if frame.WhichOneof("body") == "rows":
            count = len(frame.rows.data) // 4
            frame.rows.data = np.full(count, np.nan, dtype="<f4").tobytes()
        await send(frame, *args, **options)

    link.send = sending  # type: ignore[method-assign]
    return link


async def begin(made: World, strike: Strike, victim: Node, moment: str) -> Callable[[], Awaitable[None]]:
    """Return what waits for the moment and strikes."""
    passes, quick, now = 0, victim.engine.step, asyncio.Event()
    loop = asyncio.get_running_loop()

    def counted(*args: Any, **options: Any) -> object:
        nonlocal passes
        passes += 1
        if passes == 3 and moment == "prefill":
            asyncio.run_coroutine_threadsafe(strike(victim), loop).result(5)
            loop.call_soon_threadsafe(now.set)
        return quick(*args, **options)

    victim.engine.step = counted  # type: ignore[method-assign, assignment]

    async def wait() -> None:
        if moment == "prefill":
            await now.wait()
        else:
            await strike(victim)

    return wait


@pytest.mark.parametrize("moment", ["prefill", "decode"])
@pytest.mark.parametrize("strike", [killed, cut, slowed, garbage])
@pytest.mark.parametrize("place", [0, 1])
async def test_stage_struck_at_any_moment_is_replaced_and_no_token_changes(
    tmp_path: Path, place: int, strike: Strike, moment: str
) -> None:
    async with world(tmp_path) as made:
        victim = made.net.nodes[place]
        for node in list(made.net.nodes):
            await spare_for(made, node)
        made.choice = note("chunked-prefill", chunk=32)
        asked = await made.asking_long(PROMPT, max_tokens=TOKENS)
        struck = await begin(made, strike, victim, moment)
        running = asyncio.create_task(asked.run(deadline_s=40))
        if moment == "decode":
            await until(lambda: len(asked.verifier.ids) >= 5)
        await struck()
        assert await running == asked.expected(TOKENS)
        assert asked.job is not None
        assert asked.job.message.attempt > 1
        assert victim.identity.owner not in [stage.node for stage in asked.job.message.route]
        assert asked.verifier.report().level == "L0"


async def test_stage_whose_last_leaves_were_lost_takes_the_next_job_and_its_payments(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        victim = made.net.nodes[1]
        spare = await spare_for(made, victim)
        made.choice = note("chunked-prefill", chunk=32)
        deliver, lost = made.tools.pool._deliver, asyncio.Event()

        def without_leaves(peer: Address, kind: str, frame: pb.Frame) -> str | None:
            if (peer, kind) != (victim.identity.owner, "leaf"):
                return deliver(peer, kind, frame)
            lost.set()
            return None

        made.tools.pool._deliver = without_leaves  # type: ignore[method-assign]
        asked = await made.asking_long(PROMPT, max_tokens=TOKENS)  # so long a prompt is paid ahead
        running = asyncio.create_task(asked.run(deadline_s=40))
        async with asyncio.timeout(30):
            await lost.wait()
        await cut(victim)
        assert await running == asked.expected(TOKENS)
        await made.settled()

        made.tools.pool._deliver = deliver  # type: ignore[method-assign]
        await spare.kill()
        await until(lambda: all(link.closed for link in victim.role._neighbours.all()))  # all it had is cut
        for _ in range(2):
            again = await made.asking_long(PROMPT, max_tokens=TOKENS)
            assert await again.run(deadline_s=40) == again.expected(TOKENS)
            assert again.job is not None
            assert victim.identity.owner in [stage.node for stage in again.job.message.route]
            assert again.job.message.attempt == 1
