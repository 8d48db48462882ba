"""Fixtures of the ledger's tests."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest
from tests.sdk.ledger_cases import Pair


@pytest.fixture
def pair(tmp_path: Path) -> Generator[Pair]:
    """Yield both ends of a channel."""
    made = Pair.make(tmp_path)
    yield made
    made.close()
