"""The worker role over three real stages: what it answers, signs, stores and pays."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from tests.node.stage.tiny import MANIFEST
from tests.node.wire.peers import DOMAIN
from tests.node.worker.asked import TERMS
from tests.node.worker.world import World, leaf_of, world

from plait.protocol.choice import ChoiceNote
from plait.protocol.messages import Finish
from plait.protocol.money import stage_fee_of
from plait.protocol.receipts import RECEIPT
from plait_node.policy import Guests

PROMPT = [token % 60 for token in range(3, 40)]


def note(method: str, **amounts: int) -> ChoiceNote:
    return ChoiceNote(method=method, amounts=amounts, predicted={"first_token_s": 0.005}, reason="asked for")


async def test_worker_greedy_answer_is_the_whole_models_and_passes_l0(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        asked = await made.asking(PROMPT, max_tokens=20)
        assert await asked.run() == asked.expected(20)
        assert asked.verifier.report().level == "L0"
        assert asked.receipt is not None
        assert asked.receipt.message.finish == Finish.LENGTH
        assert asked.receipt.message.price == asked.verifier.due() == 4 * len(PROMPT) + 8 * 20
        assert asked.events[0] == "job"
        assert asked.events[-2:] == ["chunk", "receipt"]
        assert asked.verifier.note is not None
        assert asked.verifier.note.method == "plain"


async def test_worker_seeded_answer_is_the_whole_models(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        asked = await made.asking(PROMPT, max_tokens=30, temperature=900_000)
        ids = await asked.run()
        assert ids == asked.expected(30)
        assert len(set(ids)) > 3 or ids[-1] in MANIFEST.end_tokens


async def test_worker_job_and_receipt_lie_in_the_table_before_the_gateway_looks(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        asked = await made.asking(PROMPT, max_tokens=5)
        await asked.run()
        job = await made.lookup.job(asked.digest, made.who.owner)
        receipt = await made.lookup.receipt(asked.digest, made.who.owner)
        assert job is not None
        assert receipt is not None
        assert asked.job is not None
        assert asked.receipt is not None
        assert job.covers(DOMAIN, asked.job)
        assert receipt.covers(DOMAIN, asked.receipt)


async def hops_paid(made: World, steps: int, *, windows: int, asked: object) -> None:
    await made.settled()
    for node in made.net.nodes:
        leaf = leaf_of(made, asked, node)  # type: ignore[arg-type]
        assert leaf is not None
        assert leaf.kind == RECEIPT
        assert leaf.hop_amount == stage_fee_of(node.stage, steps)
        assert leaf.windows_paid == windows


async def test_worker_pays_each_stage_for_exactly_the_steps_of_its_leaves(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        asked = await made.asking(PROMPT, max_tokens=20)
        await asked.run()
        steps = len(PROMPT) + 19  # the last token has no row
        await hops_paid(made, steps, windows=3 + 2, asked=asked)
        assert asked.receipt is not None
        leaf = leaf_of(made, asked, made.net.nodes[0])
        assert leaf is not None
        assert leaf.hash == asked.receipt.digest(DOMAIN)


async def test_worker_long_answer_goes_on_beyond_the_credit_line_as_the_payer_pays(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        asked = await made.asking(PROMPT, max_tokens=150)
        assert await asked.run() == asked.expected(150)
        await hops_paid(made, len(PROMPT) + 149, windows=3 + 10, asked=asked)


async def test_worker_long_prompt_is_paid_before_it_is_prefilled(tmp_path: Path) -> None:
    async with world(tmp_path, credit_windows=1) as made:
        prompt = [token % 61 for token in range(150)]
        asked = await made.asking(prompt, max_tokens=3)
        assert await asked.run() == asked.expected(3)


async def test_worker_answer_of_one_token_has_no_window_of_its_own(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        asked = await made.asking([5], max_tokens=1)
        assert await asked.run() == asked.expected(1)
        await hops_paid(made, 1, windows=1, asked=asked)


async def test_worker_end_token_stops_the_answer(tmp_path: Path) -> None:
    """Some seed draws the end token soon at a high temperature."""
    async with world(tmp_path) as made:
        for start in range(40):
            asked = await made.asking([start], max_tokens=60, temperature=50_000_000)
            ids = await asked.run()
            assert asked.receipt is not None
            if ids[-1] in MANIFEST.end_tokens:
                assert asked.receipt.message.finish == Finish.STOP
                return
        pytest.fail("no seed drew the end token")


async def test_worker_stop_string_in_a_drawn_answer_ends_it_with_its_own_code(tmp_path: Path) -> None:
    """Every request draws other tokens, so this asks until one meets the stop string; an end token has no text."""
    async with world(tmp_path) as made:
        for _ in range(40):
            asked = await made.asking(PROMPT, max_tokens=12, stop=("N",), temperature=800_000)
            ids = await asked.run()
            assert asked.receipt is not None
            stopped = asked.receipt.message.finish == Finish.STOP_STRING
            assert stopped == ("N" in "".join(chr(33 + token) for token in ids if token not in MANIFEST.end_tokens))
            if stopped:
                return
        pytest.fail("no answer met the stop string")


async def test_worker_stop_string_of_a_greedy_answer_ends_it_early(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        probe = await made.asking(PROMPT, max_tokens=12)
        ids = await probe.run()
        stop = "".join(chr(33 + token) for token in ids[2:4])
        asked = await made.asking(PROMPT, max_tokens=12, stop=(stop,))
        got = await asked.run()
        assert asked.receipt is not None
        assert asked.receipt.message.finish == Finish.STOP_STRING
        assert stop in "".join(chr(33 + token) for token in got)
        assert stop not in "".join(chr(33 + token) for token in got[:-1])


async def test_worker_chunked_prefill_sends_the_prompt_in_parts(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        made.choice = note("chunked-prefill", chunk=10)
        asked = await made.asking(PROMPT, max_tokens=6)
        assert await asked.run() == asked.expected(6)
        assert [call[2] for call in made.net.nodes[0].engine.calls[:4]] == [10, 10, 10, 7]
        assert asked.verifier.note == made.choice


async def test_worker_second_question_with_the_same_beginning_reuses_whole_windows(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        first = await made.asking(PROMPT, max_tokens=4)
        await first.run()
        second = await made.asking([*PROMPT[:35], 1, 2, 3], max_tokens=9)
        assert await second.run() == second.expected(9)
        assert second.verifier.note is not None
        assert second.verifier.note.method == "prefix-cache"
        for node in made.net.nodes:
            starts = [start for job, start, _ in node.engine.calls if job == second.job.struct_hash()]  # type: ignore[union-attr]
            assert starts[0] == 32  # two windows of 16 were held
        await hops_paid(made, 38 + 8, windows=3 + 1, asked=second)


async def test_worker_prefix_that_the_stages_forgot_is_computed_again(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        await (await made.asking(PROMPT, max_tokens=4)).run()
        made.net.nodes[1].engine.forget_prefixes()
        asked = await made.asking(PROMPT, max_tokens=4)
        assert await asked.run() == asked.expected(4)
        third = await made.asking(PROMPT, max_tokens=4)
        assert await third.run() == third.expected(4)


async def test_worker_two_jobs_at_once_do_not_mix(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        pair = [await made.asking([n, *PROMPT], max_tokens=25) for n in (1, 2)]
        found = await asyncio.gather(*(asked.run() for asked in pair))
        assert found == [asked.expected(25) for asked in pair]


async def test_payer_that_is_not_served_is_told_so(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        nobody = Guests(allowed=frozenset({made.who.owner}))
        made.role._admission = replace(made.role._admission, payers=nobody)
        asked = await made.asking(PROMPT, max_tokens=4)
        await asked.run()
        assert asked.error is not None
        assert asked.error.error.code == "not_served"


async def test_quote_below_what_the_worker_asks_is_refused(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        for least in ((TERMS.input_price + 1, 0), (0, TERMS.output_price + 1)):
            made.role._admission = replace(made.role._admission, least=least)
            asked = await made.asking(PROMPT, max_tokens=4)
            await asked.run()
            assert asked.error is not None
            assert asked.error.error.code == "price_too_low"
        made.role._admission = replace(made.role._admission, least=(TERMS.input_price, TERMS.output_price))
        asked = await made.asking(PROMPT, max_tokens=4)
        assert await asked.run() == asked.expected(4)
