"""The choice of a method, and the memory of prompts that it rests on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.node.stage.tiny import MANIFEST
from tests.node.swarm.chain import MODEL, PROFILE
from tests.node.swarm.test_route import record

from plait.protocol.choice import ChoiceNote
from plait.protocol.errors import PriceTooLowError
from plait.protocol.ids import HASH_ZERO, Address, Hash, address
from plait.protocol.manifest import FP32_STRICT, PROFILES
from plait.protocol.messages import Request, Sampling
from plait.protocol.sealing import ContentKey
from plait.protocol.windows import WINDOW_STEPS
from plait_node.selector import Asked, Choice, OverBudgetError, Ran, Trial
from plait_node.swarm import NodeRecord, Route
from plait_node.worker import Planner, Task
from plait_node.worker.plan import Decision, PrefixMemory, prompt_lineage

STRICT, INT4 = FP32_STRICT.profile_id, PROFILES["int4"].profile_id
PAYER, OTHER = address(b"\x01" * 20), address(b"\x02" * 20)
ROUTE = Route(records=(record(0, 6, owner=1),), profile=PROFILE, step_s=0.1, price=1)
DETOUR = Route(records=(record(0, 6, owner=2),), profile=PROFILE, step_s=0.1, price=1)


def test_prompt_lineage_leaves_the_last_row_to_compute_and_depends_on_every_row_before() -> None:
    ids = list(range(48))
    keys = prompt_lineage(MODEL, PROFILE, ids)
    assert len(keys) == 2  # the third window holds the last row
    assert len(prompt_lineage(MODEL, PROFILE, [*ids, 48])) == 3
    changed = prompt_lineage(MODEL, PROFILE, [*ids[:20], 99, *ids[21:]])
    assert (changed[0] == keys[0], changed[1] == keys[1]) == (True, False)
    assert prompt_lineage(MODEL, PROFILE, ids[:WINDOW_STEPS]) == ()


class Stages:
    """A directory of these records."""

    def __init__(self, *records: NodeRecord) -> None:
        self.records = records

    async def stages(self, _: Hash) -> tuple[NodeRecord, ...]:
        return self.records

    async def refresh(self, _: Hash) -> None:
        return None


class Chooser:
    """Take the soonest way; a cached window saves 50 ms."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.learned: list[Ran] = []
        self.refuses = False

    def choose(self, asked: Asked) -> Choice:
        self.asked.append(asked)
        if self.refuses:
            raise OverBudgetError(1.0, cost=2.0, seconds=3.0)
        times = [way.step_s * asked.task.answer_tokens - way.warm_tokens * 0.05 / WINDOW_STEPS for way in asked.ways]
        best = times.index(min(times))
        method = "prefix-cache" if asked.ways[best].warm_tokens else "plain"
        return Choice(way=best, note=ChoiceNote(method=method, amounts={}, predicted={}, reason="test"))

    def learn(self, digest: bytes, trial: Trial | None, ran: Ran) -> None:
        assert digest == HASH_ZERO
        self.learned.append(ran)


CHOOSER = Chooser()


def planner_of(
    *records: NodeRecord, chooser: Chooser = CHOOSER, hesitation_s: Callable[[Address], float] = lambda _: 0.0
) -> Planner:
    manifest = replace(MANIFEST, blocks=6, profiles=(*MANIFEST.profiles, PROFILES["int4"]))
    return Planner(
        directory=Stages(*records),  # type: ignore[arg-type]
        manifest=manifest,
        chooser=chooser,
        max_price=lambda _: 10**9,
        clock=lambda: 0.0,
        rtt_s={records[0].owner: 0.02}.get,
        spare_s=2.0,
        hesitation_s=hesitation_s,
    )


def task_of(*, max_tokens: int, profiles: tuple[Hash, ...] = (STRICT,)) -> Task:
    ids = tuple(range(64))
    request = Request(
        payer=PAYER,
        gateway=OTHER,
        quote=HASH_ZERO,
        model=MODEL,
        profiles=profiles,
        prompt=HASH_ZERO,
        sampling=Sampling(temperature=0, top_p=1_000_000, top_k=0, stop=HASH_ZERO),
        input_tokens=len(ids),
        max_tokens=max_tokens,
        max_price=1,
        seed=HASH_ZERO,
        nonce=HASH_ZERO,
        deadline=100,
    )
    return Task(request=request, digest=HASH_ZERO, content_key=ContentKey.public(), ids=ids, stop=())


async def test_planner_takes_the_stages_that_hold_the_prompt_where_that_is_sooner() -> None:
    holder, quick = (
        record(0, 6, owner=1, profile=STRICT, step_micros=3_000),
        record(0, 6, owner=2, profile=STRICT, step_micros=1_000),
    )
    planner = planner_of(holder, quick)
    short, long = task_of(max_tokens=10), task_of(max_tokens=400)
    assert (await planner.decide(short)).route.records == (quick,)
    held = Route(records=(holder,), profile=STRICT, step_s=0.1, price=1)
    planner.prefixes.remember(PAYER, held, prompt_lineage(MODEL, STRICT, short.ids))
    decision = await planner.decide(short)
    assert decision.route.records == (holder,)
    assert decision.reuses_prefix
    assert (await planner.decide(long)).route.records == (quick,)


async def test_planner_prefers_a_funded_pair_unless_another_is_much_sooner() -> None:
    funded, new, swift = (
        record(0, 6, owner=1, profile=STRICT, step_micros=30_000),
        record(0, 6, owner=2, profile=STRICT, step_micros=20_000),
        record(0, 6, owner=3, profile=STRICT, step_micros=1_000),
    )
    task = task_of(max_tokens=10)
    assert (await planner_of(funded, new).decide(task)).route.records == (new,)
    waits = {new.owner: 0.02, swift.owner: 0.02}
    hesitant = planner_of(funded, new, hesitation_s=lambda owner: waits.get(owner, 0.0))
    assert (await hesitant.decide(task)).route.records == (funded,)
    hesitant = planner_of(funded, swift, hesitation_s=lambda owner: waits.get(owner, 0.0))
    assert (await hesitant.decide(task)).route.records == (swift,)
    assert CHOOSER.asked[-1].ways[0].step_s < 0.02  # what is expected of it does not count the hesitation


async def test_planner_does_not_go_back_to_a_holder_that_failed() -> None:
    holder, spare = (
        record(0, 6, owner=1, profile=STRICT, step_micros=1_000),
        record(0, 6, owner=2, profile=STRICT, step_micros=2_000),
    )
    planner = planner_of(holder, spare)
    task = task_of(max_tokens=10)
    held = Route(records=(holder,), profile=STRICT, step_s=0.1, price=1)
    planner.prefixes.remember(PAYER, held, prompt_lineage(MODEL, STRICT, task.ids))
    planner.blames.add(holder.owner, now=0.0)
    assert (await planner.decide(task)).route.records == (spare,)


async def test_planner_asks_with_one_way_a_profile_and_what_is_known_of_each() -> None:
    exact = record(0, 6, owner=1, profile=STRICT, step_micros=3_000)
    rounded = record(0, 6, owner=2, profile=INT4, step_micros=0)
    chooser = Chooser()
    planner = planner_of(exact, rounded, chooser=chooser)
    task = task_of(max_tokens=10, profiles=(STRICT, INT4))
    planner.prefixes.remember(PAYER, replace(ROUTE, profile=STRICT), prompt_lineage(MODEL, STRICT, task.ids))
    planner.blames.add(rounded.owner, now=0.0)
    decision = await planner.decide(task)
    (asked,) = chooser.asked
    assert (asked.digest, asked.limit_s, asked.task.prompt_tokens) == (HASH_ZERO, 98.0, 64)
    assert [way.profile.name for way in asked.ways] == ["fp32-strict", "int4"]
    assert [way.warm_tokens for way in asked.ways] == [48, 0]
    assert [way.rtt_s for way in asked.ways] == [0.02, None]
    assert [way.measured for way in asked.ways] == [True, True]  # the typical time stands in for the second
    assert asked.ways[0].step_s == pytest.approx(0.004)
    assert (asked.ways[0].blamed_s, asked.ways[1].blamed_s) == (0.0, 10.0)
    assert decision.reuses_prefix
    ran = Ran(seconds=1.0, ttft_s=0.5, tokens=2, reused_tokens=0, accepted=-1.0, overlap=0.0)
    planner.learn(task, decision, ran)
    assert chooser.learned == [ran]


async def test_planner_learns_from_a_job_with_guesses_how_far_its_stages_are() -> None:
    planner = planner_of(record(0, 6, owner=1, profile=STRICT, step_micros=3_000))
    task = task_of(max_tokens=10)
    before = await planner.decide(task)
    assert before.busy == pytest.approx(3 / 4)  # as near as anything that is not known
    ran = Ran(seconds=1.0, ttft_s=0.5, tokens=9, reused_tokens=0, accepted=0.5, overlap=0.0)
    planner.learn(task, before, ran)
    after = await planner.decide(task)
    assert after.busy == pytest.approx(3 / 23)


async def test_planner_refuses_a_job_that_no_budget_covers_by_the_protocols_word() -> None:
    chooser = Chooser()
    chooser.refuses = True
    planner = planner_of(record(0, 6, owner=1, profile=STRICT), chooser=chooser)
    with pytest.raises(PriceTooLowError, match="raise the budget"):
        await planner.decide(task_of(max_tokens=10))


def test_decision_reads_a_combination_of_methods() -> None:
    note = ChoiceNote(
        method="prefix-cache+chunked-prefill+prompt-lookup", amounts={"chunk": 64, "depth": 10}, predicted={}, reason=""
    )
    made = Decision(route=ROUTE, choice=note, lineage=(HASH_ZERO,))
    assert (made.reuses_prefix, made.chunk, made.depth) == (True, 64, 10)
    plain = replace(made, choice=replace(note, method="plain"))
    assert (plain.reuses_prefix, plain.chunk, plain.depth) == (False, 0, 0)
    assert not replace(made, lineage=()).reuses_prefix


def test_memory_knows_leading_windows_of_one_payer_on_one_route() -> None:
    memory, keys = PrefixMemory(), prompt_lineage(MODEL, PROFILE, list(range(100)))
    memory.remember(PAYER, ROUTE, keys)
    assert memory.shared(PAYER, ROUTE, keys) == len(keys)
    assert memory.shared(OTHER, ROUTE, keys) == 0
    assert memory.shared(PAYER, DETOUR, keys) == 0
    memory.forget(PAYER, ROUTE, keys[3:])
    assert memory.shared(PAYER, ROUTE, keys) == 3
