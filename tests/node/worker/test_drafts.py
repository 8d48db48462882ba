"""Several drafts on their way at once: whatever of them is right, ids, leaves and signatures are those without them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.node.stage.driver import Task, driver
from tests.node.stage.network import network
from tests.node.stage.test_speculation import forget, plainly
from tests.node.stage.tiny import VOCABULARY
from tests.node.worker.asked import Asked
from tests.node.worker.test_failures import spare_for
from tests.node.worker.world import PATIENT, UNPAID, World, leaf_of, world

from plait.protocol.choice import ChoiceNote
from plait.protocol.messages import Finish
from plait.protocol.money import stage_fee_of
from plait_node.worker.ahead import Ahead, Sent
from plait_node.worker.opening import step_frames

PROMPT = [(11 * at + 3) % 60 for at in range(24)]
TOKENS = 90


@dataclass
class Guesses:
    """Knows the answer, is wrong at some of its places, and guesses no further than it is told to."""

    known: list[int]
    wrong: set[int]
    limits: list[int]

    def __post_init__(self) -> None:
        self.limit = cycle(self.limits)

    def propose(self, ids: Sequence[int], depth: int) -> list[int]:
        at = len(ids) - len(PROMPT)
        if at < 0:
            return []
        ahead = self.known[at : at + min(depth, next(self.limit))]
        return [(token + (place in self.wrong)) % VOCABULARY for place, token in enumerate(ahead, at)]


async def drafted(task: Task, guesses: Guesses, *, depth: int) -> int:
    """Generate as the worker does; return the most frames that were on their way at once."""
    ahead, most = Ahead(guesses, depth=depth, vocabulary=VOCABULARY, ids=task.prompt, far=True), 0
    await task.feed(0, task.prompt)
    ahead.begin()
    while len(task.ids) < TOKENS:
        known = len(task.ids)
        while len(task.ids) == known:
            await task.hear()
        ahead.check(len(PROMPT) + known - 1, task.ids[known:])
        for token in task.ids[known:]:
            ahead.take(token)
        for sent in ahead.frames(len(PROMPT) + TOKENS - 1) if len(task.ids) < TOKENS else ():
            await put(task, sent)
        most = max(most, len(ahead._waiting))
    return most


async def put(task: Task, sent: Sent) -> None:
    rows, draft = step_frames(task.hash, sent)
    if draft is not None:
        await task.send(task.stages - 1, draft)
    await task.send(0, rows)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("stages", "temperature"), [(1, 0), (2, 800_000), (3, 0)])
def test_drafts_whatever_is_right_of_them_leave_ids_leaves_and_signatures_as_they_are(
    tmp_path: Path, stages: int, temperature: int
) -> None:
    with asyncio.Runner() as runner:
        opened = AsyncExitStack()
        net = runner.run(opened.enter_async_context(network(tmp_path, stages=stages)))
        worker = runner.run(opened.enter_async_context(driver(net)))
        task = worker.task(PROMPT, max_tokens=TOKENS + 2, temperature=temperature)
        ids, leaves = runner.run(plainly(task, TOKENS))
        most: list[int] = []

        async def again(guesses: Guesses, depth: int) -> None:
            await forget(net, task)
            await task.open()
            await task.start()
            most.append(await drafted(task, guesses, depth=depth))
            task.check_leaves(await task.end())
            assert task.ids == ids
            assert task.leaves == leaves
            assert not any(node.blames for node in net.nodes)

        @settings(max_examples=40, deadline=None)
        @given(
            depth=st.integers(1, 15),
            wrong=st.sets(st.integers(0, TOKENS), max_size=12),
            limits=st.lists(st.integers(0, 70), min_size=1, max_size=8),
        )
        @example(depth=15, wrong=set(), limits=[70])
        @example(depth=3, wrong={20, 41, 60}, limits=[70])
        def guessed(depth: int, wrong: set[int], limits: list[int]) -> None:
            runner.run(again(Guesses(ids, wrong, limits), depth))

        guessed()
        runner.run(opened.aclose())
    assert max(most) == 4


@dataclass
class Under:
    """How many frames were on their way when another was sent, at most."""

    most: int = 0

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        honest = Ahead.frames

        def watched(ahead: Ahead, end: int) -> list[Sent]:
            made = honest(ahead, end)
            self.most = max(self.most, len(ahead._waiting))
            return made

        monkeypatch.setattr(Ahead, "frames", watched)


async def asked_of(made: World, *, wrong: set[int], max_tokens: int = 140, **changed: Any) -> Asked:
    """Ask for an answer that is guessed nearly right."""
    made.choice = ChoiceNote(method="prompt-lookup", amounts={"depth": 15}, predicted={}, reason="the test says so")
    asked = await made.asking_long(PROMPT, max_tokens=max_tokens, **changed)
    guesses = Guesses(asked.expected(max_tokens), wrong, [70])
    object.__setattr__(made.tools, "proposers", lambda _, __: guesses)
    return asked


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_drafts_on_their_way_are_forgotten_when_a_stage_is_replaced(
    tmp_path: Path, place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    under = Under()
    under.watch(monkeypatch)
    async with world(tmp_path, credit_windows=8, patience=replace(PATIENT, credit_windows=8)) as made:
        dying = made.net.nodes[place]
        spare = await spare_for(made, dying)
        asked = await asked_of(made, wrong={90}, temperature=700_000)
        asked.kill_at = (30, dying)
        assert await asked.run() == asked.expected(140)
        await made.settled()
        assert asked.receipt is not None
        assert len(asked.receipt.message.segments) == 2
        assert asked.receipt.message.price == asked.verifier.due()
        assert asked.job is not None
        row, end = asked.job.message.row, len(PROMPT) + 139
        steps = {dying.identity.owner: row, spare.identity.owner: end - row}
        for node in (*made.net.nodes[:3], spare):
            leaf = leaf_of(made, asked, node)
            assert leaf is not None
            assert leaf.hop_amount == stage_fee_of(node.stage, steps.get(node.identity.owner, end))
    assert under.most > 1


async def test_drafts_on_their_way_do_not_count_when_the_payer_cancels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    under = Under()
    under.watch(monkeypatch)
    async with world(tmp_path) as made:
        asked = await asked_of(made, wrong={70})
        asked.cancel_at = 40
        ids = await asked.run()
        assert asked.receipt is not None
        assert asked.receipt.message.finish == Finish.CANCELLED
        assert ids == asked.expected(140)[: len(ids)]
        await made.settled()
        for node in made.net.nodes:
            leaf = leaf_of(made, asked, node)
            assert leaf is not None
            assert leaf.hop_amount == len(PROMPT) + len(ids) - 1
            assert not node.blames
    assert under.most > 1


async def test_drafts_on_their_way_behind_an_end_are_heard_and_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    under = Under()
    under.watch(monkeypatch)
    async with world(tmp_path) as made:
        probe = await made.asking_long(PROMPT, max_tokens=60)
        text = "".join(chr(33 + token) for token in probe.expected(60))
        asked = await asked_of(made, wrong=set(), stop=(text[:40],))
        ids = await asked.run()
        assert asked.receipt is not None
        assert asked.receipt.message.finish == Finish.STOP_STRING
        assert len(ids) == 40
        await made.settled()
        assert not any(node.blames for node in made.net.nodes)
    assert under.most > 1


async def test_drafts_never_go_beyond_the_credit_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    under = Under()
    under.watch(monkeypatch)
    async with world(tmp_path, patience=UNPAID) as made:
        asked = await asked_of(made, wrong={23})
        asked.pays = False
        ids = await asked.run()
        assert len(ids) == 65  # as without guesses: the token of the prompt's last row, and four windows
        assert asked.receipt is not None
        assert asked.receipt.message.finish == Finish.FAILED
        assert max(start + count for _, start, count in made.net.nodes[0].engine.calls) == len(PROMPT) + 64
    assert under.most > 1
