"""What a stage says of itself while it runs: how much of the time it computes, and how many rows at once."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

from plait_node.app.metrics import NodeMetrics
from plait_node.app.stage import _numbers
from plait_node.engine.load import Load
from plait_node.node_status import node_lines, read_numbers


def page(load: Load) -> str:
    rows = SimpleNamespace(used=1 << 20, cached=0, most=4 << 20)
    facts: Any = SimpleNamespace(load=load, queue=2, free_steps=100, rows=rows)
    metrics, registry = NodeMetrics(), CollectorRegistry()
    metrics.add(lambda: _numbers(facts, time.monotonic() - 10))
    registry.register(metrics)
    return generate_latest(registry).decode()


def test_stage_numbers_say_how_busy_it_is(tmp_path: Path) -> None:
    load = Load(free_steps=100)
    for seconds, rows in ((0.02, 1), (0.5, 128), (1.98, 3)):
        load.pass_seconds.add(seconds)
        load.pass_rows.add(rows)
    text = page(load)
    assert 'plait_stage_pass_seconds_bucket{le="0.03"} 1.0' in text
    assert 'plait_stage_pass_seconds_bucket{le="+Inf"} 3.0' in text
    assert "plait_stage_pass_seconds_sum 2.5" in text
    assert "plait_stage_pass_rows_count 3.0" in text
    file = tmp_path / "metrics.prom"
    file.write_text(text)
    assert node_lines(None, read_numbers(file))[-1].split(maxsplit=1)[1] == "25% of 10 s in 3 passes of 44.0 rows"


def test_stage_numbers_before_the_first_pass_say_nothing_of_it(tmp_path: Path) -> None:
    file = tmp_path / "metrics.prom"
    file.write_text(page(Load(free_steps=1)))
    assert [line.split()[0] for line in node_lines(None, read_numbers(file))] == ["node", "jobs", "rows"]
