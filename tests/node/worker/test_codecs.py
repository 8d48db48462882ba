"""Whole answers under a profile whose rows travel in fewer bytes: failures on the way change no token."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tests.node.stage.tiny import ALL_INT8, PREFILL_BF16, PREFILL_INT8
from tests.node.worker.test_answers import note
from tests.node.worker.test_failures import PROMPT, spare_for
from tests.node.worker.world import World, world

from plait.protocol.manifest import Profile

CODED = (PREFILL_BF16, PREFILL_INT8, ALL_INT8)
NAMES = [profile.name for profile in CODED]
LONG = [token % 60 for token in range(200)]


async def same_answer(made: World, prompt: list[int], count: int, **changed: int) -> None:
    asked = await made.asking_long(prompt, max_tokens=count, **changed)
    assert await asked.run() == asked.expected(count)
    assert asked.verifier.report().level == "L0"


@pytest.mark.parametrize("profile", CODED, ids=NAMES)
async def test_worker_answers_by_the_book_however_the_prompt_is_cut(tmp_path: Path, profile: Profile) -> None:
    async with world(tmp_path, profile=profile) as made:
        await same_answer(made, LONG, 20)
        made.choice = note("chunked-prefill", chunk=32)
        await same_answer(made, LONG, 20, temperature=900_000)


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("profile", CODED, ids=NAMES)
async def test_stage_killed_and_replaced_gives_the_same_tokens(tmp_path: Path, profile: Profile, place: int) -> None:
    async with world(tmp_path, profile=profile) as made:
        dying = made.net.nodes[place]
        spare = await spare_for(made, dying)
        asked = await made.asking_long(PROMPT, max_tokens=60, temperature=700_000)
        asked.kill_at = (30, dying)

        assert await asked.run() == asked.expected(60)
        assert asked.job is not None
        assert asked.job.message.row >= len(PROMPT)
        assert asked.job.message.route[place].node == spare.identity.owner
        assert asked.verifier.report().level == "L0"


@pytest.mark.parametrize("seed", range(4))
async def test_any_stage_killed_at_any_moment_gives_the_same_tokens(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    async with world(tmp_path, profile=CODED[seed % len(CODED)]) as made:
        for node in list(made.net.nodes):
            await spare_for(made, node)
        asked = await made.asking_long(LONG, max_tokens=60, temperature=dice.choice([0, 800_000]))
        asked.kill_at = (dice.randrange(1, 59), made.net.nodes[dice.randrange(3)])
        made.choice = note("chunked-prefill", chunk=32)

        assert await asked.run() == asked.expected(60)
        assert asked.verifier.report().level == "L0"


@pytest.mark.parametrize("profile", [PREFILL_BF16, PREFILL_INT8], ids=NAMES[:2])
async def test_attempt_from_the_first_row_reads_its_own_tokens_in_the_decode_codec(
    tmp_path: Path, profile: Profile
) -> None:
    async with world(tmp_path, profile=profile) as made:
        prompt = LONG[:100]
        await same_answer(made, prompt, 5)
        dying = made.net.nodes[1]
        await spare_for(made, dying)
        asked = await made.asking_long(prompt, max_tokens=40)
        asked.kill_at = (20, dying)

        assert await asked.run() == asked.expected(40)
        assert asked.job is not None
        assert asked.job.message.row == 0
        assert asked.job.message.start >= 20
