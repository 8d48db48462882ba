"""A worker's selector over its folder: what it keeps, what it shows, when it fits anew."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from tests.node.selector.made_policy import HARDWARE, MODEL, WAY, Told, asked
from tests.node.worker.world import until

from plait_node.selector import LiveSelector, Options, Ran, Trained
from plait_node.selector.errors import HistoryError
from plait_node.selector.experience import Experience
from plait_node.selector.live import STATE, Refit
from plait_node.selector.observe import load_hardware, save_hardware
from plait_node.selector.training import error_of, load_trained

RAN = Ran(seconds=6.0, ttft_s=3.0, tokens=41, reused_tokens=0, accepted=0.5, overlap=0.1)


def live(folder: Path, *, refit: Refit | None = None) -> LiveSelector:
    return LiveSelector(
        folder,
        model=MODEL,
        hardware=HARDWARE,
        trained=Trained(predictor=Told(), digest="ab" * 32),
        clock=lambda: 1_000.0,
        options=Options(explore=0.0),
        refit=refit,
    )


@asynccontextmanager
async def running(selector: LiveSelector) -> AsyncIterator[None]:
    task = asyncio.create_task(selector.run())
    await asyncio.sleep(0)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def serve(selector: LiveSelector, number: int, ran: Ran = RAN) -> float:
    wanted = asked(digest=number.to_bytes(32, "big"))
    choice = selector.choose(wanted)
    selector.learn(wanted.digest, choice.trial, ran)
    return choice.note.predicted["total_s"]


async def test_live_selector_learns_from_jobs_and_keeps_it(tmp_path: Path) -> None:
    selector = live(tmp_path)
    before = serve(selector, 0)
    async with running(selector):
        for number in range(1, 30):
            serve(selector, number, replace(RAN, seconds=2 * before))
    again = live(tmp_path)
    after = again.choose(asked()).note.predicted["total_s"]
    assert after > 1.5 * before
    rows = Experience(tmp_path / "observed.parquet").rows()
    assert len(rows) == 30
    assert (rows[-1].candidate.name, rows[-1].outcome.seconds) == ("lookup-3", 2 * before)
    assert (rows[-1].task.answer_tokens, rows[-1].hardware.stages) == (41, 3)


async def test_live_selector_tells_its_state(tmp_path: Path) -> None:
    selector = live(tmp_path)
    async with running(selector):
        serve(selector, 1)
        selector.choose(asked(digest=b"\x02" * 32))
        selector.policy.bar("int4", "wrong tokens")
    state = json.loads((tmp_path / STATE).read_text())
    assert state["predictor"] == "ab" * 32
    assert (state["observed"], state["drifted"], state["missing"]) == (1, False, "")
    assert state["barred"] == {"int4": "wrong tokens"}
    newest, oldest = state["choices"]
    assert newest["request"] == "0x" + "02" * 32
    assert newest["took_s"] is None
    assert (oldest["took_s"], oldest["method"]) == (6.0, "chunked-prefill+prompt-lookup")
    assert oldest["predicted_s"] == pytest.approx(5.68, rel=0.01)
    assert "300 prompt tokens over 3 stages" in oldest["reason"]


async def test_live_selector_does_not_blame_a_method_for_a_prefix_that_was_gone(tmp_path: Path) -> None:
    selector = live(tmp_path)
    wanted = asked(replace(WAY, warm_tokens=160))
    choice = selector.choose(wanted)
    selector.learn(wanted.digest, choice.trial, RAN)
    assert selector.policy.corrections.shared == 1.0
    assert len(Experience(tmp_path / "observed.parquet")) == 0  # not saved yet


async def test_live_selector_fits_anew_on_drift_and_swaps(tmp_path: Path) -> None:
    fitted: list[int] = []
    better = Trained(predictor=Told(), digest="cd" * 32)

    async def refit() -> Trained | None:
        await asyncio.sleep(0)
        fitted.append(len(Experience(tmp_path / "observed.parquet")))
        return better

    selector = live(tmp_path, refit=refit)
    async with running(selector):
        for number in range(70):
            serve(selector, number)
        await asyncio.sleep(0.05)
        assert not fitted
        for number in range(70, 100):
            serve(selector, number, replace(RAN, seconds=18.0))
        await until(lambda: selector.policy.predictor is better.predictor)
    assert fitted == [100]
    assert selector.policy.corrections.shared == 1.0
    assert json.loads((tmp_path / STATE).read_text())["predictor"] == "cd" * 32


@pytest.mark.parametrize("failing", [False, True])
async def test_live_selector_goes_on_with_what_it_has_when_a_fit_is_no_better(tmp_path: Path, *, failing: bool) -> None:
    calls = 0

    async def refit() -> Trained | None:
        nonlocal calls
        calls += 1
        if failing:
            raise HistoryError("no rows")
        await asyncio.sleep(0)

    selector = live(tmp_path, refit=refit)
    before = selector.policy.predictor
    async with running(selector):
        for number in range(250):
            serve(selector, number)
        await until(lambda: calls == 1)
        await asyncio.sleep(0)
        assert selector.policy.predictor is before
        assert selector.policy.corrections.shared != 1.0


def test_live_selector_without_a_predictor_chooses_the_default_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained = load_trained(tmp_path, shipped=tmp_path)
    selector = LiveSelector(tmp_path, model=MODEL, hardware=HARDWARE, trained=trained, clock=lambda: 0.0)
    wanted = asked()
    choice = selector.choose(wanted)
    selector.learn(wanted.digest, choice.trial, RAN)
    assert choice.note.method == "chunked-prefill"
    assert "the measured default is chosen for every job reason=there is no trained predictor" in caplog.text


def test_load_trained_refuses_what_is_damaged_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "predictor.plait").write_bytes(b"plait predictor\nnonsense")
    assert load_trained(tmp_path, shipped=tmp_path / "none") is None
    assert "predictor not used" in caplog.text


def test_experience_is_bounded_and_starts_anew_from_a_damaged_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    selector, path = live(tmp_path), tmp_path / "observed.parquet"
    for number in range(30):
        serve(selector, number)
    rows = selector._experience.rows()
    kept = Experience(path, most=10)
    for row in rows:
        kept.add(row)
    kept.save(kept.rows())
    assert len(Experience(path)) == 10
    path.write_bytes(b"PAR1 no")
    assert len(Experience(path)) == 0
    assert "experience starts anew" in caplog.text


def test_error_of_judges_a_predictor_as_the_node_would_use_it(tmp_path: Path) -> None:
    selector = live(tmp_path)
    for number in range(40):
        serve(selector, number)
    rows = selector._experience.rows()
    steady, wild = Told(), Told(cost=lambda task, *_: 1.0 + task.prompt_tokens % 2)
    mixed = [replace(row, task=replace(row.task, prompt_tokens=300 + at % 2)) for at, row in enumerate(rows)]
    assert error_of(steady, mixed[:30], mixed[30:]) < 0.05 < error_of(wild, mixed[:30], mixed[30:])


def test_hardware_survives_its_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "sub" / "hardware.json"
    assert load_hardware(path) is None
    save_hardware(path, HARDWARE)
    assert load_hardware(path) == HARDWARE
    path.write_text("{}")
    assert load_hardware(path) is None
    assert "hardware facts unreadable" in caplog.text
