"""The predictor on made-up histories: what it ranks, how sure it is, and that it never sees what it is tried on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import chain, groupby

import numpy as np
import pytest
from tests.node.selector.made_rows import HARDWARE, MODELS, TASKS, made_rows

from plait_node.selector.boosting import Growth
from plait_node.selector.candidates import ALWAYS_ON, CANDIDATES
from plait_node.selector.describe import describe_candidate, describe_hardware, describe_model, describe_task
from plait_node.selector.embeddings import Embeddings
from plait_node.selector.errors import HistoryError
from plait_node.selector.facts import Candidate
from plait_node.selector.predictor import Forecast, Options, Predictor, _Trainer
from plait_node.selector.roofline import roofline
from plait_node.selector.rows import Row, Rows

QUICK = Options(growth=Growth(rounds=120, rate=0.08), averaged=1, folds=3)
ALL = list(CANDIDATES.values())
CELL = (replace(TASKS[1], batch=4), MODELS[0], HARDWARE[4])


def cells_of(rows: Sequence[Row]) -> list[list[Row]]:
    return [list(cell) for _, cell in groupby(rows, key=lambda row: row.cell)]


@cache
def halves() -> tuple[Rows, Rows]:
    """Return three quarters of the cells to train on, and the rest."""
    cells = cells_of(made_rows(cells=80))
    return Rows(chain.from_iterable(cells[:60])), Rows(chain.from_iterable(cells[60:]))


@cache
def fitted() -> Predictor:
    return Predictor.fit(halves()[0], options=QUICK)


def forecasts(predictor: Predictor, cell: Sequence[Row]) -> list[Forecast]:
    first = cell[0]
    return predictor.predict(first.task, first.model, first.hardware, [row.candidate for row in cell])


def regret(cell: Sequence[Row], chosen: int) -> float:
    seconds = [row.outcome.seconds for row in cell]
    return seconds[chosen] / min(seconds) - 1


def mean_regret(predictor: Predictor, cells: Sequence[Sequence[Row]]) -> float:
    picks = [int(np.argmin([each.seconds for each in forecasts(predictor, cell)])) for cell in cells]
    return float(np.mean([regret(cell, pick) for cell, pick in zip(cells, picks, strict=True)]))


def embeddings(rows: Sequence[Row]) -> Embeddings:
    """Return a vector drawn by chance for each text of the rows."""
    texts = {
        text
        for row in rows
        for text in (
            describe_task(row.task),
            describe_model(row.model),
            describe_hardware(row.hardware),
            describe_candidate(row.candidate),
        )
    }
    draw = np.random.default_rng(1)
    return Embeddings("made-up", {text: draw.normal(size=16).astype(np.float32) for text in sorted(texts)})


def test_predict_ranks_candidates_of_held_out_cells() -> None:
    cells = cells_of(halves()[1])
    prior = [
        regret(
            cell, int(np.argmin([roofline(row.task, row.model, row.hardware, row.candidate).seconds for row in cell]))
        )
        for cell in cells
    ]
    names = [[row.candidate.name for row in cell] for cell in cells]
    always = [
        regret(cell, known.index(ALWAYS_ON.name))
        for cell, known in zip(cells, names, strict=True)
        if ALWAYS_ON.name in known
    ]
    found = mean_regret(fitted(), cells)

    assert found < 0.03
    assert found < np.mean(prior) / 2
    assert found < np.mean(always) / 10


def test_predict_says_times_of_held_out_cells() -> None:
    rows = halves()[1]
    found = [each for cell in cells_of(rows) for each in forecasts(fitted(), cell)]

    def off(told: Sequence[float], measured: Sequence[float]) -> float:
        return float(np.median(np.abs(np.log(np.array(told) / np.array(measured)))))

    assert off([each.seconds for each in found], [row.outcome.seconds for row in rows]) < 0.07
    assert off([each.ttft_s for each in found], [row.outcome.ttft_s for row in rows]) < 0.1
    assert off([each.tpot_s for each in found], [row.outcome.tpot_p50_s for row in rows]) < 0.15


def test_predict_has_quantiles_that_hold_about_what_they_say() -> None:
    rows = halves()[1]
    found = [each for cell in cells_of(rows) for each in forecasts(fitted(), cell)]
    pairs = list(zip(found, rows, strict=True))
    below = np.mean([row.outcome.seconds < each.seconds_low for each, row in pairs])
    above = np.mean([row.outcome.seconds > each.seconds_high for each, row in pairs])

    assert 0.02 < below < 0.2
    assert 0.02 < above < 0.2
    assert all(each.seconds_low <= each.seconds <= each.seconds_high for each in found)


def test_fit_on_permuted_outcomes_has_no_skill() -> None:
    train, held = halves()
    order = np.random.default_rng(3).permutation(len(train))
    shuffled = [replace(row, outcome=train[int(index)].outcome) for row, index in zip(train, order, strict=True)]
    plain = replace(QUICK, roofline=False)

    def skill(rows: Sequence[Row]) -> float:
        predictor = Predictor.fit(rows, options=plain)
        told = [each.seconds for cell in cells_of(held) for each in forecasts(predictor, cell)]
        return float(np.corrcoef(np.log(told), np.log([row.outcome.seconds for row in held]))[0, 1])

    assert skill(train) > 0.9
    assert abs(skill(shuffled)) < 0.3


def test_inner_folds_never_have_a_cell_on_both_sides() -> None:
    cells = [row.cell for row in halves()[0]]
    folds = _Trainer(QUICK, 5)._folds(cells)

    assert len({(cell, int(fold)) for cell, fold in zip(cells, folds, strict=True)}) == len(set(cells))
    assert set(folds.tolist()) == {0, 1, 2}


def test_fit_gives_the_same_again_and_another_by_another_seed() -> None:
    rows, cell = halves()[0][:300], cells_of(halves()[1])[0]
    first, again = (forecasts(Predictor.fit(rows, options=QUICK, seed=7), cell) for _ in range(2))
    other = forecasts(Predictor.fit(rows, options=QUICK, seed=8), cell)

    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("numeric", "roofline", "texts"),
    [(True, False, False), (False, True, False), (False, False, True), (True, True, True), (False, False, False)],
)
def test_fit_with_blocks_switched_off_works(numeric: bool, roofline: bool, texts: bool) -> None:
    rows, held = made_rows(cells=12), cells_of(made_rows(cells=12))[0]
    options = replace(QUICK, numeric=numeric, roofline=roofline, embeddings=texts, dims=3)
    predictor = Predictor.fit(rows, embeddings=embeddings(rows), options=options)
    told = forecasts(predictor, held)

    assert predictor.inputs.width == 12 + 25 * numeric + 13 * roofline + 12 * texts
    assert all(each.seconds > 0 and each.inside for each in told)


def test_predict_knows_texts_that_have_no_vector_as_outside() -> None:
    rows = made_rows(cells=12)
    row = rows[0]
    predictor = Predictor.fit(rows, embeddings=embeddings(rows), options=QUICK)
    task = replace(row.task, kind="riddle")

    assert predictor.predict(row.task, row.model, row.hardware, [row.candidate])[0].inside
    assert not predictor.predict(task, row.model, row.hardware, [row.candidate])[0].inside
    assert Predictor.fit(rows, options=QUICK).predict(task, row.model, row.hardware, [row.candidate])[0].inside


def test_predict_tells_what_lies_outside_of_the_training_rows() -> None:
    task, model, hardware = CELL
    predictor = fitted()

    def inside(candidate: Candidate = ALWAYS_ON, **changed: object) -> bool:
        facts = {"task": task, "model": model, "hardware": hardware, **changed}
        return predictor.predict(facts["task"], facts["model"], facts["hardware"], [candidate])[0].inside

    methods = dict(ALWAYS_ON.methods)
    assert inside()
    assert inside(task=replace(task, prompt_tokens=300.0), hardware=replace(hardware, matmul_gflops=80.0))
    assert inside(Candidate(name="lookup-5", weights="fp32", methods={**methods, "prompt-lookup": 5}))
    assert not inside(task=replace(task, prompt_tokens=20_000.0))
    assert not inside(task=replace(task, batch=64))
    assert not inside(model=replace(model, family="mamba"))
    assert not inside(model=replace(model, hidden=8_192))
    assert not inside(hardware=replace(hardware, device="cuda"))
    assert not inside(hardware=replace(hardware, stages=9))
    assert not inside(Candidate(name="lookup-64", weights="fp32", methods={**methods, "prompt-lookup": 64}))
    assert not inside(Candidate(name="half-none", weights="bf16", methods={}))


def test_predict_answers_in_the_order_asked() -> None:
    found = fitted().predict(*CELL, ALL)

    assert [each.candidate for each in found] == ALL
    assert fitted().predict(*CELL, ALL[::-1]) == found[::-1]
    assert fitted().predict(*CELL, ALL[3:4]) == found[3:4]
    assert fitted().predict(*CELL, []) == []


def test_fit_learns_from_gaps_of_zero_and_answers_of_one_token() -> None:
    rows = [replace(row, outcome=replace(row.outcome, tpot_p50_s=0.0)) for row in made_rows(cells=10)]
    found = Predictor.fit(rows, options=QUICK).predict(replace(CELL[0], answer_tokens=1), *CELL[1:], ALL)

    assert all(np.isfinite([each.seconds, each.ttft_s, each.tpot_s]).all() for each in found)


def test_fit_refuses_what_it_cannot_learn_from() -> None:
    rows = made_rows(cells=10)
    with pytest.raises(HistoryError, match="0 cells are too few"):
        Predictor.fit(Rows(), options=QUICK)
    with pytest.raises(HistoryError, match="1 cells are too few"):
        Predictor.fit(cells_of(rows)[0], options=QUICK)
    with pytest.raises(HistoryError, match="took no time"):
        Predictor.fit([replace(rows[0], outcome=replace(rows[0].outcome, seconds=0.0)), *rows[1:]], options=QUICK)
    with pytest.raises(HistoryError, match="have no vector"):
        Predictor.fit(rows, embeddings=Embeddings("empty", {}), options=QUICK)
