"""A stage that fails inside an answer is replaced: same tokens, one stream, only its own blocks computed again."""

from __future__ import annotations

import asyncio
import random
import threading
from pathlib import Path

import pytest
from tests.node.stage.network import Node
from tests.node.worker.test_answers import note
from tests.node.worker.test_failures import PROMPT, spare_for
from tests.node.worker.world import World, leaf_of, until, world

from plait.protocol.messages import Finish
from plait.protocol.money import stage_fee_of
from plait.protocol.receipts import RECEIPT


def begun(node: Node) -> int:
    """Return how often a stage computed a sequence from its first row."""
    return sum(start == 0 for _, start, _ in node.engine.calls)


async def spares(made: World) -> list[Node]:
    return [await spare_for(made, node) for node in list(made.net.nodes)]


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_mending_stage_dies_mid_answer_the_answer_goes_on_as_if_it_had_not(tmp_path: Path, place: int) -> None:
    async with world(tmp_path) as made:
        dying, kept = made.net.nodes[place], [node for at, node in enumerate(made.net.nodes) if at != place]
        spare = await spare_for(made, dying)
        asked = await made.asking_long(PROMPT, max_tokens=60, temperature=700_000)
        asked.kill_at = (30, dying)
        ids = await asked.run()

        assert ids == asked.expected(60)
        assert asked.error is None
        assert asked.receipt is not None
        assert len(asked.receipt.message.segments) == 2
        assert asked.job is not None
        assert asked.job.message.row >= len(PROMPT)
        assert asked.job.message.route[place].node == spare.identity.owner
        assert [begun(node) for node in kept] == [1, 1]
        assert begun(spare) == 1
        # The memory for rows went from attempt to attempt with them, and is given back with the last.
        await until(lambda: not any(node.role.facts.rows.used for node in (*kept, spare)))


async def test_mending_pays_the_lost_stage_its_windows_and_the_others_all_of_theirs(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        dying = made.net.nodes[1]
        spare = await spare_for(made, dying)
        asked = await made.asking_long(PROMPT, max_tokens=60)
        asked.kill_at = (30, dying)
        ids = await asked.run()
        await made.settled()

        assert asked.job is not None
        row, end = asked.job.message.row, len(PROMPT) + len(ids) - 1
        steps = {dying.identity.owner: row, spare.identity.owner: end - row}
        for node in (*made.net.nodes[:3], spare):
            leaf = leaf_of(made, asked, node)
            assert leaf is not None
            assert (leaf.kind, leaf.hop_amount) == (
                RECEIPT,
                stage_fee_of(node.stage, steps.get(node.identity.owner, end)),
            )


async def test_mending_while_the_prompt_is_read_keeps_the_windows_that_all_signed(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        dying = made.net.nodes[2]
        spare = await spare_for(made, dying)
        asked = await made.asking_long([token % 60 for token in range(200)], max_tokens=20)
        passes = 0

        def gated(*args: object, **options: object) -> object:
            nonlocal passes
            passes += 1
            if passes == 3:
                asyncio.run_coroutine_threadsafe(dying.kill(), loop).result(5)
            return quick(*args, **options)

        loop, quick = asyncio.get_running_loop(), dying.engine.step
        dying.engine.step = gated  # type: ignore[method-assign, assignment]
        made.choice = note("chunked-prefill", chunk=32)
        assert await asked.run() == asked.expected(20)
        assert asked.job is not None
        assert asked.job.message.row > 0
        assert begun(made.net.nodes[0]) == 1
        assert begun(spare) == 1


async def test_mending_two_stages_one_after_the_other(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        await spares(made)
        first, second = made.net.nodes[2], made.net.nodes[0]
        asked = await made.asking_long(PROMPT, max_tokens=90)
        asked.kill_at = (20, first)
        running = asyncio.create_task(asked.run())
        await until(lambda: len(asked.verifier.ids) >= 50)
        await second.kill()
        assert await running == asked.expected(90)
        assert asked.events.count("job") == 3


async def test_mending_without_a_spare_goes_over_other_stages_from_what_was_delivered(tmp_path: Path) -> None:
    """Nobody serves just the lost blocks, but one stage serves all."""
    async with world(tmp_path) as made:
        whole = await made.net.add(0, 3)
        await made.announce(whole, step_micros=50_000)
        asked = await made.asking_long(PROMPT, max_tokens=60)
        asked.kill_at = (30, made.net.nodes[1])
        assert await asked.run() == asked.expected(60)
        assert asked.job is not None
        assert (asked.job.message.row, len(asked.job.message.route)) == (0, 1)
        assert asked.job.message.start >= 30


async def test_mending_prompt_from_a_cache_is_computed_again_over_a_new_route(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        prompt = [token % 60 for token in range(100)]
        assert await (first := await made.asking(prompt, max_tokens=5)).run() == first.expected(5)
        dying = made.net.nodes[1]
        await spare_for(made, dying)
        asked = await made.asking(prompt, max_tokens=40)
        asked.kill_at = (20, dying)
        assert await asked.run() == asked.expected(40)
        assert asked.job is not None
        assert asked.job.message.row == 0


async def test_mending_the_last_tokens_are_never_out_before_their_windows(tmp_path: Path) -> None:
    """A stage that dies when the answer has ended for everybody else: its end is drawn again, not lost."""
    async with world(tmp_path) as made:
        dying = made.net.nodes[1]
        await spare_for(made, dying)
        asked = await made.asking_long(PROMPT, max_tokens=24)
        dying.role._sign = refuses_after(dying, count=4)  # type: ignore[assignment]
        assert await asked.run() == asked.expected(24)
        assert asked.receipt is not None
        assert asked.receipt.message.finish == Finish.LENGTH


@pytest.mark.parametrize("seed", range(6))
async def test_mending_any_stage_at_any_moment(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    async with world(tmp_path) as made:
        await spares(made)
        asked = await made.asking_long(PROMPT, max_tokens=100, temperature=dice.choice([0, 800_000]))
        asked.kill_at = (dice.randrange(1, 99), made.net.nodes[dice.randrange(3)])
        ids = await asked.run()
        assert ids == asked.expected(100)
        assert asked.verifier.report().level == "L0"


def refuses_after(node: Node, *, count: int) -> object:
    """Return a signer that signs so many windows, and then dies with its node."""
    sign, lock, signed = node.role._sign, threading.Lock(), 0

    def signing(leaf: object) -> object:
        nonlocal signed
        with lock:
            signed += 1
        if signed > count:
            raise RuntimeError("the disk is gone")
        return sign(leaf)  # type: ignore[arg-type]

    return signing
