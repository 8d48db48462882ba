"""Guessing how the answer goes on: the same answer, checked and paid in the same way, in fewer passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.node.stage.tiny import MANIFEST
from tests.node.worker.asked import Asked
from tests.node.worker.world import UNPAID, World, leaf_of, world

from plait.protocol.choice import ChoiceNote
from plait.protocol.errors import MalformedMessageError
from plait.protocol.messages import Finish
from plait.protocol.pb import stage_pb2 as pb
from plait_node.engine.methods.prompt_lookup import PromptLookup
from plait_node.worker.ahead import MOST_AHEAD, Ahead, Sent
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
    async with world(tmp_path, proposers=oracle, patience=UNPAID) as made:
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


class Fixed:
    """Goes on counting from the newest id, or says what it was told to."""

    def __init__(self, *saying: int) -> None:
        self.saying = list(saying)

    def propose(self, ids: Sequence[int], depth: int) -> list[int]:
        return self.saying[:depth] or [ids[-1] + 1 + at for at in range(depth)]


def ahead_of(proposer: Fixed | None, *, depth: int, far: bool = False) -> Ahead:
    """Return one that knows of the ids 1 to 7 that the tail drew the last one."""
    ahead = Ahead(proposer, depth=depth, vocabulary=200, ids=[1, 2, 3, 4, 5, 6], far=far)
    ahead.begin()
    hears(ahead, 5, [7])
    return ahead


def hears(ahead: Ahead, step: int, ids: Sequence[int]) -> None:
    ahead.check(step, ids)
    for token in ids:
        ahead.take(token)


def test_ahead_guesses_no_more_than_a_window_and_no_foreign_id() -> None:
    class Wild(Fixed):
        def propose(self, ids: Sequence[int], depth: int) -> list[int]:
            return super().propose(ids, depth + 5)

    (sent,) = ahead_of(Wild(), depth=400).frames(300)
    assert sent == Sent(step=6, ids=tuple(range(7, 8 + MOST_AHEAD)), certain=7)
    assert [each.guessed for each in ahead_of(Wild(), depth=400).frames(9)] == [(8, 9)]
    assert [each.guessed for each in ahead_of(Wild(), depth=400).frames(7)] == [()]
    assert [each.ids for each in ahead_of(Fixed(8, 200), depth=5).frames(300)] == [(7,)]
    assert [each.ids for each in ahead_of(None, depth=5).frames(300)] == [(7,)]


@pytest.mark.parametrize("ids", [[], [8, 19, 10, 11], [8, 9, 10, 11, 12], [8, 9, 10, 200], [200]])
def test_ahead_refuses_what_does_not_follow_the_draft(ids: list[int]) -> None:
    for good in ([8, 9, 10, 199], [5], [8, 5]):
        ahead = ahead_of(Fixed(), depth=3)
        ahead.frames(300)
        ahead.check(6, good)
    ahead = ahead_of(Fixed(), depth=3)
    ahead.frames(300)
    with pytest.raises(MalformedMessageError):
        ahead.check(6, ids)


def test_ahead_refuses_tokens_of_a_step_that_is_not_next_or_that_nothing_was_sent_for() -> None:
    ahead = ahead_of(Fixed(), depth=3)
    with pytest.raises(MalformedMessageError):
        ahead.check(6, [8])
    ahead.frames(300)
    with pytest.raises(MalformedMessageError):
        ahead.check(7, [8])


def begun(guesses: Fixed) -> Ahead:
    """Return one that guessed fifteen ids, all right, so that the ids 1 to 23 are known."""
    ahead = ahead_of(guesses, depth=MOST_AHEAD, far=True)
    assert [each.ids for each in ahead.frames(300)] == [tuple(range(7, 23))]
    assert ahead.frames(300) == []
    hears(ahead, 6, range(8, 24))
    return ahead


def test_ahead_has_more_frames_on_their_way_the_more_guesses_were_right() -> None:
    ahead = begun(Fixed())
    first, second, third = ahead.frames(300)
    assert first == Sent(step=22, ids=tuple(range(23, 39)), certain=23)
    assert second == Sent(step=38, ids=tuple(range(39, 55)), certain=23)
    assert third == Sent(step=54, ids=tuple(range(55, 71)), certain=23)
    hears(ahead, 22, range(24, 40))
    assert [(each.step, each.certain) for each in ahead.frames(300)] == [(70, 39), (86, 39)]
    hears(ahead, 38, range(40, 56))
    assert [(each.step, each.end - each.certain) for each in ahead.frames(300)] == [(102, 63)]  # four, and no more
    assert ahead.accepted == 1.0


def test_ahead_has_one_frame_on_its_way_where_stages_are_near_or_little_was_right() -> None:
    near = ahead_of(Fixed(), depth=MOST_AHEAD)
    near.frames(300)
    hears(near, 6, range(8, 24))
    assert len(near.frames(300)) == 1
    short = ahead_of(Fixed(), depth=3, far=True)
    for step in (6, 10):
        assert len(short.frames(300)) == 1
        hears(short, step, range(step + 2, step + 6))
    assert len(short.frames(300)) == 1
    hears(short, 14, range(16, 20))
    assert len(short.frames(300)) == 2


@pytest.mark.parametrize(("right", "share"), [(1, 16 / 30), (15, 30 / 31)])
def test_ahead_behind_a_wrong_guess_begins_anew_with_one_frame(right: int, share: float) -> None:
    ahead = begun(Fixed())
    assert len(ahead.frames(300)) == 3
    hears(ahead, 22, [*range(24, 24 + right), 99])
    assert not ahead.waits
    assert ahead.accepted == pytest.approx(share)  # of those behind the wrong one nobody knows
    known = 24 + right
    assert [(each.step, each.certain) for each in ahead.frames(300)] == [(known - 1, known)]


def test_ahead_sends_nothing_behind_a_guess_that_it_would_not_make_again() -> None:
    guesses = Fixed()
    ahead = begun(guesses)
    ahead.frames(300)
    guesses.saying = [9] * 90
    hears(ahead, 22, range(24, 40))
    assert ahead.frames(300) == []
    guesses.saying = []
    assert ahead.frames(300) == []  # until something came
    hears(ahead, 38, range(40, 56))
    assert len(ahead.frames(300)) == 3


def test_step_frames_name_what_is_guessed() -> None:
    rows, draft = step_frames(MANIFEST.model_id, Sent(step=40, ids=(7, 8, 9), certain=41))
    assert (rows.rows.step, rows.rows.count, rows.rows.speculative) == (40, 3, 2)
    assert draft is not None
    assert (draft.draft.step, list(draft.draft.ids)) == (41, [8, 9])
    rows, draft = step_frames(MANIFEST.model_id, Sent(step=43, ids=(1, 2), certain=41))
    assert (rows.rows.step, rows.rows.count, rows.rows.speculative) == (43, 2, 4)
    assert draft is not None
    assert (draft.draft.step, list(draft.draft.ids)) == (43, [1, 2])
    assert step_frames(MANIFEST.model_id, Sent(step=40, ids=(7,), certain=41))[1] is None
