"""What a worker says of its swarm while it runs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from tests.node.swarm.chain import PROFILE
from tests.node.swarm.test_placement import stage
from tests.node.swarm.test_route import OTHER

from plait.protocol.ids import hash32, to_hex
from plait_node.app.metrics import NodeMetrics
from plait_node.app.swarm_numbers import swarm_numbers
from plait_node.node_status import node_lines, read_numbers
from plait_node.swarm.records import NodeRecord

MODEL = hash32(bytes(range(32)))
MANIFEST: Any = SimpleNamespace(
    model_id=MODEL,
    blocks=6,
    profiles=(
        SimpleNamespace(profile_id=PROFILE, name="fp32-strict"),
        SimpleNamespace(profile_id=OTHER, name="bf16"),
    ),
)


def page(*records: NodeRecord) -> str:
    counted = Counter({"expired": 2, "item_not_signed": 1})
    directory: Any = SimpleNamespace(known=lambda model: records if model == MODEL else (), counted=lambda: counted)
    metrics, registry = NodeMetrics(), CollectorRegistry()
    metrics.add(lambda: swarm_numbers(directory, MANIFEST))
    registry.register(metrics)
    return generate_latest(registry).decode()


def labels(profile: str) -> str:
    return f'{{model="{to_hex(MODEL)}",profile="{profile}"}}'


def test_swarm_numbers_name_the_weakest_blocks_of_what_is_served() -> None:
    text = page(stage(0, 2), stage(2, 6, owner=1), stage(2, 4, owner=2))
    fp32 = labels("fp32-strict")
    assert f"plait_swarm_bottleneck_steps_s{fp32} 25.0" in text
    assert f"plait_swarm_bottleneck_first_block{fp32} 4.0" in text
    assert f"plait_swarm_bottleneck_last_block{fp32} 5.0" in text
    assert f"plait_swarm_routed_steps_s{fp32} 25.0" in text
    assert "bf16" not in text


def test_swarm_numbers_of_nobody_and_of_stages_that_nobody_has_measured() -> None:
    for profile in ("fp32-strict", "bf16"):
        assert f"plait_swarm_bottleneck_steps_s{labels(profile)} 0.0" in page()
    assert "steps_s" not in page(stage(0, 6, block_ms=0))
    assert f"plait_swarm_bottleneck_first_block{labels('fp32-strict')} 2.0" in page(stage(0, 2, block_ms=0))


def test_status_shows_where_the_swarm_is_weakest(tmp_path: Path) -> None:
    file = tmp_path / "metrics.prom"
    file.write_text(page(stage(0, 2), stage(2, 6, owner=1), stage(2, 4, owner=2)))
    _, line, dropped = node_lines(None, read_numbers(file))
    assert "fp32-strict: blocks 4 to 5 are the weakest with 25 steps a second, whole routes make 25" in line
    assert dropped.split(maxsplit=1) == ["dropped", "records and answers of peers: 2 expired, 1 item_not_signed"]
