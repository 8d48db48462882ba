"""Measuring: the design, requests, a small run on real engines, what is thrown away, who is barred."""

from __future__ import annotations

from collections import Counter, namedtuple
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.node.selector.made_rows import HARDWARE, made_rows
from typer.testing import CliRunner

from plait_node.cli import app
from plait_node.selector.bench import Plan, load, measure_into, models, runner, wrong
from plait_node.selector.bench.design import BATCHES, Cell, design
from plait_node.selector.bench.models import SMALL, open_model
from plait_node.selector.bench.requests import prepare
from plait_node.selector.bench.settings import SETTINGS
from plait_node.selector.candidates import NONE
from plait_node.selector.errors import HistoryError, UnknownModelError, UnknownSettingError, UnknownTaskError
from plait_node.selector.rows import Row, Rows
from plait_node.selector.tasks import KINDS

ON_CPU = tuple(name for name, setting in SETTINGS.items() if setting.device == "cpu")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> str:
    """Let the smallest of the random models be one that runs in no time."""
    small = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = {**models._RANDOM["mistral-65m-random"], **small, "num_key_value_heads": 1, "head_dim": 32}
    monkeypatch.setitem(models._RANDOM, "mistral-65m-random", config)
    return "mistral-65m-random"


def test_design_meets_every_batch_size_with_every_task_model_and_setting_alike() -> None:
    cells = list(design(tasks=KINDS, models=SMALL, settings=ON_CPU))

    assert len(set(cells)) == len(cells)
    for word in ("task", "model", "setting"):
        found = {getattr(cell, word): set[int]() for cell in cells}
        for cell in cells:
            found[getattr(cell, word)].add(cell.batch)
        assert all(len(sizes) >= 3 for sizes in found.values()), found
    assert set(Counter(cell.batch for cell in cells)) == set(BATCHES)


def test_a_part_of_the_design_is_what_the_whole_has_of_it() -> None:
    whole = set(design(tasks=KINDS, models=SMALL, settings=ON_CPU))

    part = list(design(tasks=KINDS[2:4], models=SMALL[1:2], settings=ON_CPU[-1:]))

    assert part
    assert set(part) <= whole


def test_requests_are_the_same_each_time_and_share_no_cache_between_runs(tiny: str, tmp_path: Path) -> None:
    model = open_model(tiny, tmp_path)
    cell = Cell(task="shared-context", model=tiny, setting="one-core", batch=4)

    asked, again = prepare(cell, model, seed=1), prepare(cell, model, seed=1)

    assert asked == again
    assert len({request.prompt for request in asked.requests(1)}) == 4
    assert {request.salt for request in (*asked.requests(1), *asked.warming(1))}.isdisjoint(
        request.salt for request in asked.requests(2)
    )
    assert asked.facts.warm_tokens > 100
    begin = asked.prompts[0][: asked.facts.shared_tokens]
    assert all(tuple(prompt[: len(begin)]) == begin for prompt in (*asked.prompts, asked.warm))


def test_too_long_a_batch_is_halved_until_it_can_be_measured(tmp_path: Path, tiny: str) -> None:
    asked = prepare(
        Cell(task="shared-context", model=tiny, setting="one-core", batch=32), open_model(tiny, tmp_path), seed=1
    )

    assert asked.facts.batch < 32
    assert sum(map(len, asked.prompts)) <= 5_000


@pytest.mark.timeout(300)
def test_measuring_appends_rows_that_can_be_read_and_goes_on_where_it_stopped(tiny: str, tmp_path: Path) -> None:
    path = tmp_path / "history.parquet"
    plan = Plan(tasks=("chat",), models=(tiny,), settings=("wan-2-stages",), batches=(2,))

    rows = measure_into(path, plan, folder=tmp_path / "models")
    more = measure_into(path, replace(plan, tasks=("chat", "rewrite")), folder=tmp_path / "models")

    names = [row.candidate.name for row in rows]
    assert {"none", "always-on", "int4", "codec-int8"} <= set(names)
    assert not any("lookup" in name or "draft" in name for name in names)  # random weights
    assert list(more)[: len(rows)] == list(rows)
    assert {row.task.kind for row in more} == {"chat", "rewrite"}
    assert list(Rows.load(path)) == list(more)
    for row in more:
        assert row.outcome.repeats >= 3
        assert row.outcome.seconds_low <= row.outcome.seconds <= row.outcome.seconds_high
        # Two ends and what lies between: three hops a token, half a round trip each, on the clock and not slept.
        assert row.outcome.seconds > row.task.answer_tokens * 1.5 * 0.040
        assert row.outcome.tokens_s == pytest.approx(2 * row.task.answer_tokens / row.outcome.seconds)
        assert row.outcome.agreement == -1


def test_load_is_what_the_cores_were_busy_with_besides_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    busy, own, now = [0.0, 0.0], [0.0], [0.0]
    times = namedtuple("times", "user system idle iowait")  # noqa: PYI024 -- psutil's own kind, which is summed
    monkeypatch.setattr(load.psutil, "cpu_times", lambda percpu: [times(each, 0.0, 9.0, 1.0) for each in busy])
    monkeypatch.setattr(load.os, "times", lambda: SimpleNamespace(user=own[0], system=0.0))
    monkeypatch.setattr(load.os, "sched_getaffinity", lambda _: {0})
    monkeypatch.setattr(load.time, "perf_counter", lambda: now[0])
    counted = load.Load()

    busy[:], own[0], now[0] = [1.9, 1.5], 1.5, 2.0

    ours, everywhere = counted.foreign()
    assert ours == pytest.approx(0.2)
    assert everywhere == pytest.approx(0.95)


def test_disturbed_runs_are_thrown_away_until_there_are_enough_of_them(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disturbed = iter([(3.0, 3.0)] * 3)
    monkeypatch.setattr(runner.Load, "foreign", lambda _: next(disturbed, (0.0, 0.1)))
    model = open_model(tiny, tmp_path)
    monkeypatch.setattr(runner, "CANDIDATES", {"none": NONE})
    asked = prepare(Cell(task="chat", model=tiny, setting="one-core", batch=1), model, seed=1)

    (row,) = runner.Runner(model, replace(HARDWARE[0], name="one-core")).measure(asked, repeats=4, seed=0)

    assert row.outcome.repeats == 4
    assert row.outcome.discarded == 3
    assert row.outcome.load == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("plan", "error"),
    [
        (Plan(models=("gpt-9",)), UnknownModelError),
        (Plan(settings=("moon",)), UnknownSettingError),
        (Plan(tasks=("poem",)), UnknownTaskError),
    ],
    ids=str,
)
def test_unknown_names_are_refused_before_anything_is_measured(
    plan: Plan, error: type[Exception], tmp_path: Path
) -> None:
    with pytest.raises(error):
        measure_into(tmp_path / "history.parquet", plan, folder=tmp_path)
    assert not (tmp_path / "history.parquet").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--models", "gpt-9"], "no model 'gpt-9'"),
        (["--batches", "1,two"], "numbers from 1 to 255"),
        (["--batches", "0"], "numbers from 1 to 255"),
    ],
)
def test_command_says_what_is_wrong_in_one_line(options: list[str], words: str) -> None:
    found = CliRunner().invoke(app, ["bench-methods", "x.parquet", *options])

    assert found.exit_code == 2
    assert words in found.stderr
    assert not Path("x.parquet").exists()


@pytest.mark.parametrize("content", [b"", b"no Parquet", b"PAR1" + bytes(64) + b"PAR1"])
def test_damaged_history_is_refused_and_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "history.parquet"
    path.write_bytes(content)

    with pytest.raises(HistoryError, match="bench-methods"):
        measure_into(path, Plan(), folder=tmp_path)

    assert path.read_bytes() == content


def test_rows_come_back_from_parquet_and_from_lists_as_they_went(tmp_path: Path) -> None:
    rows = made_rows(cells=4)
    rows.save(tmp_path / "rows.parquet")

    assert list(Rows.load(tmp_path / "rows.parquet")) == list(rows) == list(Rows.from_list(rows.to_list()))
    with pytest.raises(HistoryError):
        Rows.from_list([{**rows.to_list()[0], "candidate_methods": "["}])


def test_matrix_has_a_value_where_a_candidate_was_measured_and_none_elsewhere() -> None:
    rows = made_rows(cells=6)

    matrix = rows.matrix("seconds")

    assert matrix.values.shape == (6, len({row.candidate.name for row in rows}))
    for row in rows:
        at = matrix.cells.index(row.cell), matrix.candidates.index(row.candidate.name)
        assert matrix.values[at] == row.outcome.seconds
    assert (matrix.values > 0).sum() == len(rows)


def scored(rows: Rows, agreements: dict[str, float]) -> list[Row]:
    return [
        replace(row, outcome=replace(row.outcome, agreement=agreements.get(row.candidate.name, 1.0)))
        for row in rows
        if row.model.real_weights
    ]


def test_the_method_that_only_failing_candidates_have_is_to_blame() -> None:
    rows = made_rows(cells=24)

    assert wrong(scored(rows, {})) == {}
    assert set(wrong(scored(rows, {"draft-4": 0.99}))) == {"draft-model"}
    assert set(wrong(scored(rows, {"int8": 0.05}))) == {"int8"}
    assert wrong(scored(rows, {"int8": 0.5})) == {}
    assert set(
        wrong(scored(rows, {"lookup-10": 0.4, "lookup-3": 0.4, "bf16-lookup-10": 0.0, "int4-lookup-10": 0.0}))
    ) == {"prompt-lookup"}
