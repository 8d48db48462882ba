"""Rates of the roofline: found again in rows that follow them, and left alone where no row tells."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.node.selector.made_rows import made_rows

from plait_node.selector.facts import Candidate
from plait_node.selector.rates import BY_HAND, LANES, NAMES, Rates, fit_rates, lane
from plait_node.selector.roofline import roofline
from plait_node.selector.rows import Row


def line(row: Row, rates: Rates) -> tuple[float, float]:
    found = roofline(row.task, row.model, row.hardware, row.candidate, rates)
    return found.seconds, found.ttft_s


def following(rates: Rates, *, noise: float = 0.0) -> list[Row]:
    """Return rows that took what these rates say."""
    draw, made = np.random.default_rng(0), list[Row]()
    for row in made_rows(cells=60):
        seconds, ttft = (time * float(np.exp(noise * draw.standard_normal())) for time in line(row, rates))
        made.append(replace(row, outcome=replace(row.outcome, seconds=seconds, ttft_s=ttft)))
    return made


TRUE = Rates(
    values={
        name: value * (1.5 if "int8" in name else 0.7 if "product" in name else 1.2)
        for name, value in BY_HAND["cpu"].values.items()
    }
)


@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_rates_that_rows_follow_are_found_again(noise: float) -> None:
    rows = following(TRUE, noise=noise)

    found = fit_rates(rows, line)["cpu"]

    off = [abs(np.log(line(row, found)[0] / line(row, TRUE)[0])) for row in rows]
    before = [abs(np.log(line(row, BY_HAND["cpu"])[0] / line(row, TRUE)[0])) for row in rows]
    assert np.median(off) < 0.02
    assert np.median(before) > 0.07
    assert set(found.values) == set(NAMES)


def test_a_few_rows_far_off_move_the_rates_little() -> None:
    rows = following(TRUE)
    wild = [replace(row, outcome=replace(row.outcome, seconds=20 * row.outcome.seconds)) for row in rows[::25]]

    found = fit_rates([*rows, *wild], line)["cpu"]

    assert np.median([abs(np.log(line(row, found)[0] / line(row, TRUE)[0])) for row in rows]) < 0.03


def test_what_no_row_tells_stays_as_it_was_by_hand() -> None:
    rows = [
        row for row in following(TRUE) if row.candidate.weights != "int4" and "draft-model" not in row.candidate.methods
    ]

    found = fit_rates(rows, line)

    assert found["cuda"] == BY_HAND["cuda"]
    for name in ("read-int4", "product-int4", "head-int4"):
        assert found["cpu"].values[name] == pytest.approx(BY_HAND["cpu"].values[name])


def test_speculation_tells_nothing_of_rates() -> None:
    rows = following(TRUE)
    guessed = [
        replace(row, outcome=replace(row.outcome, seconds=9 * row.outcome.seconds))
        for row in rows
        if "prompt-lookup" in row.candidate.methods
    ]

    assert guessed
    assert fit_rates([*rows, *guessed], line) == fit_rates(rows, line)


def test_every_candidate_has_a_lane() -> None:
    assert lane(Candidate(name="", weights="fp32", methods={})) == "fp32-plain"
    assert lane(Candidate(name="", weights="fp32", methods={"compiled": 1})) == "fp32"
    assert {lane(Candidate(name="", weights=each, methods={})) for each in ("bf16", "int8", "int4")} < set(LANES)
