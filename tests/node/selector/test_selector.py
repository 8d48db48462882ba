"""The selector over the shipped history and over small ones made for a point."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.protocol.choice import ChoiceNote, choice_hash
from plait.protocol.sealing import Note
from plait_node.selector import METHODS, History, Measurement, Method, Selector, TaskFeatures
from plait_node.selector.errors import HistoryError, NoMethodError
from plait_node.selector.predict import first_token_s

SHIPPED = History.shipped()


def cell(
    method: Method, prompt: int, first: float, *, chunk: int = 0, cached: int = 0, stages: int = 3, width: float = 0.01
) -> Measurement:
    return Measurement(
        model="m",
        stages=stages,
        method=method,
        chunk=chunk,
        prompt_tokens=prompt,
        cached_tokens=cached,
        repeats=5,
        ttft_s=first,
        ttft_low_s=first * (1 - width / 2),
        ttft_high_s=first * (1 + width / 2),
        tpot_s=0.05,
        wall_s=first,
        load=1.0,
    )


def history(*cells: Measurement) -> History:
    return History(command="made up", machine={"cores": 2}, measurements=cells)


MADE = history(
    cell("plain", 100, 1.0),
    cell("plain", 500, 5.0),
    cell("chunked-prefill", 100, 1.2, chunk=50),
    cell("chunked-prefill", 500, 3.0, chunk=50),
    cell("prefix-cache", 100, 0.2, cached=96),
    cell("prefix-cache", 500, 2.5, cached=240),
    cell("prefix-cache", 500, 0.5, cached=480),
)


def test_choose_takes_the_method_predicted_fastest() -> None:
    selector = Selector(MADE)

    short = selector.choose(TaskFeatures(prompt_tokens=90, max_tokens=10, stages=3))
    long = selector.choose(TaskFeatures(prompt_tokens=450, max_tokens=10, stages=3))
    shared = selector.choose(TaskFeatures(prompt_tokens=450, max_tokens=10, stages=3, shared_prefix_tokens=440))

    assert (short.method, short.amounts) == ("plain", {})
    assert (long.method, long.amounts) == ("chunked-prefill", {"chunk": 50})
    assert shared.method == "prefix-cache"


def test_shipped_history_has_tasks_for_each_method() -> None:
    selector = Selector()
    lengths = sorted({row.prompt_tokens for row in SHIPPED.measurements})
    short = TaskFeatures(prompt_tokens=lengths[0] // 2, max_tokens=64, stages=3)
    shared = TaskFeatures(prompt_tokens=lengths[-1], max_tokens=64, stages=3, shared_prefix_tokens=lengths[-1])
    long = [
        TaskFeatures(prompt_tokens=length, max_tokens=64, stages=3) for length in range(*lengths[:: len(lengths) - 1])
    ]

    assert selector.choose(short).method == "plain"
    assert selector.choose(shared).method == "prefix-cache"
    assert "chunked-prefill" in {selector.choose(task).method for task in long}


def test_shipped_history_names_its_command_and_machine() -> None:
    assert SHIPPED.command.startswith("python -m plait_node.selector.measure --out ")
    assert {"cpu", "cores", "torch", "clock", "link"} <= set(SHIPPED.machine)
    assert {row.method for row in SHIPPED.measurements} == set(METHODS)
    assert {row.stages for row in SHIPPED.measurements} >= {1, 3}
    for row in SHIPPED.measurements:
        assert 0 < row.ttft_low_s <= row.ttft_s <= row.ttft_high_s
        assert row.repeats >= 3
        assert row.load > 0
        assert row.wall_s > 0
        assert 0 <= row.cached_tokens < row.prompt_tokens


def test_choose_gives_back_measured_times_where_they_were_measured() -> None:
    selector = Selector(MADE)
    choice = selector.choose(TaskFeatures(prompt_tokens=500, max_tokens=11, stages=3, shared_prefix_tokens=480))

    assert choice.predicted.first_token_s == pytest.approx(0.5)
    assert choice.predicted.total_s == pytest.approx(0.5 + 10 * 0.05)
    assert {each.title: round(each.first_token_s, 6) for each in choice.others} == {
        "chunked-prefill (chunk 50)": 3.0,
        "plain": 5.0,
    }


def test_choose_within_the_noise_stays_plain_and_says_so() -> None:
    noisy = history(cell("plain", 100, 1.0, width=0.2), cell("chunked-prefill", 100, 0.9, chunk=50, width=0.2))
    choice = Selector(noisy).choose(TaskFeatures(prompt_tokens=100, max_tokens=1, stages=3))

    assert choice.method == "plain"
    assert choice.reason.endswith("(the difference is within the 12% that may be chance)")


def test_reason_names_facts_and_predictions() -> None:
    choice = Selector(MADE).choose(TaskFeatures(prompt_tokens=500, max_tokens=10, stages=3, shared_prefix_tokens=490))

    assert choice.reason == (
        "prefix-cache: 500 prompt tokens over 3 stages, 480 of them cached; first token predicted after 0.50 s, "
        "against 3.00 s chunked-prefill (chunk 50) and 5.00 s plain"
    )


def test_reason_admits_another_number_of_stages() -> None:
    choice = Selector(MADE).choose(TaskFeatures(prompt_tokens=50, max_tokens=10, stages=5))

    assert choice.reason.endswith("from measurements over 3 stages, the nearest there are")


def test_note_holds_the_choice_and_why() -> None:
    choice = Selector(MADE).choose(TaskFeatures(prompt_tokens=450, max_tokens=11, stages=3, step_s=0.1))
    note = choice.note()

    assert (note.method, note.amounts, note.reason) == ("chunked-prefill", {"chunk": 50}, choice.reason)
    assert note.predicted == {"first_token_s": 2.775, "total_s": 3.775, "plain.first_token_s": 4.5}
    assert ChoiceNote.from_note(Note(text=note.to_json())) == note
    assert note.choice == choice_hash("chunked-prefill", {"chunk": 50})


def test_round_trips_make_a_prefix_cache_dearer() -> None:
    near = TaskFeatures(prompt_tokens=100, max_tokens=10, stages=3, shared_prefix_tokens=96)
    far = replace(near, hop_s=1.0)

    assert Selector(MADE).choose(near).method == "prefix-cache"
    assert Selector(MADE).choose(far).method == "plain"


@pytest.mark.parametrize(("shared", "cached"), [(0, 0), (15, 0), (16, 16), (31, 16), (32, 32), (33, 32), (900, 32)])
def test_cached_tokens_are_whole_windows_short_of_the_prompt(shared: int, cached: int) -> None:
    task = TaskFeatures(prompt_tokens=33, max_tokens=1, stages=3, shared_prefix_tokens=shared)

    assert task.cached_tokens == cached


def test_choose_of_what_cannot_serve_raises() -> None:
    task = TaskFeatures(prompt_tokens=40, max_tokens=1, stages=3)

    with pytest.raises(NoMethodError, match="allow plain"):
        Selector(MADE).choose(task, allowed=["prefix-cache", "chunked-prefill"])
    with pytest.raises(NoMethodError, match="at least one token"):
        Selector(MADE).choose(replace(task, prompt_tokens=0))


@given(
    st.integers(1, 9_000),
    st.integers(1, 2_000),
    st.integers(0, 9_000),
    st.integers(1, 64),
    st.sets(st.sampled_from(METHODS)).map(lambda some: {*some, "plain"}),
)
def test_choose_of_any_task_can_serve_it(
    prompt: int, answer: int, shared: int, stages: int, allowed: set[Method]
) -> None:
    task = TaskFeatures(prompt_tokens=prompt, max_tokens=answer, stages=stages, shared_prefix_tokens=shared)
    choice = Selector(SHIPPED).choose(task, allowed)

    assert choice.method in allowed
    assert choice.predicted.first_token_s > 0
    assert choice.amounts.get("chunk", 0) < prompt
    assert choice.method != "prefix-cache" or task.cached_tokens
    assert all(each.first_token_s > 0 for each in choice.others)


def test_choose_is_quick() -> None:
    selector = Selector()
    task = TaskFeatures(prompt_tokens=300, max_tokens=64, stages=3, shared_prefix_tokens=200)
    began = time.process_time()
    for _ in range(20):
        selector.choose(task)

    assert (time.process_time() - began) / 20 < 0.005


def test_first_token_s_lies_between_its_neighbours() -> None:
    plain = [row for row in MADE.measurements if row.method == "plain"]

    assert first_token_s(plain, prompt_tokens=300, computed_tokens=300) == pytest.approx(3.0)
    assert first_token_s(plain, prompt_tokens=900, computed_tokens=900) == pytest.approx(9.0)
    assert first_token_s(plain[:1], prompt_tokens=50, computed_tokens=50) == pytest.approx(1.0 * 0.5)


def test_history_survives_its_file(tmp_path: Path) -> None:
    SHIPPED.save(tmp_path / "sub" / "history.json")

    assert History.load(tmp_path / "sub" / "history.json") == SHIPPED


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"version": 2}',
        b'{"version": 1, "command": "", "machine": {}, "measurements": []}',
        b'{"version": 1, "command": "", "machine": {}, "measurements": [{"method": "plain"}]}',
    ],
)
def test_history_that_is_damaged_says_so(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "history.json"
    path.write_bytes(content)

    with pytest.raises(HistoryError, match="measure anew"):
        History.load(path)


def test_history_that_is_missing_or_lacks_plain_says_so(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match=r"selector\.measure"):
        History.load(tmp_path / "none.json")
    with pytest.raises(HistoryError, match="plain"):
        Selector(history(cell("prefix-cache", 100, 0.2, cached=96)))


def test_selector_package_loads_without_torch() -> None:
    code = "import sys, plait_node.selector; print(sorted({'torch', 'transformers', 'gguf'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)

    assert done.stdout.strip() == "[]"
