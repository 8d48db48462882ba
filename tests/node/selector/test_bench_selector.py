"""The comparison of selectors: what is held out stays unseen, figures are as worked out by hand, baselines learn."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bench.selector.baselines.alors import Alors
from bench.selector.baselines.always_on import AlwaysOn
from bench.selector.baselines.argosmart import Argosmart
from bench.selector.baselines.boosting import Boosting
from bench.selector.baselines.chance import Chance
from bench.selector.baselines.expert import Expert
from bench.selector.baselines.face import Selector, choose
from bench.selector.baselines.forest import Forest
from bench.selector.baselines.global_best import GlobalBest
from bench.selector.baselines.isac import Isac
from bench.selector.baselines.metainf import MetaInf
from bench.selector.baselines.ncf import Ncf
from bench.selector.baselines.oracle import Oracle
from bench.selector.cells import Cell, cells_of
from bench.selector.decision_time import decision_time
from bench.selector.evaluate import allowed_cells, evaluate
from bench.selector.inner import best_setting
from bench.selector.metrics import macro_f1, paired, score, summary
from bench.selector.replay import Held, replayed
from bench.selector.report import write
from bench.selector.slo import meets
from bench.selector.splits import SPLITS, Fold, left_out
from bench.selector.streamline import halving, streamline
from bench.selector.study import study
from bench.selector.suite import makers
from numpy.typing import NDArray
from tests.node.selector.made_rows import HARDWARE, MODELS, TASKS, made_rows

from plait_node.selector.boosting import Growth
from plait_node.selector.candidates import CANDIDATES
from plait_node.selector.embeddings import Embeddings
from plait_node.selector.facts import ModelFacts
from plait_node.selector.online import Corrections
from plait_node.selector.predictor import Options
from plait_node.selector.rows import Outcome, Row, Rows

QUICK = Options(growth=Growth(rounds=20), averaged=1, folds=2)
SMALL = {"always-on": 1.0, "combined": 1.5, "none": 2.0, "int4": 0.5, "bf16": 0.8}  # what is best for one request
LARGE = {"always-on": 1.0, "combined": 1.5, "none": 9.0, "int4": 2.0, "bf16": 0.6}  # and for sixteen


class Hashed:
    """An encoder whose vectors mean nothing, but differ."""

    name = "hashed"
    width = 8

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        digests = [hashlib.sha256(text.encode()).digest()[:8] for text in texts]
        rows = np.array([list(digest) for digest in digests], dtype=np.float32) + 1
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def hashed() -> Embeddings:
    return Embeddings("hashed", make=lambda _: Hashed())


def outcome(seconds: float, noise: float, ttft_s: float) -> Outcome:
    spread = noise * seconds * math.sqrt(3) / 0.93 / 2
    return Outcome(
        repeats=3,
        discarded=0,
        tokens_s=1 / seconds,
        seconds=seconds,
        seconds_low=seconds - spread,
        seconds_high=seconds + spread,
        ttft_s=ttft_s,
        tpot_p50_s=seconds / 100,
        tpot_p99_s=seconds / 50,
        peak_memory_bytes=1,
        energy_j=None,
        agreement=1.0,
        accepted=-1.0,
        overlap=0.0,
        load=0.0,
        at="2026-11-26",
        versions="{}",
    )


def made_cell(
    seconds: Mapping[str, float],
    *,
    noise: Mapping[str, float] | None = None,
    batch: int = 1,
    model: ModelFacts = MODELS[0],
    task: int = 0,
    ttft_s: float = 0.1,
) -> Cell:
    rows = [
        Row(
            task=replace(TASKS[task], batch=batch),
            model=model,
            hardware=replace(HARDWARE[0], price_per_hour=3_600.0),
            candidate=CANDIDATES[name],
            outcome=outcome(took, (noise or {}).get(name, 0.0), ttft_s),
        )
        for name, took in seconds.items()
    ]
    return cells_of(rows)[0]


def tiny() -> list[Cell]:
    """Return cells whose best candidate depends on the batch alone; models differ by their names."""
    return [
        made_cell(costs, batch=batch, model=replace(MODELS[0], name=f"model-{model}"))
        for costs, batches in ((SMALL, (1, 2)), (LARGE, (16, 32)))
        for batch in batches
        for model in range(10)
    ]


def learners() -> dict[str, Callable[[], Selector]]:
    embeddings = hashed()
    kinds: list[Callable[[], Selector]] = [Isac, Argosmart, Alors, Ncf, Forest, Boosting, lambda: MetaInf(embeddings)]
    return {kind().name: kind for kind in kinds}


@pytest.mark.parametrize("name", learners())
def test_learners_find_the_best_of_a_known_matrix(name: str) -> None:
    cells, selector = tiny(), learners()[name]()
    selector.fit([cell for cell in cells if cell.key[1] != "model-0"], seed=0)

    held = [cell for cell in cells if cell.key[1] == "model-0"]
    chosen = [choose(selector.rank(cell.question), list(cell.timings)) for cell in held]

    assert [cell.key[3] for cell in held] == [1, 2, 16, 32]
    assert chosen == ["int4", "int4", "bf16", "bf16"]


def test_global_best_takes_the_best_mean_log_speed() -> None:
    selector = GlobalBest()
    selector.fit([made_cell(SMALL, batch=1), made_cell(LARGE, batch=16)], seed=0)

    found = selector.rank(made_cell(SMALL).question)

    assert found["int4"] == pytest.approx(math.log(0.5 * 2.0) / 2)
    assert found["bf16"] == pytest.approx(math.log(0.8 * 0.6) / 2)
    assert choose(found, ["int4", "bf16", "none"]) == "bf16"


def test_always_on_takes_combined_where_nothing_is_compiled() -> None:
    assert choose(AlwaysOn().rank(made_cell(SMALL).question), list(SMALL)) == "always-on"
    assert choose(AlwaysOn().rank(made_cell(SMALL).question), ["none", "batching", "combined"]) == "combined"


@pytest.mark.parametrize(
    ("task", "batch", "hardware", "wanted"),
    [
        (3, 1, 0, ("int4-lookup-10", "lookup-10")),  # an edit of code, alone, one machine
        (5, 1, 0, ("bf16", "lookup-10")),  # a long prompt for a short answer
        (6, 1, 0, ("int4", "draft-4")),  # a story quotes nothing
        (6, 16, 0, ("bf16", "always-on")),  # no speculation under load
        (6, 1, 5, ("int4-codec-int8", "draft-4")),  # a slow link
        (2, 16, 5, ("codec-int8", "always-on")),
    ],
)
def test_expert_follows_the_table(task: int, batch: int, hardware: int, wanted: tuple[str, str]) -> None:
    cell = made_cell(SMALL, task=task, batch=batch)
    found = Expert().rank(replace(cell.question, hardware=HARDWARE[hardware]))
    exact = [name for name, candidate in CANDIDATES.items() if candidate.exact]

    assert (choose(found, list(CANDIDATES)), choose(found, exact)) == wanted


def test_oracle_has_no_regret_and_chance_has_some() -> None:
    cells = cells_of(made_rows(cells=24, seed=3))
    runs = evaluate({"oracle": lambda: Oracle(cells), "random": Chance}, cells, SPLITS["random"], seeds=2)

    for regime in ("exact", "any"):
        allowed = allowed_cells(cells, regime)
        oracle, chance = (score(allowed, runs[name].chosen[regime]) for name in ("oracle", "random"))
        assert oracle.regret.shape == (2, len(allowed))
        assert oracle.regret.max() == 0
        assert oracle.raw.all()
        assert chance.regret.mean() > 0.1


def test_choices_do_not_change_with_the_outcomes_of_held_out_cells() -> None:
    cells = cells_of(made_rows(cells=20, seed=5))
    draw = np.random.default_rng(1)
    held = set(range(4))
    changed = [_disturbed(cell, draw) if index in held else cell for index, cell in enumerate(cells)]
    fold = Fold(name="held", train=tuple(range(4, 20)), test=tuple(held))
    rest = Fold(name="rest", train=tuple(range(10)), test=tuple(range(4, 20)))

    def chosen(known: Sequence[Cell]) -> dict[str, list[str]]:
        suite = {name: maker for name, maker in makers(known, hashed(), QUICK).items() if name != "oracle"}
        runs = evaluate(suite, known, lambda *_: [rest, fold], seeds=1)
        return {name: run.chosen["any"][0][:4] for name, run in runs.items()}

    before, after = chosen(cells), chosen(changed)

    assert len(before) == 13
    assert [cell.ranked[0] for cell in cells[:4]] != [cell.ranked[0] for cell in changed[:4]]
    assert before == after


def _disturbed(cell: Cell, draw: np.random.Generator) -> Cell:
    rows = [
        replace(row, outcome=replace(row.outcome, seconds=row.outcome.seconds * float(draw.uniform(0.1, 10))))
        for row in cell.rows
    ]
    return cells_of(rows)[0]


@pytest.mark.parametrize("name", list(SPLITS))
def test_splits_ask_about_each_cell_once_and_never_train_on_it(name: str) -> None:
    cells = cells_of(made_rows(cells=40, seed=2))
    folds = SPLITS[name](cells, 7)

    if name == "leave-one-hardware-out":
        assert not folds, "one chip only: nothing to leave out"
        return
    assert sorted(index for fold in folds for index in fold.test) == list(range(40))
    for fold in folds:
        assert sorted((*fold.train, *fold.test)) == list(range(40))
        assert not {cells[index].key for index in fold.train} & {cells[index].key for index in fold.test}


def test_left_out_values_are_not_in_training() -> None:
    cells = cells_of(made_rows(cells=40, seed=2))
    for fold in left_out(cells, lambda cell: cell.question.model.name):
        assert {cells[index].question.model.name for index in fold.test} == {fold.name}
        assert fold.name not in {cells[index].question.model.name for index in fold.train}


def test_inner_selection_sees_only_what_it_is_given() -> None:
    cells = tiny()
    seen: set[str] = set()

    class Spy(GlobalBest):
        def __init__(self, setting: int) -> None:
            super().__init__()
            self._setting = setting

        def rank(self, question):  # noqa: ANN001, ANN202 -- the face's
            seen.add(question.model.name)
            return {"int4": 0.0, "bf16": 1.0} if self._setting == 1 and question.task.batch < 4 else {"bf16": 0.0}

    assert best_setting((0, 1), Spy, [cell for cell in cells if cell.key[1] != "model-0"], 0) == 1
    assert "model-0" not in seen


def test_metrics_are_as_worked_out_by_hand() -> None:
    first = made_cell({"always-on": 2.0, "lookup-10": 1.0, "none": 4.0})
    second = made_cell({"always-on": 1.0, "lookup-10": 1.02, "none": 3.0}, noise={"lookup-10": 0.025}, batch=4)
    scores = score([first, second], [["always-on", "lookup-10"]])
    found = summary(scores, np.array([True, True]), draws=20)

    assert found["top1"] == 0.5, "the second is tied: 2 % slower, noise 2.5 %"
    assert found["top1_raw"] == 0.0
    assert found["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)
    assert found["macro_f1_raw"] == 0.0
    assert found["regret_mean"] == pytest.approx((1.0 + 0.02) / 2)
    assert found["regret_p95"] == pytest.approx(0.02 + 0.95 * 0.98)
    assert found["gain_over_default"] == pytest.approx(math.sqrt(1 / 1.02))
    assert found["gain_over_none"] == pytest.approx(math.sqrt(2 * 3 / 1.02))
    assert found["cost_mean"] == pytest.approx((2.0 + 1.02) / 2), "a second costs 1"
    assert found["cost_ratio"] == pytest.approx((2.0 + 1.02) / 3.0)
    low, high = found["interval"]["regret_mean"]
    assert 0.02 - 1e-9 <= low <= found["regret_mean"] <= high <= 1.0 + 1e-9


@pytest.mark.parametrize(
    ("slower", "noise", "wanted"), [(1.02, 0.025, True), (1.02, 0.01, False), (1.04, 0.10, False), (1.0, 0.0, True)]
)
def test_ties_lie_within_the_noise_and_within_three_per_cent(slower: float, noise: float, wanted: bool) -> None:
    cell = made_cell({"always-on": 1.0, "lookup-3": slower}, noise={"lookup-3": noise})
    assert bool(score([cell], [["lookup-3"]]).right[0, 0]) is wanted


def test_cells_are_dropped_for_the_noise_of_their_two_best() -> None:
    took = {"always-on": 1.0, "lookup-3": 1.1, "none": 5.0}
    assert made_cell(took, noise={"lookup-3": 0.031}).noisy
    assert not made_cell(took, noise={"none": 0.5, "always-on": 0.029}).noisy


def test_allowed_cells_hold_what_the_payer_allows() -> None:
    cell = made_cell(SMALL)
    exact = cell.allowed("exact")
    assert exact is not None
    assert list(exact.timings) == ["always-on", "combined", "none"]
    assert made_cell({"always-on": 1.0, "int4": 0.5}).allowed("exact") is None


def test_macro_f1_counts_labels_that_are_chosen_or_true() -> None:
    truth, chosen = np.array([[0, 0, 1, 2]]), np.array([[0, 1, 1, 1]])
    assert macro_f1(truth, chosen) == pytest.approx((2 / 3 + 2 / 4 + 0) / 3)


def test_deadlines_are_shares_of_the_default() -> None:
    cell = made_cell({"always-on": 1.0, "lookup-10": 0.79, "lookup-3": 0.81}, task=5)
    assert [meets(cell, name) for name in cell.timings] == [False, True, False]


def test_paired_differences_are_by_cell() -> None:
    ours = np.array([[0.0, 0.1, 0.2, 0.3]])
    found = paired(ours, ours + 0.05)
    assert found["difference"] == pytest.approx(-0.05)
    assert found["interval"] == pytest.approx([-0.05, -0.05])


def test_halving_costs_are_as_worked_out_by_hand() -> None:
    cell = made_cell({"always-on": 1.0, "lookup-3": 2.0, "lookup-10": 3.0, "none": 4.0}, ttft_s=0.2)
    found = halving(cell, 0.25, lambda timing, _: timing.seconds)

    quarter = sum(0.2 + 0.25 * (took - 0.2) for took in (1.0, 2.0, 3.0, 4.0))
    half = sum(0.2 + 0.5 * (took - 0.2) for took in (1.0, 2.0))
    assert (found.chosen, found.trials) == ("always-on", 6)
    assert found.seconds == pytest.approx(quarter + half)
    assert found.cost == pytest.approx(quarter + half), "a second costs 1"


def test_streamline_finds_the_cheapest_schedule_that_is_as_good() -> None:
    cells = [made_cell({"always-on": 1.0, "lookup-3": 2.0}), made_cell({"always-on": 3.0, "none": 4.0}, batch=4)]
    found = streamline(cells, 0.0, seeds=1)
    assert found["cheapest_as_good"]["first_share"] == 1 / 32, "without noise the shortest trials do"
    assert streamline(cells, -1.0, seeds=1)["cheapest_as_good"] is None


def test_replay_learns_from_what_was_chosen_only() -> None:
    held = [
        Held(
            part="a",
            cell=made_cell({"always-on": 2.0, "lookup-3": 1.5, "none": 9.0}, batch=batch),
            predicted={"always-on": 1.0, "lookup-3": 1.1, "none": 8.0},
        )
        for batch in range(1, 25)
    ]
    off, on = replayed(held, "exact", None), replayed(held, "exact", Corrections())

    assert off == pytest.approx([1 / 3] * 24)
    assert on[0] == pytest.approx(1 / 3)
    assert 0.0 in on
    assert sum(on) < sum(off)


def test_decision_time_is_in_milliseconds() -> None:
    found = decision_time(Expert(), tiny()[:4], decisions=30)
    assert 0 < found["p50_ms"] <= found["p99_ms"] < 1_000


@pytest.mark.timeout(300)
def test_study_reports_all_splits_and_targets(tmp_path: Path) -> None:
    wanted = {MODELS[0].name, MODELS[2].name}, {HARDWARE[0].name, HARDWARE[4].name}
    every = [row for row in made_rows(cells=200, seed=4) if row.task.kind in {"chat", "story", "extract"}]
    rows = Rows(row for row in every if row.model.name in wanted[0] and row.hardware.name in wanted[1])
    made = study(rows, embeddings=hashed(), options=QUICK, seeds=1, parts=False, draws=20)
    write(made, tmp_path)

    found = json.loads((tmp_path / "selector.json").read_text())
    assert {"rows", "cells", "dropped", "random_weight_share", "splits", "targets", "decision"} <= found.keys()
    assert set(found["splits"]) == set(SPLITS)
    assert found["splits"]["leave-one-hardware-out"].startswith("not measured")
    assert len(found["splits"]["random"]["any"]["selectors"]) == 15
    assert found["splits"]["random"]["any"]["selectors"]["oracle"]["regret_mean"] == 0
    assert all({"figure", "target", "met"} <= each.keys() for each in found["targets"].values())
    assert "not measured" in (tmp_path / "selector.md").read_text()
    assert len(list(tmp_path.glob("*.png"))) == 4
