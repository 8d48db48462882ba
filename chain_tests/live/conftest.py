"""Fixtures of the live tests."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from chain_tests.anvil import LocalChain
from chain_tests.channel_cases import Trade, open_trade
from chain_tests.live.network import LiveNetwork

from plait.chain import ChainReader

DEPOSIT, _TOKENS = 30, 1_000  # a job of a hundred steps costs a stage of ten blocks sixty


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


@pytest.fixture
async def opening(net: LiveNetwork) -> AsyncGenerator[LiveNetwork]:
    """Yield the network with a worker whose service key holds tokens and opens channels."""
    worker, key = net.nodes["worker"], net.service_key("worker")
    file = worker.home / "node.toml"
    before = file.read_text(encoding="utf-8")
    async with net.writer(key) as writer:
        await writer.mint(key.address, _TOKENS)
    lines = f"channel_deposit = {DEPOSIT}\nchannels_most = {_TOKENS}\nchannel_top_up = 0.5\n"
    file.write_text(before + lines, encoding="utf-8")
    worker.kill()
    await net.restart("worker")
    yield net
    file.write_text(before, encoding="utf-8")
    worker.kill()
    await net.restart("worker")
