"""Fixtures of all tests that need a chain: one anvil per session, put back after every test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator

import pytest
from chain_tests.anvil import Anvil, LocalChain, deployer_key, known_keys

from plait.chain import LOCAL, ChainReader, Deployment, deploy


@pytest.fixture(scope="session")
def anvil() -> Generator[Anvil]:
    """One anvil for all tests of this session."""
    with Anvil() as running:
        yield running


@pytest.fixture(scope="session")
def deployed(anvil: Anvil) -> Deployment:
    """All contracts, deployed once."""
    with asyncio.Runner() as runner:
        return runner.run(deploy(anvil.url, deployer_key(), LOCAL))


@pytest.fixture
def chain(anvil: Anvil, deployed: Deployment) -> Generator[LocalChain]:
    """Yield the deployed contracts, untouched; whatever a test does is undone after it."""
    snapshot = anvil.snapshot()
    yield LocalChain(anvil=anvil, deployment=deployed, deployer=deployer_key(), keys=known_keys())
    anvil.automine(on=True)
    anvil.rpc("anvil_dropAllTransactions")
    anvil.revert(snapshot)


@pytest.fixture
async def reader(chain: LocalChain) -> AsyncGenerator[ChainReader]:
    """Yield a reader of the deployed contracts."""
    async with await ChainReader.connect(chain.url, chain.deployment) as found:
        yield found
