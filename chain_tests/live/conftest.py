"""Fixtures of the live tests."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from chain_tests.anvil import LocalChain
from chain_tests.channel_cases import Trade, open_trade

from plait.chain import ChainReader


@pytest.fixture
async def trade(chain: LocalChain, reader: ChainReader, tmp_path: Path) -> AsyncGenerator[Trade]:
    """Yield a payer and a staked payee with an open channel."""
    made = await open_trade(chain, reader, tmp_path)
    yield made
    made.close()
