"""Measuring: the grid, and one small run on real engines in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.model.smollm2 import PATH, built

from plait_node.selector import History
from plait_node.selector.errors import PipelineError
from plait_node.selector.measure import Cell, Plan, grid
from plait_node.selector.pipeline import Pipeline


def test_grid_holds_only_what_can_run() -> None:
    cells = list(grid(Plan(prompts=(16, 40), chunks=(32, 64))))

    assert cells == [
        Cell(method="plain", prompt=16),
        Cell(method="plain", prompt=40),
        Cell(method="chunked-prefill", prompt=40, chunk=32),
        Cell(method="prefix-cache", prompt=40, cached=16),
        Cell(method="prefix-cache", prompt=40, cached=32),
    ]


@pytest.mark.timeout(240)
def test_measure_writes_a_history_that_the_selector_reads(tmp_path: Path) -> None:
    out = tmp_path / "history.json"
    options = ["--out", str(out), "--prompts", "40", "--chunks", "20", "--stages", "2", "--repeats", "2"]
    command = [sys.executable, "-m", "plait_node.selector.measure", *options]
    subprocess.run(command, check=True, capture_output=True, timeout=230)
    found = History.load(out)

    assert [(row.method, row.chunk, row.cached_tokens) for row in found.measurements] == [
        ("plain", 0, 0),
        ("chunked-prefill", 20, 0),
        ("prefix-cache", 0, 16),
        ("prefix-cache", 0, 32),
    ]
    assert all(row.ttft_s > 0 and row.tpot_s > 0 and row.repeats == 2 for row in found.measurements)
    assert "--prompts 40" in json.loads(out.read_text())["command"]


@pytest.mark.timeout(240)
def test_pipeline_gives_the_same_token_by_every_method_and_fails_aloud() -> None:
    model = built()
    ids = [100 + 7_919 * step % 40_000 for step in range(40)]
    with Pipeline(PATH, model.manifest, model.tensors, stages=2, kv_steps=256) as pipeline:
        pipeline.open(64)
        plain, plain_s = pipeline.prefill(ids, start=0, chunk=40)
        pipeline.keep(2)
        pipeline.open(64)
        chunked, chunked_s = pipeline.prefill(ids, start=0, chunk=7)
        pipeline.open(64)
        ready_s = pipeline.take(2)
        cached, cached_s = pipeline.prefill(ids, start=32, chunk=8, at=ready_s)
        assert plain == chunked == cached
        assert 0 < ready_s < cached_s < plain_s
        assert chunked_s > 0
        with pytest.raises(PipelineError, match="ended"):
            pipeline.take(5)
