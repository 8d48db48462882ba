"""Readers that wait: seldom a look while nothing comes, at once when something does, and after a lost connection."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import aclosing
from pathlib import Path

import pytest
from tests.node.broker.waiting import SOON_S

from plait.protocol.pb import gateway_pb2
from plait_node.broker import LocalServer, NatsBroker, waking
from plait_node.broker.connection import Connection
from plait_node.broker.waking import Wake


async def test_reader_that_finds_nothing_looks_ever_more_seldom_until_it_is_rung(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waking, "_LOOK_S", 0.01)
    monkeypatch.setattr(waking, "_LONGEST_S", 0.04)
    wake, waits = Wake(), []

    for _ in range(4):
        waits.append(wake._wait_s)
        await wake.wait()
    wake.ring()
    await wake.wait()

    assert waits == [0.01, 0.02, 0.04, 0.04]
    assert wake._wait_s == 0.01
    wake.clear()
    await wake.wait(steady=True)
    assert wake._wait_s == 0.01


async def test_look_that_was_rung_for_and_found_nothing_is_made_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waking, "_LOOK_S", 60.0)
    wake = Wake()
    wake.ring()
    wake.clear()
    async with asyncio.timeout(SOON_S):
        await wake.wait()
    wake.clear()  # nobody rang since: the next look is an ordinary one
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await wake.wait()


async def test_answer_that_has_not_begun_costs_its_reader_few_looks(
    server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waking, "_LOOK_S", 0.02)
    looks = 0
    look = Connection.next_after

    async def counted(self: Connection, stream: str, subject: str, after: int) -> object:
        nonlocal looks
        looks += 1
        return await look(self, stream, subject, after)

    monkeypatch.setattr(Connection, "next_after", counted)
    gateway, request, worker = (secrets.token_bytes(size) for size in (20, 32, 20))
    broker = await NatsBroker.connect(server_url)
    async with aclosing(broker.results(gateway, request)) as results, asyncio.timeout(SOON_S):
        waiting = asyncio.ensure_future(anext(results))
        await asyncio.sleep(1.0)
        assert looks <= 8  # at 0.02 s each time it would be near fifty
        await broker.publish_result(gateway, request, worker, gateway_pb2.ResultEvent(request=request), key="1.0")
        assert (await waiting).worker == worker
    await broker.close()


async def test_readers_look_when_the_connection_is_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waking, "_LOOK_S", 60.0)
    server = await LocalServer.start(tmp_path / "nats")
    broker = await NatsBroker.connect(server.url)
    wake = Wake()
    stop = await broker._connection.on_wake("plait.result.a.b.c", wake)

    await server.stop()
    server = await LocalServer.start(server.directory, port=server.port)

    async with asyncio.timeout(SOON_S):
        await wake.wait()
    await stop()
    assert wake not in broker._connection._client.wakes
    await broker.close()
    await server.stop()
