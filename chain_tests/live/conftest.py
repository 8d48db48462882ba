"""Fixtures of the live tests."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from chain_tests.anvil import LocalChain
from chain_tests.channel_cases import Trade, open_trade
from chain_tests.live.network import LiveNetwork

from plait.chain import ChainReader


@pytest.fixture
async def trade(chain: LocalChain, reader: ChainReader, tmp_path: Path) -> AsyncGenerator[Trade]:
    """Yield a payer and a staked payee with an open channel."""
    made = await open_trade(chain, reader, tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="session")
async def running_network(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[LiveNetwork]:
    """Start the whole network once, for the tests that ask for it; every process has ended after the session."""
    network = LiveNetwork(folder=tmp_path_factory.mktemp("live") / "network")
    try:
        await network.start()
        yield network
    finally:
        network.stop()


@pytest.fixture
async def net(running_network: LiveNetwork) -> LiveNetwork:
    """Return the network with all six nodes running, whatever the test before did to them."""
    await running_network.revive()
    return running_network
