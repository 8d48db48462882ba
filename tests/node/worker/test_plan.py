"""The choice of a method, and the memory of prompts that it rests on."""

from __future__ import annotations

from dataclasses import replace

from tests.node.stage.tiny import MANIFEST
from tests.node.swarm.chain import MODEL, PROFILE
from tests.node.swarm.test_route import record

from plait.protocol.choice import ChoiceNote, choice_hash
from plait.protocol.ids import HASH_ZERO, Hash, address
from plait.protocol.messages import Request, Sampling
from plait.protocol.sealing import ContentKey
from plait.protocol.windows import WINDOW_STEPS
from plait_node.selector import Selector, TaskFeatures
from plait_node.swarm import NodeRecord, Route
from plait_node.worker import JobShape, Planner, Task, chooser
from plait_node.worker.plan import PrefixMemory, prompt_lineage

PAYER, OTHER = address(b"\x01" * 20), address(b"\x02" * 20)
ROUTE = Route(records=(record(0, 6, owner=1),), profile=PROFILE, step_s=0.1, price=1)
DETOUR = Route(records=(record(0, 6, owner=2),), profile=PROFILE, step_s=0.1, price=1)


def test_chooser_says_what_the_selector_says_under_the_hash_of_the_job_record() -> None:
    selector = Selector()
    shape = JobShape(prompt_tokens=200, max_tokens=40, shared_prefix_tokens=160, stages=3, step_s=0.1)
    note = chooser(selector)(shape)
    choice = selector.choose(TaskFeatures(prompt_tokens=200, max_tokens=40, stages=3, shared_prefix_tokens=160))
    assert note.method == choice.method == "prefix-cache"
    assert note.choice == choice_hash(choice.method, choice.amounts)
    assert note == choice.note()
    fresh = JobShape(prompt_tokens=200, max_tokens=40, shared_prefix_tokens=0, stages=3, step_s=0.1)
    assert chooser(selector)(fresh).method != "prefix-cache"


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


def choose(shape: JobShape) -> ChoiceNote:
    """Prefer the cache, which saves 50 ms a window."""
    method = "prefix-cache" if shape.shared_prefix_tokens else "plain"
    first = (shape.prompt_tokens - shape.shared_prefix_tokens) * 0.05 / 16
    return ChoiceNote(method=method, amounts={}, predicted={"first_token_s": first}, reason="test")


def planner_of(*records: NodeRecord) -> Planner:
    manifest = replace(MANIFEST, blocks=6)
    return Planner(
        directory=Stages(*records),  # type: ignore[arg-type]
        manifest=manifest,
        choose=choose,
        max_price=lambda _: 10**9,
        clock=lambda: 0.0,
    )


def task_of(*, max_tokens: int) -> Task:
    ids = tuple(range(64))
    request = Request(
        payer=PAYER,
        gateway=OTHER,
        quote=HASH_ZERO,
        model=MODEL,
        profiles=(PROFILE,),
        prompt=HASH_ZERO,
        sampling=Sampling(temperature=0, top_p=1_000_000, top_k=0, stop=HASH_ZERO),
        input_tokens=len(ids),
        max_tokens=max_tokens,
        max_price=1,
        seed=HASH_ZERO,
        nonce=HASH_ZERO,
        deadline=1,
    )
    return Task(request=request, digest=HASH_ZERO, content_key=ContentKey.public(), ids=ids, stop=())


async def test_planner_takes_the_stages_that_hold_the_prompt_where_that_is_sooner() -> None:
    holder, quick = record(0, 6, owner=1, step_micros=3_000), record(0, 6, owner=2, step_micros=1_000)
    planner = planner_of(holder, quick)
    short, long = task_of(max_tokens=10), task_of(max_tokens=400)
    assert (await planner.decide(short)).route.records == (quick,)
    held = Route(records=(holder,), profile=PROFILE, step_s=0.1, price=1)
    planner.prefixes.remember(PAYER, held, prompt_lineage(MODEL, PROFILE, short.ids))
    decision = await planner.decide(short)
    assert decision.route.records == (holder,)
    assert decision.reuses_prefix
    assert (await planner.decide(long)).route.records == (quick,)


async def test_planner_does_not_go_back_to_a_holder_that_failed() -> None:
    holder, spare = record(0, 6, owner=1, step_micros=1_000), record(0, 6, owner=2, step_micros=2_000)
    planner = planner_of(holder, spare)
    task = task_of(max_tokens=10)
    held = Route(records=(holder,), profile=PROFILE, step_s=0.1, price=1)
    planner.prefixes.remember(PAYER, held, prompt_lineage(MODEL, PROFILE, task.ids))
    planner.blames.add(holder.owner, now=0.0)
    assert (await planner.decide(task)).route.records == (spare,)


def test_memory_knows_leading_windows_of_one_payer_on_one_route() -> None:
    memory, keys = PrefixMemory(), prompt_lineage(MODEL, PROFILE, list(range(100)))
    memory.remember(PAYER, ROUTE, keys)
    assert memory.shared(PAYER, ROUTE, keys) == len(keys)
    assert memory.shared(OTHER, ROUTE, keys) == 0
    assert memory.shared(PAYER, DETOUR, keys) == 0
    memory.forget(PAYER, ROUTE, keys[3:])
    assert memory.shared(PAYER, ROUTE, keys) == 3
