"""All stages of these tests share one process, in which any of them may get no time for a second."""

from __future__ import annotations

import pytest

from plait_node.worker import watch

ABOUT_SLOW_STAGES = ("test_watch", "test_strikes")


@pytest.fixture(autouse=True)
def unhurried(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take no stage for slow where that is not what is tried."""
    if request.path.stem not in ABOUT_SLOW_STAGES:
        monkeypatch.setattr(watch, "_LEAST_S", 30.0)
