"""Artefacts: a round trip, and every refusal of what is damaged, foreign or hostile."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.node.selector.made_rows import made_rows
from tests.node.selector.test_predictor import ALL, CELL, QUICK, embeddings

from plait_node.selector import artefact
from plait_node.selector.artefact import load, save
from plait_node.selector.boosting import Forest, Growth, Tree
from plait_node.selector.embeddings import Embeddings
from plait_node.selector.errors import ArtefactError, SchemaError, SelectorError
from plait_node.selector.predictor import Predictor

HEAD = b"plait predictor\n"
SMALL = replace(QUICK, growth=Growth(rounds=15), folds=2)
Change = Callable[[dict[str, Any]], object]


@cache
def small() -> Predictor:
    return Predictor.fit(made_rows(cells=12), options=SMALL)


@cache
def saved(folder: Path) -> str:
    """Return the JSON of a good artefact."""
    save(small(), folder / "good")
    return json.dumps(unpacked(folder / "good"))


def unpacked(path: Path) -> dict[str, Any]:
    return json.loads(zlib.decompress(path.read_bytes()[len(HEAD) :]))


def packed(path: Path, told: object) -> Path:
    path.write_bytes(HEAD + zlib.compress(json.dumps(told).encode(), 1))
    return path


def changed(path: Path, change: Change) -> Path:
    """Write a good artefact with one thing changed."""
    told = json.loads(saved(path.parent))
    change(told)
    return packed(path, told)


def put(*keys: str | int, value: object) -> Change:
    def change(told: dict[str, Any]) -> None:
        place: Any = told
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return change


def test_save_and_load_give_the_same_predictor(tmp_path: Path) -> None:
    path = tmp_path / "new" / "predictor"
    found = save(small(), path, metrics={"regret": 0.01})
    loaded = load(path, expected=found)

    assert found == hashlib.sha256(path.read_bytes()).hexdigest()
    assert loaded.predict(*CELL, ALL) == small().predict(*CELL, ALL)
    assert loaded.metrics == {"regret": 0.01}
    assert loaded.learned.history == small().learned.history
    assert loaded.inputs.options == SMALL
    assert [each.name for each in path.parent.iterdir()] == ["predictor"]


def test_save_writes_the_same_bytes_again_also_after_a_load(tmp_path: Path) -> None:
    first = save(small(), tmp_path / "a")

    assert save(Predictor.fit(made_rows(cells=12), options=SMALL), tmp_path / "b") == first
    assert save(load(tmp_path / "a"), tmp_path / "c") == first


def test_load_with_texts_needs_the_encoder_that_it_was_trained_with(tmp_path: Path) -> None:
    rows = made_rows(cells=12)
    known = embeddings(rows)
    trained = Predictor.fit(rows, embeddings=known, options=SMALL)
    save(trained, tmp_path / "a")
    cell = (rows[0].task, rows[0].model, rows[0].hardware, [rows[0].candidate])

    assert load(tmp_path / "a", embeddings=known).predict(*cell) == trained.predict(*cell)
    with pytest.raises(ArtefactError, match=r"needs embeddings of made-up, given were none"):
        load(tmp_path / "a")
    with pytest.raises(ArtefactError, match=r"given were another"):
        load(tmp_path / "a", embeddings=Embeddings("another", {}))


def test_load_refuses_another_schema_and_another_version(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match=r"was trained on features 0123, not .*; train anew"):
        load(changed(tmp_path / "a", put("schema", value="0123")))
    with pytest.raises(ArtefactError, match="has version 9, not 1; train anew"):
        load(changed(tmp_path / "a", put("version", value=9)))


def test_load_refuses_another_file_than_the_expected_one(tmp_path: Path) -> None:
    found = save(small(), tmp_path / "a")
    with pytest.raises(ArtefactError, match="is not the expected predictor"):
        load(tmp_path / "a", expected="0" * 64)
    (tmp_path / "a").write_bytes((tmp_path / "a").read_bytes() + b" ")
    with pytest.raises(ArtefactError, match="is not the expected predictor"):
        load(tmp_path / "a", expected=found)


def test_load_refuses_what_is_missing_foreign_cut_off_or_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with pytest.raises(ArtefactError, match="cannot read"):
        load(path)
    with pytest.raises(ArtefactError, match="cannot read"):
        load(tmp_path)
    save(small(), path)
    good = path.read_bytes()
    bad = {
        "is no predictor": b"PK\x03\x04" + good,
        "is cut off": good[:-20],
        "goes on": good + b"more",
        "is damaged": good[:500] + bytes(64) + good[564:],
    }
    for told, content in bad.items():
        path.write_bytes(content)
        with pytest.raises(ArtefactError, match=told):
            load(path)


def test_load_refuses_what_is_too_large_before_it_unpacks_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(HEAD + zlib.compress(bytes(20 << 20), 9))
    with pytest.raises(ArtefactError, match="unpacks to more than"):
        load(path)
    save(small(), path)
    monkeypatch.setattr(artefact, "_MOST_BYTES", 1_000)
    with pytest.raises(ArtefactError, match="is larger than 1000 bytes"):
        load(path)


@pytest.mark.parametrize("text", ["[1]", '"a"', "{", '{"version": NaN}', "[" * 50_000, "1" * 5_000, '{"version":1'])
def test_load_refuses_json_that_is_none_of_ours(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(HEAD + zlib.compress(text.encode()))
    with pytest.raises(ArtefactError):
        load(path)


FOREST = ("forests", "seconds")
TREE = (*FOREST, "trees", 0)


@pytest.mark.parametrize(
    "change",
    [
        put(*TREE, 0, 0, value=10_000),  # a feature that there is not
        put(*TREE, 0, 0, value=-1),
        put(*TREE, 0, 0, value="1\nnum_leaves=9"),
        put(*TREE, 0, 0, value=True),
        put(*TREE, 1, 0, value="0.5 num_cat=3"),
        put(*TREE, 1, 0, value=10**400),
        put(*TREE, 2, 0, value=1),  # a split by category, whose lists are not there
        put(*TREE, 2, 0, value=False),
        put(*TREE, 3, 0, value=0),  # a circle
        put(*TREE, 3, 0, value=-9_999),  # a leaf that there is not
        put(*TREE, 4, 0, value=9_999),
        put(*TREE, 5, value=[]),
        put(*TREE, 5, value=[0.0] * 5_000),
        put(*TREE, 5, 0, value=None),
        put(*TREE, value=[[], [], [], [], []]),
        put(*FOREST, "trees", value=[]),
        put(*FOREST, "width", value=3),
        put(*FOREST, "width", value=10**9),
        put(*FOREST, "width", value="50"),
        put("forests", value={}),
        put("forests", "low", value=None),
        put("widen", value=[0.1]),
        put("widen", value=["0.1", 0.1]),
        put("metrics", "regret", value="good"),
        put("options", "dims", value=2.5),
        put("options", "code", value=True),
        put("options", value=None),
        put("options", "growth", "rounds", value=True),
        put("inputs", "low", value=[0.0]),
        put("inputs", "low", 0, value="x"),
        put("inputs", "projections", value={"task": {"mean": [0.0], "axes": [[1.0]]}}),
        put("inputs", "projections", value={"task": {"mean": ["x"], "axes": []}}),
        put("seed", value="x"),
        lambda told: told.pop("inputs"),
    ],
)
def test_load_refuses_numbers_that_are_no_predictor(tmp_path: Path, change: Change) -> None:
    with pytest.raises(ArtefactError, match=r"is damaged \(.*; train anew or fetch it again"):
        load(changed(tmp_path / "a", change))


@pytest.mark.parametrize("word", ["1e999", "NaN", "-Infinity"])
def test_load_refuses_numbers_that_are_not_finite(tmp_path: Path, word: str) -> None:
    path = changed(tmp_path / "a", put(*TREE, 5, 0, value="HERE"))
    text = json.dumps(unpacked(path)).replace('"HERE"', word)
    path.write_bytes(HEAD + zlib.compress(text.encode()))
    with pytest.raises(ArtefactError, match="is damaged"):
        load(path)


@settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)
@given(st.data())
def test_load_of_a_changed_number_works_or_refuses(tmp_path: Path, data: st.DataObject) -> None:
    def change(told: dict[str, Any]) -> None:
        part = told["forests"][data.draw(st.sampled_from(["seconds", "tpot"]))]["trees"]
        lists = part[data.draw(st.integers(0, len(part) - 1))]
        numbers = lists[data.draw(st.integers(0, 5))]
        value = data.draw(st.one_of(st.integers(-20, 60), st.floats(), st.booleans(), st.none(), st.text(max_size=3)))
        numbers[data.draw(st.integers(0, len(numbers) - 1))] = value

    path = changed(tmp_path / "a", change)
    try:
        found = load(path).predict(*CELL, ALL)
    except SelectorError:
        return
    assert len(found) == len(ALL)


def test_forest_reads_what_it_wrote_exactly_and_runs_as_lightgbm_grew_it() -> None:
    draw = np.random.default_rng(0)
    matrix = draw.normal(size=(200, 4))
    forest = Forest.grow(matrix, matrix[:, 0] * matrix[:, 1], quantile=0.5, growth=Growth(rounds=30), seeds=[0, 1])
    again = Forest.from_lists(json.loads(json.dumps(forest.to_lists())))

    assert len(forest.trees) == 60
    assert (again.predict(matrix) == forest.predict(matrix)).all()
    assert forest.predict(matrix) == pytest.approx([sum(_walk(each, row) for each in forest.trees) for row in matrix])


def test_forest_of_one_value_is_that_value() -> None:
    forest = Forest.grow(np.zeros((9, 2)), np.full(9, 3.0), quantile=0.5, growth=Growth(rounds=5), seeds=[0, 1])

    assert forest.predict(np.ones((2, 2))) == pytest.approx([3.0, 3.0])


def _walk(tree: Tree, row: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    node = 0 if tree.features else -1
    while node >= 0:
        node = (tree.left if row[tree.features[node]] <= tree.thresholds[node] else tree.right)[node]
    return tree.values[-1 - node]
