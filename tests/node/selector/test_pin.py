"""An operator's pin: what may be pinned, how a worker follows its file, and what of it a job is run by."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from tests.node.selector.made_policy import HARDWARE, MODEL, TASK, WAY, Told, asked, policy

from plait_node.selector import LiveSelector, OverBudgetError, Trained
from plait_node.selector.barred import Barred
from plait_node.selector.combinations import Combination
from plait_node.selector.errors import PinError
from plait_node.selector.pin import PIN, Pinned, pin_of, read_pin, save_pin

CHUNKS = Combination(reuse=True, chunk=64)


def test_pin_of_a_word_has_the_usual_amounts() -> None:
    assert pin_of("plain") == Combination()
    assert pin_of("prefix-cache+chunked-prefill+prompt-lookup") == Combination(reuse=True, chunk=128, depth=10)
    assert pin_of("prompt-lookup", depth=3) == Combination(depth=3)


@pytest.mark.parametrize(
    ("method", "amounts", "said"),
    [
        ("draft-model", {}, "no method of a job"),
        ("prefix-cache+prefix-cache", {}, "no method of a job"),
        ("", {}, "no method of a job"),
        ("prefix-cache", {"chunk": 64}, "chunk is an amount of chunked-prefill"),
        ("chunked-prefill", {"chunk": 1}, "chunk is 16 to 8192"),
        ("prompt-lookup", {"depth": 65}, "depth is 1 to 64"),
    ],
)
def test_pin_of_what_no_worker_chooses_is_refused(method: str, amounts: dict[str, int], said: str) -> None:
    with pytest.raises(PinError, match=said):
        pin_of(method, **amounts)


def test_pin_is_kept_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "selector" / PIN
    assert read_pin(path) is None
    save_pin(path, CHUNKS)
    assert json.loads(path.read_text()) == {"method": "prefix-cache+chunked-prefill", "amounts": {"chunk": 64}}
    assert read_pin(path) == CHUNKS
    save_pin(path, None)
    save_pin(path, None)
    assert not path.exists()


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        "\udcff",
        '{"method": 3}',
        '{"method": "plain", "amounts": []}',
        '{"method": "prompt-lookup", "amounts": {"depth": true}}',
        '{"method": "prompt-lookup", "amounts": {"steps": 3}}',
        '{"method": "plain", "until": 3}',
        '{"method": "codec-int8"}',
        "[" * 100_000,
    ],
)
def test_pin_that_is_damaged_is_ignored_aloud(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / PIN
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(PinError, match="--clear"):
        read_pin(path)
    pinned = Pinned(path)
    assert pinned.current() is None
    assert pinned.current() is None
    assert [each.message.split(" error=")[0] for each in caplog.records] == ["pin ignored"]


def test_pinned_follows_its_file(tmp_path: Path) -> None:
    path = tmp_path / PIN
    pinned = Pinned(path)
    assert pinned.current() is None
    save_pin(path, CHUNKS)
    assert pinned.current() == CHUNKS
    path.write_text('{"method": "plain"}')
    os.utime(path, ns=(1, 1))
    assert pinned.current() == Combination()
    save_pin(path, None)
    assert pinned.current() is None


def test_policy_takes_what_is_pinned_over_the_soonest_route() -> None:
    slow, quick = replace(WAY, step_s=0.4, measured=True), replace(WAY, step_s=0.05, measured=True)
    choice = policy().choose(asked(slow, quick), pin=Combination(chunk=64))
    assert (choice.way, choice.note.method, choice.note.amounts) == (1, "chunked-prefill", {"chunk": 64})
    assert choice.note.reason.endswith("; pinned by the operator")
    assert choice.trial is not None
    assert choice.trial.candidate.methods["chunked-prefill"] == 64


def test_policy_turns_off_what_of_a_pin_cannot_run() -> None:
    every = Combination(reuse=True, chunk=64, depth=3)
    cold = policy().choose(asked(), pin=every)
    warm = policy().choose(asked(replace(WAY, warm_tokens=160)), pin=every)
    short = policy().choose(asked(task=replace(TASK, prompt_tokens=40)), pin=every)
    barred = Barred()
    barred.bar("prompt-lookup", "wrong tokens")
    safe = policy(barred=barred).choose(asked(), pin=every)
    assert cold.note.method == "chunked-prefill+prompt-lookup"
    assert warm.note.method == "prefix-cache+chunked-prefill+prompt-lookup"
    assert short.note.method == "prompt-lookup"
    assert safe.note.method == "chunked-prefill"


def test_policy_keeps_limits_beside_a_pin() -> None:
    late = policy().choose(asked(limit_s=0.1), pin=Combination())
    assert "pinned by the operator; nothing is expected within the 0.1 s left" in late.note.reason
    with pytest.raises(OverBudgetError):
        policy(budget=1e-9, over_budget="refuse").choose(asked(), pin=Combination())


def test_policy_without_a_predictor_takes_what_is_pinned() -> None:
    made = policy()
    made.predictor = None
    choice = made.choose(asked(), pin=CHUNKS)
    assert (choice.note.method, choice.note.amounts, choice.trial) == ("chunked-prefill", {"chunk": 64}, None)
    assert "pinned by the operator, not predicted because there is no trained predictor" in choice.note.reason


def test_live_selector_takes_up_a_pin_and_its_end_without_restart(tmp_path: Path) -> None:
    selector = LiveSelector(
        tmp_path,
        model=MODEL,
        hardware=HARDWARE,
        trained=Trained(predictor=Told(), digest="ab" * 32),
        clock=lambda: 1_000.0,
    )
    free = selector.choose(asked()).note.method
    save_pin(tmp_path / PIN, Combination())
    pinned = selector.choose(asked()).note
    save_pin(tmp_path / PIN, None)
    assert free == selector.choose(asked()).note.method == "chunked-prefill+prompt-lookup"
    assert pinned.method == "plain"
    assert "pinned by the operator" in pinned.reason
