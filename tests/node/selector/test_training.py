"""Fitting anew: from the shipped history and the node's rows, kept if it is no worse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.node.selector.made_rows import made_rows

from plait_node.selector.errors import HistoryError
from plait_node.selector.inputs import Options
from plait_node.selector.predictor import Predictor
from plait_node.selector.rows import Row, Rows
from plait_node.selector.training import fit, load_trained, refit_in_background


def slower(row: Row, factor: float) -> Row:
    """Return the row of a machine that is slower than it looks."""
    times = ("seconds", "seconds_low", "seconds_high", "ttft_s", "tpot_p50_s", "tpot_p99_s")
    return replace(row, outcome=replace(row.outcome, **{name: factor * getattr(row.outcome, name) for name in times}))


def folders(tmp_path: Path, *, cells: int = 20) -> tuple[Path, Path]:
    own, shipped = tmp_path / "own", tmp_path / "shipped"
    made_rows(cells=cells).save(shipped / "made.parquet")
    seen = made_rows(cells=cells // 2, seed=3)
    Rows(slower(row, 2.0) for row in seen[: len(seen) // 2 * 2]).save(own / "observed.parquet")
    return own, shipped


def test_fit_keeps_what_is_no_worse_and_the_worker_loads_it(tmp_path: Path) -> None:
    own, shipped = folders(tmp_path)
    assert load_trained(own, shipped=shipped) is None
    assert fit(own, shipped=shipped)
    trained = load_trained(own, shipped=shipped)
    assert trained is not None
    assert len(trained.digest) == 64
    row = made_rows(cells=10, seed=3)[0]
    assert trained.predictor.predict(row.task, row.model, row.hardware, [row.candidate])[0].seconds > 0


def test_fit_that_is_worse_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, shipped = folders(tmp_path)
    assert fit(own, shipped=shipped)
    before = (own / "predictor.plait").read_bytes()
    bad = Predictor.fit(made_rows(cells=3, seed=9), options=Options(numeric=False, roofline=False))
    monkeypatch.setattr(Predictor, "fit", lambda *_, **__: bad)
    assert not fit(own, shipped=shipped)
    assert (own / "predictor.plait").read_bytes() == before


@pytest.mark.timeout(300)  # the process has the lowest priority, and other tests want the cores as well
async def test_refit_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    own, shipped = folders(tmp_path, cells=6)
    trained = await refit_in_background(own, shipped=shipped)()
    assert trained is not None
    assert (own / "predictor.plait").exists()


async def test_refit_without_rows_fails_aloud(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match="ended with 1"):
        await refit_in_background(tmp_path, shipped=tmp_path)()
