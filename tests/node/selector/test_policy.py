"""What is chosen, when the default is taken in its place, and what is said of it."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.node.selector.made_policy import HARDWARE, MODEL, TASK, WAY, Told, asked, policy, seconds_of

from plait.protocol.choice import ChoiceNote
from plait.protocol.manifest import PROFILES
from plait.protocol.sealing import Note
from plait_node.selector import OverBudgetError, Policy
from plait_node.selector.barred import Barred
from plait_node.selector.candidates import CANDIDATES
from plait_node.selector.errors import SchemaError
from plait_node.selector.estimates import Estimate
from plait_node.selector.online import Corrections


def test_choose_combines_methods_and_says_why_with_numbers_and_the_runner_up() -> None:
    way = replace(WAY, warm_tokens=160)
    choice = policy().choose(asked(way))
    assert choice.note.method == "prefix-cache+chunked-prefill+prompt-lookup"
    assert choice.note.amounts == {"chunk": 128, "depth": 3}
    assert choice.note.reason == (
        "prefix-cache+chunked-prefill+prompt-lookup (chunk 128, depth 3): 300 prompt tokens over 3 stages, 160 of them "
        "cached; 41 tokens predicted within 4.40 s (4.19 to 4.62), the first after 2.20 s, against 4.40 s by "
        "prefix-cache+chunked-prefill+prompt-lookup (chunk 32, depth 3)"
    )
    assert choice.note.predicted["total_s"] == pytest.approx(4.4)
    assert choice.note.predicted["total_low_s"] < 4.4 < choice.note.predicted["total_high_s"]
    assert ChoiceNote.from_note(Note(text=choice.note.to_json())) == choice.note


def test_choose_asks_for_candidates_under_their_measured_names() -> None:
    told = Told()
    policy(told).choose(asked())
    assert {"always-on", "small-chunks", "lookup-3", "lookup-10"} <= set(told.asked)
    assert len(set(told.asked)) == len(told.asked) == 6  # small and large chunks by no, short and long guesses
    assert set(told.asked) - set(CANDIDATES) == {
        f"fp32: chunked-prefill 32, compiled, continuous-batching 256, prefix-cache, prompt-lookup {depth}"
        for depth in (3, 10)
    }


def test_choose_for_a_short_prompt_has_no_chunks_to_choose() -> None:
    told = Told()
    choice = policy(told).choose(asked(task=replace(TASK, prompt_tokens=20)))
    assert choice.note.amounts == {"depth": 3}
    assert set(told.asked) == {"always-on", "lookup-3", "lookup-10"}


def test_choose_takes_the_route_of_the_profile_that_is_sooner() -> None:
    rounded = replace(WAY, profile=PROFILES["int4"])
    told = Told()
    choice = policy(told).choose(asked(WAY, rounded))
    assert choice.way == 1
    assert choice.note.predicted["total_s"] == pytest.approx(0.7 * (300 * 0.008 + 41 * 0.08), rel=1e-4)
    assert choice.trial is not None
    assert choice.trial.candidate.weights == "int4"
    assert choice.trial.candidate.methods["int4"] == 1
    assert {"int4", "int4-lookup-10"} <= set(told.asked)
    assert CANDIDATES["int4"].methods["int4"] == 1


def test_choose_prefers_measured_speed_and_avoids_who_failed() -> None:
    slow, quick = replace(WAY, step_s=0.2, measured=True), replace(WAY, step_s=0.1, measured=True)
    assert policy().choose(asked(slow, quick)).way == 1
    assert policy().choose(asked(slow, replace(quick, blamed_s=10.0))).way == 0
    assert policy().choose(asked(replace(quick, blamed_s=10.0))).note.predicted["total_s"] < 60


def test_choose_for_less_than_the_least_gain_stays_with_the_default_and_says_so() -> None:
    def cost(task: object, hardware: object, candidate: object) -> float:
        return 8.0 * (0.99 if "lookup" in candidate.name else 1.0)  # type: ignore[attr-defined]

    choice = policy(Told(cost=cost)).choose(asked())
    assert (choice.note.method, choice.note.amounts) == ("chunked-prefill", {"chunk": 128})
    assert "the default, because chunked-prefill+prompt-lookup" in choice.note.reason
    assert "should save less than 2% of its time" in choice.note.reason


def test_choose_takes_what_is_better_however_wide_the_intervals_are() -> None:
    assert "prompt-lookup" in policy(Told(spread=3.0)).choose(asked()).note.method


def test_choose_outside_of_what_was_measured_stays_with_the_default_and_says_so() -> None:
    choice = policy(Told(inside=lambda _, __: False)).choose(asked())
    assert choice.note.method == "chunked-prefill"
    assert choice.note.reason.endswith("because the task, the model or the machine lies outside what was measured")


def test_choose_passes_over_a_combination_that_was_never_measured() -> None:
    told = Told(inside=lambda _, candidate: candidate.methods.get("chunked-prefill") != 32)
    assert policy(told).choose(asked()).note.amounts == {"chunk": 128, "depth": 3}


def test_choose_drops_what_misses_the_deadline_and_offers_the_soonest_where_all_do() -> None:
    def cost(task: object, hardware: object, candidate: object) -> float:
        return 5.0 if "lookup" in candidate.name else 8.0  # type: ignore[attr-defined]

    quick = policy(Told(cost=cost, spread=3.0)).choose(asked(limit_s=6.0))  # the default would miss it
    assert "prompt-lookup" in quick.note.methods
    late = policy(Told(cost=cost)).choose(asked(limit_s=1.0))
    assert "prompt-lookup" in late.note.methods
    assert late.note.reason.endswith("nothing is expected within the 1.0 s left: the soonest")


def test_choose_over_budget_offers_the_cheapest_or_refuses() -> None:
    # 3.6 an hour and stage: 0.003 a second over three stages.
    within = policy(budget=1.0).choose(asked())
    assert "budget" not in within.note.reason
    over = policy(budget=0.001).choose(asked())
    assert "nothing costs at most the budget of 0.001: the cheapest, at 0.017" in over.note.reason
    with pytest.raises(OverBudgetError, match="raise the budget") as refused:
        policy(budget=0.001, over_budget="refuse").choose(asked())
    assert refused.value.cost == pytest.approx(0.003 * refused.value.seconds)


def test_choose_explores_a_small_share_near_the_best_and_the_same_jobs_each_time() -> None:
    def cost(task: object, hardware: object, candidate: object) -> float:
        return {"always-on": 1.0, "small-chunks": 1.05}.get(candidate.name, 2.0)  # type: ignore[attr-defined]

    made = policy(Told(cost=cost), explore=0.02)
    jobs = [asked(digest=number.to_bytes(4, "big")) for number in range(3_000)]
    tried = [made.choose(job).note for job in jobs]
    strays = [note for note in tried if note.amounts != {"chunk": 128}]
    assert 0.01 < len(strays) / len(jobs) < 0.03
    assert all(note.amounts == {"chunk": 32} and note.reason.endswith("tried to learn from it") for note in strays)
    assert tried == [made.choose(job).note for job in jobs]
    tight = [made.choose(replace(job, limit_s=2.0)).note.amounts for job in jobs]
    assert all(amounts == {"chunk": 128} for amounts in tight)


def test_choose_applies_what_the_node_learned() -> None:
    corrections = Corrections()
    for _ in range(60):
        for name in ("lookup-3", "lookup-10"):
            corrections.add(name, 1.0, 3.0)
        corrections.add("always-on", 1.0, 1.0)
    told = Told(inside=lambda _, candidate: "chunked-prefill" in candidate.methods)
    choice = policy(told, corrections=corrections).choose(asked(task=replace(TASK, prompt_tokens=20)))
    assert choice.note.method == "plain"


def test_bar_keeps_a_method_out_of_choice_and_default_for_good(tmp_path: Path) -> None:
    path = tmp_path / "selector" / "barred.json"
    made = policy(barred=Barred(path))
    way = replace(WAY, warm_tokens=160)
    made.bar("prompt-lookup", "3 of 64 tokens differed")
    assert made.choose(asked(way)).note.method == "prefix-cache+chunked-prefill"
    made.bar("prefix-cache", "the cache held another prompt")
    kept = policy(barred=Barred(path))
    assert kept.choose(asked(way)).note.method == "chunked-prefill"
    assert dict(kept.barred.reasons) == {
        "prompt-lookup": "3 of 64 tokens differed",
        "prefix-cache": "the cache held another prompt",
    }
    kept.bar("int4", "wrong")
    assert kept.choose(asked(replace(WAY, profile=PROFILES["int4"]), WAY)).way == 1


def test_barred_methods_in_a_damaged_file_are_none_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "barred.json").write_text("[1")
    assert not Barred(tmp_path / "barred.json").reasons
    assert "barred methods unreadable" in caplog.text


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"predictor": None}, "there is no trained predictor"),
        ({"model": None}, "the model's architecture is not one that was measured"),
        ({"hardware": None}, "this machine was not measured"),
    ],
)
def test_choose_without_a_part_is_the_measured_default_and_says_so(changed: dict[str, None], why: str) -> None:
    parts: dict[str, object] = {"predictor": Told(), "model": MODEL, "hardware": HARDWARE, **changed}
    made = Policy(**parts)  # type: ignore[arg-type]
    warm = replace(WAY, warm_tokens=160)
    assert made.choose(asked()).note.method == "chunked-prefill"
    choice = made.choose(asked(WAY, warm))
    assert (choice.way, choice.note.method, choice.note.amounts) == (1, "prefix-cache+chunked-prefill", {"chunk": 128})
    assert choice.note.reason.endswith(f"the default, because {why}")
    assert choice.trial is None
    assert made.choose(asked(task=replace(TASK, prompt_tokens=20))).note.method == "plain"


def test_choose_with_a_predictor_that_fails_is_the_default_and_says_so() -> None:
    def cost(*_: object) -> float:
        raise SchemaError("trained on other features")

    choice = policy(Told(cost=cost)).choose(asked())
    assert choice.note.method == "chunked-prefill"
    assert choice.note.reason.endswith("because the predictor failed: trained on other features")


@settings(deadline=None)
@given(
    prompt=st.integers(1, 9_000),
    answer=st.integers(1, 2_000),
    warm=st.integers(0, 500),
    spread=st.floats(1.0, 5.0),
    limit=st.floats(0.0, 1e4),
    profile=st.sampled_from([*PROFILES.values(), replace(PROFILES["bf16"], weights="fp4")]),
)
def test_choose_of_any_task_can_serve_it(
    *, prompt: int, answer: int, warm: int, spread: float, limit: float, profile: object
) -> None:
    held = min(warm, (prompt - 1) // 16) * 16
    way = replace(WAY, warm_tokens=held, profile=profile)
    task = replace(TASK, prompt_tokens=prompt, answer_tokens=answer)
    choice = policy(Told(spread=spread), explore=0.5).choose(asked(way, task=task, limit_s=limit))
    assert choice.note.amounts.get("chunk", 0) < prompt
    assert "prefix-cache" not in choice.note.methods or held


def test_choose_is_quick() -> None:
    made = policy()
    spent: list[float] = []
    for _ in range(20):
        began = time.thread_time()
        made.choose(asked(WAY, replace(WAY, warm_tokens=160), replace(WAY, profile=PROFILES["int4"])))
        spent.append(time.thread_time() - began)
    assert statistics.median(spent) < 0.005


def test_estimate_of_an_answer_that_ended_early_is_shorter() -> None:
    made = Estimate(seconds=5.0, low=4.0, high=6.0, ttft_s=1.0, tpot_s=0.1, inside=True)
    assert made.seconds_of(41, asked=41) == pytest.approx(5.0)
    assert made.seconds_of(1, asked=41) == pytest.approx(1.0)


def test_made_cost_tells_methods_apart() -> None:
    assert seconds_of(TASK, HARDWARE, CANDIDATES["int4"]) < seconds_of(TASK, HARDWARE, CANDIDATES["none"])
