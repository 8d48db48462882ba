"""A worker that dies is followed by another one of its group: the payer sees one answer and pays once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.node.wire.peers import DOMAIN
from tests.node.worker.test_failures import PROMPT, slow_down
from tests.node.worker.world import ACK_S, World, until, world

from plait.ledger import Journal, PayerBook
from plait.protocol.messages import Finish
from plait.protocol.pb import gateway_pb2
from plait_node.worker import HopDesk, LinkPool


@contextlib.asynccontextmanager
async def serving(made: World) -> AsyncIterator[None]:
    """Let a worker take jobs until the block ends."""
    task = asyncio.create_task(made.role.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await made.pool.close()


async def dies(made: World) -> None:
    """End a worker: no word to the payer, its links gone, its jobs handed out again."""
    assert made.serving is not None
    made.serving.cancel()
    await asyncio.gather(made.serving, return_exceptions=True)
    await made.pool.close()


def restarted(made: World) -> None:
    """Put the worker together again as its new process does: the journal is all that it knows."""
    tools = made.tools
    pool = LinkPool(tools.pool._dialer)
    book = PayerBook(Journal(made.net.folder / "worker.db"), DOMAIN, made.who.key, payer=made.who.owner)
    desk = HopDesk(channel=book.channel, pool=pool, domain=DOMAIN, directory=made.net.directory, ack_s=ACK_S)
    pool.report_to(desk)
    made.tools = replace(tools, pool=pool, desk=desk)
    made.hire()


@pytest.mark.parametrize("count", [1, 17, 55])
async def test_takeover_answer_goes_on_behind_what_was_delivered(tmp_path: Path, count: int) -> None:
    async with world(tmp_path) as made:
        fellow = made.fellow()
        slow_down(made.net.nodes[0], 0.03)
        asked = await made.asking_long(PROMPT, max_tokens=80, temperature=700_000)
        running = asyncio.create_task(asked.run())
        await until(lambda: len(asked.verifier.ids) >= count)
        await dies(made)
        async with serving(fellow):
            got = await running
            assert asked.error is None, asked.error
            assert got == asked.expected(80)
        assert asked.receipt is not None
        assert asked.job is not None
        assert asked.job.message.worker == fellow.who.owner, asked.events
        assert asked.job.message.attempt == 2
        assert asked.job.message.start >= count
        assert asked.error is None
        assert asked.receipt.message.price == asked.verifier.due()


async def test_takeover_by_the_same_worker_after_its_restart(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        slow_down(made.net.nodes[0], 0.03)
        asked = await made.asking_long(PROMPT, max_tokens=60)
        running = asyncio.create_task(asked.run())
        await until(lambda: len(asked.verifier.ids) >= 20)
        await dies(made)
        restarted(made)
        async with serving(made):
            assert await running == asked.expected(60)
        assert asked.error is None
        assert asked.job is not None
        assert asked.job.message.attempt == 2


async def test_takeover_by_a_worker_that_died_in_debt_makes_it_good(tmp_path: Path) -> None:
    async with world(tmp_path, owed_s=0.0) as made:

        def owed() -> list[int]:
            now = asyncio.get_running_loop().time()
            return [node.role._debts.owed(made.who.owner, now=now) for node in made.net.nodes]

        slow_down(made.net.nodes[0], 0.03)
        asked = await made.asking_long(PROMPT, max_tokens=60)
        running = asyncio.create_task(asked.run())
        await until(lambda: len(asked.verifier.ids) >= 20)
        await dies(made)
        await until(lambda: all(owed()))
        restarted(made)
        async with serving(made):
            assert await running == asked.expected(60)
            await made.settled()
            await until(lambda: not any(owed()))


async def test_takeover_tokens_that_come_in_between_are_counted_in(tmp_path: Path) -> None:
    """The worker that was thought dead publishes once more after its successor looked."""
    async with world(tmp_path) as made:
        fellow = made.fellow()
        asked = await made.asking_long(PROMPT, max_tokens=60)
        slow_down(made.net.nodes[0], 0.03)
        late = Late(made)
        running = asyncio.create_task(asked.run())
        await until(lambda: len(asked.verifier.ids) >= 20)
        await late.catch()
        await dies(made)
        async with serving(fellow):
            assert await running == asked.expected(60)
        assert late.sent


class Late:
    """Holds a worker's next chunk back until its successor publishes its first job record."""

    def __init__(self, made: World) -> None:
        self._broker, self._owner = made.broker, made.who.owner
        self._publish = made.broker.publish_result
        self._held: tuple[object, ...] | None = None
        self._key = ""
        self._caught = asyncio.Event()
        self.sent = False
        self._armed = False
        made.broker.publish_result = self._hold  # type: ignore[method-assign]

    async def catch(self) -> None:
        self._armed = True
        async with asyncio.timeout(60):
            await self._caught.wait()

    async def _hold(self, gateway: bytes, request: bytes, worker: bytes, event: object, *, key: str) -> None:
        kind = event.WhichOneof("body")  # type: ignore[attr-defined]
        if self._armed and worker == self._owner and self._held is None and kind == "chunk":
            self._held, self._key = (gateway, request, worker, event), key
            self._caught.set()
            await asyncio.Event().wait()
        if worker != self._owner and kind == "job" and self._held is not None and not self.sent:
            self.sent = True
            await self._publish(*self._held, key=self._key)  # type: ignore[arg-type]
        await self._publish(gateway, request, worker, event, key=key)  # type: ignore[arg-type]


async def test_takeover_of_an_answer_that_lacks_only_its_receipt(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        fellow = made.fellow()
        publish = made.broker.publish_result

        async def dying(gateway: bytes, request: bytes, worker: bytes, event: object, *, key: str) -> None:
            if worker == made.who.owner and event.WhichOneof("body") == "receipt":  # type: ignore[attr-defined]
                await asyncio.Event().wait()
            await publish(gateway, request, worker, event, key=key)  # type: ignore[arg-type]

        made.broker.publish_result = dying  # type: ignore[method-assign, assignment]
        asked = await made.asking_long(PROMPT, max_tokens=20)
        running = asyncio.create_task(asked.run())
        await until(lambda: len(asked.verifier.ids) == 20 and asked.verifier.verified == 20)
        await dies(made)
        async with serving(fellow):
            assert await running == asked.expected(20)
        assert asked.receipt is not None
        assert asked.receipt.message.finish == Finish.LENGTH
        assert asked.receipt.message.output_tokens == 20
        assert len(asked.receipt.message.segments) == 1


async def test_takeover_of_an_answer_that_ended_does_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        asked = await made.asking(PROMPT, max_tokens=5)
        assert await asked.run() == asked.expected(5)
        jobs = made.broker.jobs(b"\x55" * 8)
        await made.broker.publish_job(b"\x55" * 8, 1, asked.call, request=bytes(32))
        await (await anext(jobs)).nak()
        again = await anext(jobs)
        again.request = asked.digest  # type: ignore[misc]
        before = len(asked.events)
        await made.role.take(again)
        assert len(asked.events) == before


async def test_takeover_junk_of_strangers_in_the_stream_is_passed_over(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        asked = await made.asking(PROMPT, max_tokens=5)
        stranger = b"\x09" * 20
        chunk = gateway_pb2.ResultEvent(request=asked.digest, chunk=gateway_pb2.Chunk(job=b"\x01" * 32, sealed=b"?"))
        await made.broker.publish_result(made.gateway.owner, asked.digest, stranger, chunk, key="1.1")
        fault = gateway_pb2.ResultEvent(request=asked.digest)
        fault.error.code = "internal"
        await made.broker.publish_result(made.gateway.owner, asked.digest, stranger, fault, key="1.2")
        jobs = made.broker.jobs(b"\x55" * 8)
        await made.broker.publish_job(b"\x55" * 8, 1, asked.call, request=asked.digest)
        await (await anext(jobs)).nak()
        await made.role.take(await anext(jobs))
        results = made.broker.results(made.gateway.owner, asked.digest)
        kinds: list[str] = []
        async with asyncio.timeout(60):
            async for result in results:
                if result.worker == made.who.owner:
                    kinds.append(str(result.event.WhichOneof("body")))
                if kinds and kinds[-1] in ("receipt", "error"):
                    break
        assert kinds[0] == "job"
        assert kinds[-1] == "receipt"


async def test_takeover_worker_that_the_quote_does_not_name_gives_the_job_back(tmp_path: Path) -> None:
    """It joined the group after the quote: the key is sealed to the others."""
    async with world(tmp_path) as made:
        asked = await made.asking(PROMPT, max_tokens=5)
        stranger = made.fellow()
        assert made.serving is not None
        made.serving.cancel()
        await asyncio.gather(made.serving, return_exceptions=True)
        async with serving(stranger):
            running = asyncio.create_task(asked.run())
            await until(lambda: getattr(made.broker._queue._live.get(asked.digest), "deliveries", 0) > 0)
            async with serving(made):
                assert await running == asked.expected(5)
        assert stranger.role.failed == 0
