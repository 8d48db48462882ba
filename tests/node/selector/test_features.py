"""Features: names, order, and what a column holds."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from tests.node.selector.made_rows import HARDWARE, MODELS, TASKS, made_rows

from plait_node.engine.methods import METHODS
from plait_node.selector.candidates import ALWAYS_ON, CANDIDATES, NONE
from plait_node.selector.features import CODE, NAMES, NUMERIC, ROOFLINE, SCHEMA, features
from plait_node.selector.roofline import roofline

ALL = list(CANDIDATES.values())
CELL = (TASKS[1], MODELS[0], HARDWARE[4])


def column(name: str) -> list[float]:
    return features(*CELL, ALL)[0][:, NAMES.index(name)].tolist()


def test_names_are_unique_and_their_schema_is_the_one_that_was_released() -> None:
    assert len(set(NAMES)) == len(NAMES) == len(NUMERIC) + len(ROOFLINE) + len(CODE)
    assert SCHEMA == "4c8e07e655153c8a", "columns changed: artefacts of before cannot be read; pin the new schema here"


def test_features_give_a_row_a_candidate_all_finite() -> None:
    for row in made_rows(cells=40):
        matrix, lines = features(row.task, row.model, row.hardware, [row.candidate])

        assert matrix.shape == (1, len(NAMES))
        assert np.isfinite(matrix).all()
        assert lines == [roofline(row.task, row.model, row.hardware, row.candidate)]


def test_features_of_a_cell_are_shared_and_codes_tell_all_candidates_apart() -> None:
    matrix, _ = features(*CELL, ALL)
    codes = {tuple(row) for row in matrix[:, -len(CODE) :].tolist()}

    assert (matrix[:, : len(NUMERIC)] == matrix[0, : len(NUMERIC)]).all()
    assert len(codes) == len(ALL)


def test_features_are_logarithms_of_counts_and_shares_as_they_are() -> None:
    matrix, _ = features(replace(CELL[0], batch=8), *CELL[1:], [NONE])
    found = dict(zip(NAMES, matrix[0].tolist(), strict=True))

    assert found["batch"] == math.log(8)
    assert found["parameters"] == math.log(MODELS[0].parameters)
    assert found["shared_share"] == pytest.approx(256 / 330)
    assert found["rtt_ms"] == math.log(21)
    assert found["ring_ms"] == math.log(31)
    assert found["link_ns"] == math.log1p(1e9 / 6.25e6)
    assert found["weights-fp32"] == 1
    assert found["weights-int4"] == found["compiled"] == 0


def test_features_hold_amounts_and_the_roofline_against_none() -> None:
    assert column("prompt-lookup")[ALL.index(CANDIDATES["lookup-10"])] == math.log(11)
    assert column("roofline-against_none")[ALL.index(NONE)] == 0
    alone = features(*CELL, [ALWAYS_ON])[0][0, NAMES.index("roofline-against_none")]
    assert alone == column("roofline-against_none")[ALL.index(ALWAYS_ON)]


def test_every_method_of_the_engine_has_a_column_but_those_that_the_weights_tell() -> None:
    assert set(METHODS) - {"int8", "int4"} == set(CODE) - {
        f"weights-{each}" for each in ("fp32", "bf16", "int8", "int4")
    }


def test_features_stay_finite_at_the_ends() -> None:
    task = replace(TASKS[0], batch=1, prompt_tokens=0.0, shared_tokens=0, answer_tokens=1, repetition=1.0)
    matrix, _ = features(task, MODELS[0], replace(HARDWARE[5], bytes_s=0.0, rtt_s=0.0), ALL)

    assert np.isfinite(matrix).all()
    assert features(*CELL, [])[0].shape == (0, len(NAMES))
