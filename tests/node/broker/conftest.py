from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests.node.broker.cluster import Cluster
from tests.node.broker.waiting import LEASE_S

from plait_node.broker import Broker, LocalServer, MemoryBroker, NatsBroker


@pytest.fixture(scope="module")
def server_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("nats")


@pytest.fixture(scope="module")
def server_url(server_folder: Path) -> Iterator[str]:
    """One nats-server for all tests of a module, driven from a loop of its own."""
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(LocalServer.start(server_folder))
    try:
        yield server.url
    finally:
        loop.run_until_complete(server.stop())
        loop.close()


@pytest.fixture(params=["memory", "nats"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest_asyncio.fixture(loop_scope="session")
async def broker(kind: str, server_url: str) -> AsyncIterator[Broker]:
    """Both brokers, with a lease that ends in no test, however busy the machine."""
    opened = await open_broker(kind, server_url, ack_wait_s=LEASE_S)
    yield opened
    await opened.close()


@pytest_asyncio.fixture(loop_scope="session")
async def brief(kind: str, server_url: str) -> AsyncIterator[Broker]:
    """Both brokers, with a lease short enough to watch it end."""
    opened = await open_broker(kind, server_url, ack_wait_s=2.0)
    yield opened
    await opened.close()


async def open_broker(kind: str, server_url: str, *, ack_wait_s: float) -> Broker:
    if kind == "memory":
        return MemoryBroker(time.time, ack_wait_s=ack_wait_s)
    return await NatsBroker.connect(server_url, ack_wait_s=ack_wait_s)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(folder=tmp_path_factory.mktemp("cluster"))
    try:
        made.start()
        yield made
    finally:
        made.stop()
