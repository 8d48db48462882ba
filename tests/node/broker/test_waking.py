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


def test_reader_is_done_with_what_was_rung_for_once_a_look_found_nothing() -> None:
    wake = Wake()
    wake.ring(7)
    assert not wake.done(7)  # who knows what was stored before the first look
    wake.clear()
    wake.read(7)
    assert not wake.done(7)  # a copy may not have what was rung for yet
    wake.clear()
    wake.read(7)
    assert wake.done(7)
    wake.ring(8)
    wake.ring(9)
    wake.clear()
    assert not wake.done(8)
    assert wake.done(9)
    wake.ring()  # the connection was lost
    wake.clear()
    assert not wake.done(9)


async def test_reader_looks_once_for_each_event_that_comes(server_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waking, "_LOOK_S", 60.0)
    looks = 0
    look = Connection.next_after

    async def counted(self: Connection, stream: str, subject: str, after: int) -> object:
        nonlocal looks
        looks += 1
        return await look(self, stream, subject, after)

    monkeypatch.setattr(Connection, "next_after", counted)
    gateway, request, worker = (secrets.token_bytes(size) for size in (20, 32, 20))
    broker = await NatsBroker.connect(server_url)
    async with aclosing(broker.results(gateway, request)) as results, asyncio.timeout(30):
        for number in range(20):
            waiting = asyncio.ensure_future(anext(results))
            await asyncio.sleep(0.02)  # it waits
            event = gateway_pb2.ResultEvent(request=request, chunk=gateway_pb2.Chunk(sealed=bytes([number])))
            await broker.publish_result(gateway, request, worker, event, key=f"1.{number}")
            assert (await waiting).event.chunk.sealed == bytes([number])
    await broker.close()
    assert looks <= 24  # one to begin with, and one an event


async def test_events_that_come_while_their_reader_is_busy_are_all_read(
    server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waking, "_LOOK_S", 60.0)
    gateway, request, worker, other = (secrets.token_bytes(size) for size in (20, 32, 20, 20))
    broker = await NatsBroker.connect(server_url)
    got: list[bytes] = []
    async with aclosing(broker.results(gateway, request)) as results, asyncio.timeout(30):
        for number in range(30):
            by = other if number % 3 == 2 else worker
            await broker.publish_result(
                gateway, request, by, gateway_pb2.ResultEvent(request=request), key=f"1.{number}"
            )
            if number % 3 == 2:
                got += [(await anext(results)).worker for _ in range(3)]
    await broker.close()
    assert got == [worker, worker, other] * 10


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
