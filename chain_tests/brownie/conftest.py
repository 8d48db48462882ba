"""One deployment of the shipped bytecode, and people who can sign."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from brownie import history
from world import World, deployment

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def deployed() -> World:
    world = deployment()
    world.join(world.payee, world.node_key)
    return world


@pytest.fixture
def world(deployed: World, fn_isolation: None) -> World:
    return deployed


def pytest_terminal_summary(config: Any) -> None:
    """Keep what brownie prints of gas: `low`, `high` and averages of each function."""
    if not config.getoption("--gas"):
        return
    report = ROOT / "build" / "brownie" / "reports" / "gas.json"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps(history.gas_profile, indent=2, sort_keys=True) + "\n", "utf-8")
