"""What the worker does when a stage, the payer or the request is not as it should be."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.node.stage.network import Node
from tests.node.stage.tiny import BLOCKS
from tests.node.wire.peers import DOMAIN
from tests.node.worker.asked import GROUP, Asked
from tests.node.worker.world import UNPAID, World, leaf_of, until, world

from plait.protocol.codec import signed_to_pb
from plait.protocol.ids import to_hex
from plait.protocol.messages import Finish
from plait.protocol.money import stage_fee_of
from plait.protocol.pb import gateway_pb2, stage_pb2
from plait.protocol.receipts import ABORTED
from plait.protocol.sealing import ContentKey, seal_prompt

PROMPT = [token % 60 for token in range(3, 40)]


async def spare_for(made: World, node: Node) -> Node:
    """Start a second holder of the same blocks, announced as slower."""
    spare = await made.net.add(node.engine.first, node.engine.last)
    await made.announce(spare, step_micros=5_000)
    return spare


def slow_down(node: Node, pause_s: float) -> None:
    """Let every step of a stage take longer."""
    quick = node.engine.step

    def step(*args: Any, **options: Any) -> object:
        time.sleep(pause_s)
        return quick(*args, **options)

    node.engine.step = step  # type: ignore[method-assign]


async def test_worker_stage_dies_mid_answer_and_nobody_else_serves_it_error_names_it(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        dying = made.net.nodes[1]
        asked = await made.asking(PROMPT, max_tokens=60)
        asked.kill_at = (30, dying)
        ids = await asked.run()

        assert asked.error is not None
        fault = asked.error.error
        assert fault.code == "stage_failed"
        assert to_hex(dying.identity.owner) in fault.text
        assert "blocks 1-1" in fault.text
        assert fault.retry
        assert asked.receipt is None
        assert 30 <= len(ids) < 60

        await spare_for(made, dying)
        second = await made.asking(PROMPT, max_tokens=12)
        assert await second.run() == second.expected(12)
        assert second.job is not None
        assert dying.identity.owner not in [stage.node for stage in second.job.message.route]


@pytest.mark.parametrize("many", [1, 3], ids=["one-link", "all-links"])
@pytest.mark.parametrize("count", [0, 30], ids=["in-the-prompt", "mid-answer"])
async def test_worker_that_loses_links_to_stages_that_nobody_can_replace_asks_them_again(
    tmp_path: Path, many: int, count: int
) -> None:
    """A process that stood still for two seconds is dropped by all its peers: no stage is at fault."""
    async with world(tmp_path) as made:
        slow_down(made.net.nodes[0], 0.03)
        asked = await made.asking_long(PROMPT, max_tokens=60)
        answering = asyncio.create_task(asked.run())
        node = made.net.nodes[0]
        await until(lambda: any(not job.closed for job in node.role._jobs) and len(asked.verifier.ids) >= count)
        for each in made.net.nodes[:many]:
            for link in [link for link in each.role._neighbours.all() if link.peer == made.who.owner]:
                await link._transport.abort()
        assert await answering == asked.expected(60)
        assert asked.error is None
        assert asked.job is not None
        assert asked.job.message.attempt >= 2
        await made.settled()
        assert all(leaf_of(made, asked, each) is not None for each in made.net.nodes)


async def test_worker_stage_dies_nothing_beyond_the_delivered_windows_is_paid(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        dying = made.net.nodes[1]
        asked = await made.asking(PROMPT, max_tokens=60)
        asked.kill_at = (30, dying)
        await asked.run()
        await until(lambda: not made.role.busy)

        delivered = asked.verifier.verified
        steps = len(PROMPT) + delivered - 1
        for node in made.net.nodes[:3]:
            leaf = leaf_of(made, asked, node)
            assert leaf is not None
            assert (leaf.kind, leaf.hash) == (ABORTED, asked.digest)
            assert leaf.hop_amount == stage_fee_of(node.stage, steps)
            assert leaf.windows_paid == asked.verifier.windows


async def test_worker_stage_gone_before_the_answer_another_route_is_taken_in_the_same_request(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        gone = made.net.nodes[2]
        await spare_for(made, gone)
        await gone.kill()
        asked = await made.asking(PROMPT, max_tokens=9)
        assert await asked.run() == asked.expected(9)


async def test_worker_stage_that_loses_its_link_while_prefilling_is_replaced_before_any_token(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        slow = made.net.nodes[2]
        await spare_for(made, slow)
        slow.engine.gate = threading.Event()
        asked = await made.asking(PROMPT, max_tokens=9)
        running = asyncio.create_task(asked.run())
        await until(lambda: bool(made.net.nodes[0].engine.calls))
        await slow.kill()
        slow.engine.gate.set()
        assert await running == asked.expected(9)
        assert asked.events.count("job") == 2
        assert asked.job is not None
        assert asked.job.message.attempt == 2
        await made.settled()
        shared = leaf_of(made, asked, made.net.nodes[0])
        lost = leaf_of(made, asked, slow)
        assert shared is not None
        assert shared.hop_amount == stage_fee_of(made.net.nodes[0].stage, len(PROMPT) + 8)
        assert lost is not None  # it keeps what it was paid ahead: nobody knows what it signed before it was gone
        assert (lost.kind, lost.hop_amount) == (ABORTED, stage_fee_of(slow.stage, len(PROMPT)))


async def test_worker_no_stage_left_says_which_blocks_are_missing(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        gone = made.net.nodes[1]
        del made.dht.shelf[
            next(name for name in made.dht.shelf if name[0] == made.source.key(gone.identity.owner).public)
        ]
        asked = await made.asking(PROMPT)
        await asked.run()
        assert asked.error is not None
        assert asked.error.error.code == "no_route"
        assert "blocks 1-1 of 3" in asked.error.error.text


async def test_worker_prompt_beyond_the_routes_room_says_the_limit(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        await made.announce(made.net.nodes[2], free_steps=50)
        asked = await made.asking(PROMPT, max_tokens=20)
        await asked.run()
        assert asked.error is not None
        assert asked.error.error.code == "prompt_too_long"
        assert "room for 50" in asked.error.error.text


async def test_worker_payer_who_stops_paying_gets_no_more_than_the_credit_line(tmp_path: Path) -> None:
    async with world(tmp_path, patience=UNPAID) as made:
        asked = await made.asking(PROMPT, max_tokens=150)
        asked.pays = False
        ids = await asked.run()
        assert len(ids) == 65  # the token of the prompt's last row, and four windows
        assert asked.receipt is not None
        assert asked.receipt.message.finish == Finish.FAILED
        assert sum(start >= len(PROMPT) for _, start, _ in made.net.nodes[0].engine.calls) <= 64


async def test_worker_cancelled_answer_ends_with_a_receipt_over_what_was_delivered(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        asked = await made.asking(PROMPT, max_tokens=150)
        asked.cancel_at = 10
        ids = await asked.run()
        assert asked.receipt is not None
        assert asked.receipt.message.finish == Finish.CANCELLED
        assert 10 <= len(ids) < 20
        assert asked.receipt.message.output_tokens == len(ids)
        assert ids == asked.expected(len(ids))


async def test_worker_answer_ends_before_its_deadline_with_what_there_is(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        asked = await made.asking(PROMPT, max_tokens=150, deadline_s=3)  # work ends 2 s before the deadline
        slow_down(made.net.nodes[1], 0.03)
        ids = await asked.run()
        assert asked.receipt is not None
        assert asked.receipt.message.finish == Finish.FAILED
        assert 1 <= len(ids) < 150


async def refused(made: World, asked: Asked, code: str) -> str:
    await asked.send()
    async with asyncio.timeout(60):
        async for result in made.broker.results(made.gateway.owner, asked.digest):
            assert result.event.WhichOneof("body") == "error"
            assert result.event.error.code == code, result.event.error
            return result.event.error.text
    raise AssertionError


async def test_worker_refuses_a_request_that_is_not_what_was_sealed(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        asked = await made.asking(PROMPT)
        asked.call.prompt = seal_prompt(asked.content_key, asked.digest, [*PROMPT[:-1], 9])
        assert "commits to" in await refused(made, asked, "bad_request")


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"model": b"\x01" * 32}, "unknown_model"),
        ({"max_price": 10}, "price_too_low"),
        ({"quote": b"\x02" * 32}, "bad_request"),
        ({"max_tokens": 201}, "prompt_too_long"),
    ],
)
async def test_worker_refuses_requests_beyond_its_quote(tmp_path: Path, changed: dict[str, int], code: str) -> None:
    async with world(tmp_path) as made:
        plain = await made.asking(PROMPT)
        request = made.payer.signed(DOMAIN, replace(plain.request.message, **changed))  # type: ignore[arg-type]
        plain.call.request.CopyFrom(signed_to_pb(request))
        await refused(made, plain, code)


async def test_worker_refuses_what_is_past_its_deadline(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        await refused(made, await made.asking(PROMPT, deadline_s=-5), "deadline")


async def test_worker_refuses_a_capsule_for_somebody_else(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        asked = await made.asking(PROMPT)
        asked.call.capsules[0].sealed = bytes(len(asked.call.capsules[0].sealed))
        await refused(made, asked, "sealing")
        other = await made.asking(PROMPT)
        other.call.capsules[0].node = b"\x01" * 20
        await refused(made, other, "bad_request")


async def test_worker_refuses_a_pay_below_the_input(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        asked = await made.asking(PROMPT)
        other = await made.asking(PROMPT[:3])
        asked.call.payment.CopyFrom(other.call.payment)
        assert "payer's own" in await refused(made, asked, "bad_request")


async def test_worker_garbage_without_a_gateway_goes_to_the_dead_letters(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        call = gateway_pb2.JobCall(prompt=b"?")
        await made.broker.publish_job(GROUP, 1, call, request=b"\x07" * 32)
        letters: list[object] = []
        async with asyncio.timeout(60):
            while not letters:
                letters = list(await made.broker.dead_letters())
                await asyncio.sleep(0.01)
        assert "gateway" in (await made.broker.dead_letters())[0].reason


async def test_worker_redelivered_before_any_token_answers_under_a_higher_attempt(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        asked = await made.asking(PROMPT, max_tokens=5)
        jobs = made.broker.jobs(b"\x55" * 8)
        await made.broker.publish_job(b"\x55" * 8, 1, asked.call, request=asked.digest)
        await (await anext(jobs)).nak()
        again = await anext(jobs)
        await made.role.take(again)
        found: list[int] = []
        async with asyncio.timeout(60):
            async for result in made.broker.results(made.gateway.owner, asked.digest):
                if result.event.WhichOneof("body") == "receipt":
                    found.append(result.event.receipt.message.output_tokens)
                    break
        assert found == [5]


async def test_worker_tail_that_sends_a_token_twice_is_accused_and_avoided(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        tail = made.net.nodes[BLOCKS - 1]
        await spare_for(made, tail)
        asked = await made.asking(PROMPT, max_tokens=40)
        running = asyncio.create_task(asked.run())
        await until(lambda: len(asked.verifier.ids) >= 3)
        job = asked.job.struct_hash()  # type: ignore[union-attr]
        link = next(link for link in tail.role._neighbours.all() if link.peer == made.who.owner)
        await link.send(stage_pb2.Frame(tokens=stage_pb2.Tokens(job=job, step=3, ids=[1])))
        assert await running == asked.expected(40)
        assert asked.job is not None
        assert asked.job.message.route[-1].node != tail.identity.owner
        second = await made.asking(PROMPT, max_tokens=5)
        assert await second.run() == second.expected(5)
        assert second.job is not None
        assert second.job.message.route[-1].node != tail.identity.owner


async def test_worker_unexpected_frame_costs_the_link_not_the_process(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        await (await made.asking(PROMPT, max_tokens=3)).run()
        node = made.net.nodes[0]
        link = next(link for link in node.role._neighbours.all() if link.peer == made.who.owner)
        await link.send(stage_pb2.Frame(start=stage_pb2.Start(job=b"\x01" * 32, row=0)))
        await until(lambda: not made.pool.alive(node.identity.owner))
        asked = await made.asking(PROMPT, max_tokens=3)
        assert await asked.run() == asked.expected(3)


async def test_worker_content_key_is_not_reused_for_another_attempt(tmp_path: Path) -> None:
    """The very same draft signed twice gets two attempts, so that no counter nonce is used twice."""
    async with world(tmp_path) as made:
        asked = await made.asking(PROMPT, max_tokens=3)
        await asked.run()
        assert asked.job is not None
        again = made.tools.signer.job(replace(asked.job.message, attempt=1))
        assert again.message.attempt == asked.job.message.attempt + 1
        key = ContentKey.generate()
        assert key.answer_key(again.struct_hash()) != key.answer_key(asked.job.struct_hash())


async def test_worker_learns_nothing_of_jobs_that_failed_or_were_cancelled(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        cancelled = await made.asking(PROMPT, max_tokens=60)
        cancelled.cancel_at = 10
        await cancelled.run()
        failed = await made.asking(PROMPT, max_tokens=60)
        failed.kill_at = (20, made.net.nodes[1])
        await failed.run()
        assert made.learned == []
