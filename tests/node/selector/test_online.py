"""Factors that a node learns, drift, and what survives a damaged file."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait_node.selector.online import Corrections


def noisy(random_: random.Random, factor: float) -> float:
    return factor * 2.718 ** random_.gauss(0.0, 0.1)


def test_factor_starts_at_one_and_approaches_what_is_seen() -> None:
    made = Corrections()
    assert made.factor("always-on") == 1.0
    for _ in range(40):
        made.add("always-on", 2.0, 3.0)
    assert made.factor("always-on") == pytest.approx(1.5, rel=0.05)


def test_factor_of_a_candidate_never_run_is_that_of_the_node() -> None:
    made = Corrections()
    for _ in range(40):
        made.add("always-on", 2.0, 4.0)
    assert made.factor("lookup-10") == made.shared == pytest.approx(2.0, rel=0.1)
    made.add("lookup-10", 2.0, 2.0)
    assert 1.5 < made.factor("lookup-10") < 2.0  # one job alone does not outweigh the node


def test_factor_follows_a_change_and_drift_is_found_soon() -> None:
    draw, made = random.Random(1), Corrections()
    for _ in range(200):
        made.add("always-on", 1.0, noisy(draw, 1.0))
    assert not made.drifted
    for _ in range(15):
        made.add("always-on", 1.0, noisy(draw, 1.6))
    assert made.drifted
    for _ in range(150):
        made.add("always-on", 1.0, noisy(draw, 1.6))
    assert made.factor("always-on") == pytest.approx(1.6, rel=0.1)
    made.settle()
    assert not made.drifted


def test_drift_is_rare_in_steady_noise() -> None:
    found = 0
    for seed in range(40):
        draw, made = random.Random(seed), Corrections()
        for _ in range(300):
            made.add("a", 1.0, noisy(draw, 3.0))
        found += made.drifted
    assert found <= 4


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(), st.floats())))
def test_factor_is_bounded_whatever_is_added(seen: list[tuple[str, float, float]]) -> None:
    made = Corrections()
    for candidate, predicted, actual in seen:
        made.add(candidate, predicted, actual)
    assert all(1 / 8.001 < made.factor(name) < 8.001 for name in "abcd")


def test_memory_is_bounded_and_forgets_the_oldest() -> None:
    made = Corrections()
    for number in range(1_000):
        made.add(f"candidate {number}", 1.0, 2.0)
    assert len(made) == 256


def test_corrections_survive_their_file(tmp_path: Path) -> None:
    made, path = Corrections(), tmp_path / "sub" / "corrections.json"
    for number in range(50):
        made.add(f"c{number % 3}", 1.0, 1.5 + number % 3)
    made.save(path)
    again = Corrections.load(path)
    assert [again.factor(f"c{number}") for number in range(4)] == [made.factor(f"c{number}") for number in range(4)]
    made.add("c1", 1.0, 9.0)
    again.add("c1", 1.0, 9.0)
    again.save(tmp_path / "again.json")
    made.save(path)
    assert (tmp_path / "again.json").read_text() == path.read_text()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "null",
        '{"version": 2}',
        '{"version": 1, "shared": {"count": "many", "value": 0}}',
        '{"version": 1, "shared": {"count": 1, "value": NaN}, "own": {}, "drift": {}}',
        '{"version": 1, "shared": {"count": 1, "value": 0}, "own": [], "drift": {}}',
        "[" * 100_000,
    ],
)
def test_corrections_from_a_damaged_file_are_empty_and_the_log_says_so(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "corrections.json"
    path.write_text(content)
    assert len(Corrections.load(path)) == 0
    assert "corrections start anew" in caplog.text
    assert len(Corrections.load(tmp_path / "none.json")) == 0
