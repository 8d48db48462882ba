"""A stage that fails inside an answer is replaced: same tokens, one stream, only its own blocks computed again."""

from __future__ import annotations

import asyncio
import random
import threading
from pathlib import Path

import pytest
from tests.node.stage.network import Node
from tests.node.stage.tiny import MANIFEST
from tests.node.worker.test_answers import note
from tests.node.worker.test_failures import PROMPT, spare_for
from tests.node.worker.world import World, leaf_of, until, world

from plait.protocol.messages import Finish
from plait.protocol.money import stage_fee_of
from plait.protocol.receipts import RECEIPT
from plait_node.wire import row_bytes

CACHED = [token % 60 for token in range(100)]
WHOLE = 96  # steps of its whole windows


def begun(node: Node) -> int:
    """Return how often a stage computed a sequence from its first row."""
    return sum(start == 0 for _, start, _ in node.engine.calls)


def dies_in_pass(node: Node, number: int) -> None:
    """Have a stage vanish when it is about to compute so many passes from now."""
    passes, loop, quick = 0, asyncio.get_running_loop(), node.engine.step

    def gated(*args: object, **options: object) -> object:
        nonlocal passes
        passes += 1
        if passes == number:
            asyncio.run_coroutine_threadsafe(node.kill(), loop).result(5)
        return quick(*args, **options)  # type: ignore[arg-type]

    node.engine.step = gated  # type: ignore[method-assign, assignment]


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
        dies_in_pass(dying, 3)
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


async def warmed(made: World, prompt: list[int] = CACHED) -> None:
    """Have the stages answer a prompt, so that they hold its whole windows."""
    first = await made.asking(prompt, max_tokens=5)
    assert await first.run() == first.expected(5)
    await made.settled()
    await until(lambda: not any(list(node.role._jobs.of()) for node in made.net.nodes))
    for node in made.net.nodes:
        node.engine.calls.clear()


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_mending_prompt_from_a_cache_is_replayed_to_the_spare_alone(tmp_path: Path, place: int) -> None:
    async with world(tmp_path) as made:
        dying, kept = made.net.nodes[place], [node for at, node in enumerate(made.net.nodes) if at != place]
        spare = await spare_for(made, dying)
        await warmed(made)
        asked = await made.asking_long(CACHED, max_tokens=60, temperature=700_000)
        asked.kill_at = (30, dying)
        assert await asked.run() == asked.expected(60)

        assert asked.job is not None
        assert asked.job.message.row >= len(CACHED)
        assert begun(spare) == 1
        for node in kept:
            assert min(start for _, start, _ in node.engine.calls) == WHOLE  # what it took from its cache
        await until(lambda: not any(node.role.facts.rows.used for node in (*kept, spare)))


async def test_mending_prompt_from_a_cache_pays_nobody_for_rows_sent_again(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        dying = made.net.nodes[1]
        spare = await spare_for(made, dying)
        await warmed(made)
        asked = await made.asking_long(CACHED, max_tokens=60)
        asked.kill_at = (30, dying)
        ids = await asked.run()
        await made.settled()

        assert asked.job is not None
        row, end = asked.job.message.row, len(CACHED) + len(ids) - 1
        steps = {dying.identity.owner: row, spare.identity.owner: end - row}
        assert 0 < row < end
        for node in (*made.net.nodes[:3], spare):
            leaf = leaf_of(made, asked, node)
            assert leaf is not None
            paid = stage_fee_of(node.stage, steps.get(node.identity.owner, end))
            assert (leaf.kind, leaf.hop_amount) == (RECEIPT, paid)


@pytest.mark.parametrize("place", [1, 2])
async def test_mending_while_the_rest_of_a_cached_prompt_is_read(tmp_path: Path, place: int) -> None:
    async with world(tmp_path) as made:
        dying = made.net.nodes[place]
        spare = await spare_for(made, dying)
        await warmed(made)
        asked = await made.asking_long([*CACHED, *(token % 60 for token in range(150))], max_tokens=20)
        dies_in_pass(dying, 3)
        made.choice = note("chunked-prefill+prefix-cache", chunk=32)
        assert await asked.run() == asked.expected(20)
        assert asked.job is not None
        assert asked.job.message.row >= WHOLE
        assert begun(spare) == 1
        assert not any(begun(node) for node in made.net.nodes[:3])


async def test_mending_two_stages_of_a_cached_prompt_one_after_the_other(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        await spares(made)
        await warmed(made)
        first, second = made.net.nodes[1], made.net.nodes[2]
        asked = await made.asking_long(CACHED, max_tokens=90)
        asked.kill_at = (20, first)
        running = asyncio.create_task(asked.run())
        await until(lambda: len(asked.verifier.ids) >= 50)
        await second.kill()
        assert await running == asked.expected(90)
        assert asked.events.count("job") == 3
        assert asked.job is not None
        assert asked.job.message.row >= len(CACHED)


async def test_mending_cached_prompt_whose_rows_made_place_is_computed_again_over_a_new_route(tmp_path: Path) -> None:
    room = 260  # rows: of the job that fills the cache, and of its windows beside it
    async with world(tmp_path, rows_bytes=room * row_bytes("fp32", MANIFEST.hidden)) as made:
        dying = made.net.nodes[1]
        await spare_for(made, dying)
        await warmed(made)
        assert all(node.role.facts.rows.cached for node in made.net.nodes[:2])
        large = await made.asking_long([9] * (room - 20), max_tokens=20)
        assert await large.run() == large.expected(20)
        await until(lambda: not any(node.role.facts.rows.used for node in made.net.nodes))
        begun_before = begun(made.net.nodes[0])
        asked = await made.asking_long(CACHED, max_tokens=40)
        asked.kill_at = (20, dying)
        assert await asked.run() == asked.expected(40)
        assert asked.job is not None
        assert asked.job.message.row == 0
        assert begun(made.net.nodes[0]) == begun_before + 1  # the first attempt began with windows all the same
        others = [node for node in made.net.nodes if node is not dying]
        assert {blame.owner for node in others for blame in node.blames} <= {dying.identity.owner}


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
