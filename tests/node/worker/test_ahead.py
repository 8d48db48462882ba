"""Guessing how the answer goes on: the same answer, checked and paid in the same way, in fewer passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.node.stage.tiny import MANIFEST
from tests.node.worker.asked import Asked
from tests.node.worker.world import World, leaf_of, world

from plait.protocol.choice import ChoiceNote
from plait.protocol.errors import MalformedMessageError
from plait.protocol.messages import Finish
from plait.protocol.pb import stage_pb2 as pb
from plait_node.engine.methods.prompt_lookup import PromptLookup
from plait_node.worker.ahead import MOST_AHEAD, Ahead
from plait_node.worker.opening import step_frames

PROMPT = [(5 * at + 2) % 60 for at in range(40)]


@dataclass
class Oracle:
    """Knows the answer, and is wrong now and then."""

    wrong_every: int
    asked: Asked | None = None
    known: list[int] = field(default_factory=list)
    proposed: int = 0

    def __call__(self, _: str, __: float) -> Oracle:
        return self

    def about(self, asked: Asked, count: int) -> None:
        self.known = asked.expected(count)

    def propose(self, ids: Sequence[int], depth: int) -> list[int]:
        at = len(ids) - len(PROMPT)
        ahead = [
            token if (at + index + 1) % self.wrong_every else (token + 1) % 60
            for index, token in enumerate(self.known[at : at + depth])
        ]
        self.proposed += len(ahead)
        return ahead


def guessing(made: World, depth: int) -> None:
    made.choice = ChoiceNote(method="prompt-lookup", amounts={"depth": depth}, predicted={}, reason="the test says so")


@pytest.mark.parametrize(("depth", "wrong_every"), [(4, 3), (40, 23), (1, 2)])
async def test_worker_that_guesses_gives_the_answer_of_the_whole_model(
    tmp_path: Path, depth: int, wrong_every: int
) -> None:
    oracle = Oracle(wrong_every)
    async with world(tmp_path, proposers=oracle) as made:
        guessing(made, depth)
        asked = await made.asking(PROMPT, max_tokens=150)
        oracle.about(asked, 150)
        assert await asked.run() == oracle.known
        assert asked.receipt is not None
        assert asked.receipt.message.price == asked.verifier.due()
        assert asked.verifier.note is not None
        assert (asked.verifier.note.method, asked.verifier.note.amounts) == ("prompt-lookup", {"depth": depth})
        await made.settled()
        for node in made.net.nodes:
            assert not node.blames
            leaf = leaf_of(made, asked, node)
            assert leaf is not None
            assert leaf.hop_amount == len(PROMPT) + len(oracle.known) - 1  # one block, one base unit a step
        assert oracle.proposed
        assert len(made.net.nodes[0].engine.passes) < 140


@pytest.mark.parametrize("max_tokens", [1, 2, 17])
async def test_worker_that_guesses_a_seeded_answer_asks_for_no_row_beyond_it(tmp_path: Path, max_tokens: int) -> None:
    oracle = Oracle(11)
    async with world(tmp_path, proposers=oracle) as made:
        guessing(made, 15)
        asked = await made.asking(PROMPT, max_tokens=max_tokens, temperature=600_000)
        oracle.about(asked, max_tokens)
        assert await asked.run() == oracle.known
        ends = [start + count for _, start, count in made.net.nodes[0].engine.calls]
        assert max(ends) <= len(PROMPT) + max_tokens - 1


async def test_worker_that_guesses_stops_at_a_stop_string_in_the_middle_of_a_guess(tmp_path: Path) -> None:
    oracle = Oracle(99)
    async with world(tmp_path, proposers=oracle) as made:
        guessing(made, 15)
        probe = await made.asking(PROMPT, max_tokens=20)
        ids = probe.expected(20)
        stop = "".join(chr(33 + token) for token in ids[5:8])
        asked = await made.asking(PROMPT, max_tokens=20, stop=(stop,))
        oracle.about(asked, 20)
        got = await asked.run()
        assert asked.receipt is not None
        assert asked.receipt.message.finish == Finish.STOP_STRING
        assert got == ids[: len(got)]
        assert len(got) <= 8


async def test_worker_that_guesses_goes_no_further_than_the_credit_line(tmp_path: Path) -> None:
    oracle = Oracle(99)
    async with world(tmp_path, proposers=oracle) as made:
        guessing(made, 15)
        asked = await made.asking(PROMPT, max_tokens=150)
        oracle.about(asked, 150)
        asked.pays = False
        ids = await asked.run()
        assert len(ids) == 65  # as without guesses: the token of the prompt's last row, and four windows
        assert asked.receipt is not None
        assert asked.receipt.message.finish == Finish.FAILED
        ends = [start + count for _, start, count in made.net.nodes[0].engine.calls]
        assert max(ends) == len(PROMPT) + 64


async def test_worker_does_not_believe_a_tail_that_does_not_follow_the_draft(tmp_path: Path) -> None:
    oracle = Oracle(99)
    async with world(tmp_path, proposers=oracle) as made:
        guessing(made, 5)
        (tail,) = [node for node in made.net.nodes if node.engine.last == MANIFEST.blocks]
        asked = await made.asking(PROMPT, max_tokens=30)
        oracle.about(asked, 30)
        honest = type(tail.role)._serve

        async def lying(link: object) -> None:
            send = link.send  # type: ignore[attr-defined]

            async def changed(frame: pb.Frame, **kwargs: float) -> None:
                if frame.WhichOneof("body") == "tokens" and len(frame.tokens.ids) > 1:
                    frame.tokens.ids[0] ^= 1
                await send(frame, **kwargs)

            link.send = changed  # type: ignore[attr-defined]
            await honest(tail.role, link)  # type: ignore[arg-type]

        tail.role._serve = lying  # type: ignore[assignment,method-assign]
        await asked.run()
        assert asked.error is not None
        assert "do not follow the draft" in asked.error.error.text


async def test_worker_guesses_by_prompt_lookup(tmp_path: Path) -> None:
    prompt = [7, 8, 9, 10] * 10
    async with world(tmp_path, proposers=lambda _, __: PromptLookup()) as made:
        guessing(made, 10)
        asked = await made.asking(prompt, max_tokens=100)
        assert await asked.run() == asked.expected(100)
        counts = [count for _, start, count in made.net.nodes[0].engine.calls if start >= len(prompt)]
        assert max(counts) > 1


async def test_worker_reuses_a_prefix_then_sends_chunks_then_guesses_in_one_job(tmp_path: Path) -> None:
    oracle = Oracle(5)
    async with world(tmp_path, proposers=oracle) as made:
        first = await made.asking(PROMPT, max_tokens=4)
        await first.run()
        made.choice = ChoiceNote(
            method="prefix-cache+chunked-prefill+prompt-lookup",
            amounts={"chunk": 3, "depth": 6},
            predicted={},
            reason="the test says so",
        )
        asked = await made.asking(PROMPT, max_tokens=120)
        oracle.about(asked, 120)
        assert await asked.run() == oracle.known
        assert asked.verifier.note == made.choice
        assert asked.verifier.note.methods == ("prefix-cache", "chunked-prefill", "prompt-lookup")
        assert asked.job is not None
        name = asked.job.struct_hash()
        for node in made.net.nodes:
            calls = [(start, count) for job, start, count in node.engine.calls if job == name]
            assert calls[:3] == [(32, 3), (35, 3), (38, 2)]  # two windows of 16 were held
            assert max(count for _, count in calls[3:]) > 1
        await made.settled()
        for node in made.net.nodes:
            assert not node.blames
            leaf = leaf_of(made, asked, node)
            assert leaf is not None
            assert leaf.hop_amount == len(PROMPT) + len(oracle.known) - 1
        digest, ran = made.learned[-1]
        assert digest == asked.digest
        assert (ran.tokens, ran.reused_tokens) == (len(oracle.known), 32)
        assert 0 < ran.ttft_s < ran.seconds
        assert 0 < ran.accepted < 1


def test_ahead_proposes_no_more_than_a_window_and_no_foreign_id() -> None:
    class Wild:
        def propose(self, ids: Sequence[int], depth: int) -> list[int]:
            return [len(ids)] * (depth + 5)

    ahead = Ahead(Wild(), depth=400, vocabulary=10, ids=[1, 2, 3])
    assert ahead.propose(100) == (3,) * MOST_AHEAD
    assert ahead.propose(2) == (3, 3)
    assert ahead.propose(0) == ()
    for token in range(7):
        ahead.take(token)
    assert ahead.propose(9) == ()
    assert Ahead(None, depth=5, vocabulary=10, ids=[1]).propose(5) == ()


@pytest.mark.parametrize("ids", [[], [1, 2, 9, 4], [1, 2, 3, 4, 5], [1, 2, 3, 64], [64]])
def test_ahead_refuses_what_does_not_follow_the_draft(ids: list[int]) -> None:
    class Fixed:
        def propose(self, ids: Sequence[int], depth: int) -> list[int]:
            return [1, 2, 3][: depth + len(ids) * 0]

    ahead = Ahead(Fixed(), depth=3, vocabulary=64, ids=[7])
    ahead.propose(3)
    for good in ([1, 2, 3, 63], [5], [1, 5]):
        ahead.check(good)
    with pytest.raises(MalformedMessageError):
        ahead.check(ids)


def test_step_frames_name_what_is_guessed() -> None:
    rows, draft = step_frames(MANIFEST.model_id, 7, [8, 9], step=40)
    assert (rows.rows.step, rows.rows.count, rows.rows.speculative) == (40, 3, 2)
    assert draft is not None
    assert (draft.draft.step, list(draft.draft.ids)) == (41, [8, 9])
    assert step_frames(MANIFEST.model_id, 7, [], step=40)[1] is None
