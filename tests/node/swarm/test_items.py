"""Hostile peers of the table: whatever they answer, a reader takes only what the key signed."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import libtorrent as lt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait_node.swarm import krpc as krpc_module
from plait_node.swarm.items import DhtKey, ItemClient, signed_bytes, target_of
from plait_node.swarm.krpc import ANSWER_S, Krpc, Peer, _read
from plait_node.swarm.search import Peers

Lie = Callable[[dict[bytes, Any]], dict[bytes, Any] | bytes | None]


class LyingPeer(asyncio.DatagramProtocol):
    """Answers every query as `lie` says."""

    def __init__(self, lie: Lie) -> None:
        self.lie = lie
        self.asked = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Peer) -> None:
        self.asked += 1
        query: Any = lt.bdecode(data)
        said = self.lie(query)
        if isinstance(said, bytes):
            self.transport.sendto(said, addr)  # type: ignore[attr-defined]
        elif said is not None:
            reply = {b"id": os.urandom(20), b"token": b"t"} | said
            self.transport.sendto(lt.bencode({b"r": reply, b"t": query[b"t"], b"y": b"r"}), addr)  # type: ignore[attr-defined]


@asynccontextmanager
async def client(lie: Lie) -> AsyncIterator[ItemClient]:
    loop = asyncio.get_running_loop()
    socket, _ = await loop.create_datagram_endpoint(lambda: LyingPeer(lie), local_addr=("127.0.0.1", 0))
    own: Peer = socket.get_extra_info("sockname")
    _, krpc = await loop.create_datagram_endpoint(Krpc, local_addr=("127.0.0.1", 0))
    items = ItemClient(krpc, Peers(own=own, clock=loop.time))
    try:
        yield items
    finally:
        await items.close()
        krpc.close()
        socket.close()


async def found(lie: Lie, key: DhtKey) -> bytes | None:
    async with client(lie) as items:
        return await items.get(key.public, b"s", deadline_s=20)


KEY = DhtKey(os.urandom(32))


def item(key: DhtKey, value: bytes, sequence: int = 3, salt: bytes = b"s") -> dict[bytes, Any]:
    return {b"k": key.public, b"seq": sequence, b"sig": key.sign(signed_bytes(salt, sequence, value)), b"v": value}


async def test_get_takes_what_the_key_signed() -> None:
    assert await found(lambda _: item(KEY, b"true"), KEY) == b"true"


async def test_get_refuses_values_the_key_did_not_sign_for_this_place() -> None:
    stranger = DhtKey(os.urandom(32))
    lies: list[dict[bytes, Any] | bytes | None] = [
        item(stranger, b"x"),
        item(stranger, b"x") | {b"k": KEY.public},
        item(KEY, b"x") | {b"v": b"y"},
        item(KEY, b"x") | {b"seq": 4},
        item(KEY, b"x", salt=b"other"),
        item(KEY, b"x", sequence=-1),
        item(KEY, b"x") | {b"v": 7, b"sig": KEY.sign(b"3:seqi3e1:vi7e")},
        item(KEY, b"x") | {b"seq": b"3"},
        {b"nodes": b"\xff" * 1_000},
        b"",
        b"\x00" * 900,
        b"\x00" * 60_000,
        item(KEY, b"x" * 60_000),
        b"d1:rd2:id",
        b"l" * 900 + b"e" * 900,
        None,
    ]
    answers = await asyncio.gather(*(found(lambda _, lie=lie: lie, KEY) for lie in lies))
    assert answers == [None] * len(lies)


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        (item(KEY, b"x") | {b"v": b"y"}, "item_not_signed"),
        (item(DhtKey(bytes(32)), b"x"), "item_not_signed"),
        (item(KEY, b"x" * 1_500), "item_too_large"),
        (b"\x00" * 5_000, "datagram_too_large"),
        (b"d1:rd2:id", "datagram_malformed"),
    ],
)
async def test_get_counts_what_it_drops(lie: dict[bytes, Any] | bytes, reason: str) -> None:
    async with client(lambda _: lie) as items:
        assert await items.get(KEY.public, b"s", deadline_s=0.5) is None
        assert items.dropped[reason] >= 1
        assert set(items.dropped) == {reason}


async def test_get_peer_that_names_ever_nearer_peers_is_asked_a_bounded_number_of_times() -> None:
    seen: list[int] = []

    def endless(query: dict[bytes, Any]) -> dict[bytes, Any]:
        seen.append(1)
        near = int.from_bytes(target_of(KEY.public, b"s"), "big") ^ (1 << max(0, 159 - len(seen)))
        return {b"nodes": (near.to_bytes(20, "big") + b"\x7f\x00\x00\x01" + b"\x00\x01") * 30}

    assert await asyncio.wait_for(found(endless, KEY), 60) is None
    assert len(seen) <= 64


async def test_put_refused_with_an_error_is_not_counted_and_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(krpc_module, "ANSWER_S", 60.0)

    def refuse(query: dict[bytes, Any]) -> dict[bytes, Any] | bytes:
        if query[b"q"] == b"get":
            return {b"nodes": b""}
        return lt.bencode({b"e": [203, b"bad token"], b"t": query[b"t"], b"y": b"e"})

    async with client(refuse) as items:
        async with asyncio.timeout(30):
            assert await items.put(KEY, b"s", b"x", deadline_s=50) == 0


async def test_put_after_a_clock_set_back_is_numbered_above_what_was_stored() -> None:
    ahead = 2**62
    stored: list[int] = []

    def keep(query: dict[bytes, Any]) -> dict[bytes, Any]:
        if query[b"q"] == b"put":
            stored.append(query[b"a"][b"seq"])
        return item(KEY, b"old", sequence=ahead)

    async with client(keep) as items:
        assert await items.put(KEY, b"s", b"new", deadline_s=5) == 1
    assert stored == [ahead + 1]


async def test_ask_cancelled_as_the_answer_comes_is_cancelled() -> None:
    _, krpc = await asyncio.get_running_loop().create_datagram_endpoint(Krpc, local_addr=("127.0.0.1", 0))
    asking = asyncio.create_task(krpc.ask(("127.0.0.1", 9), b"get", {}))
    await asyncio.sleep(0)
    (waiting,) = krpc._waiting.values()
    waiting.set_result(None)
    asking.cancel()
    await asyncio.wait({asking}, timeout=30)
    assert asking.cancelled()
    krpc.close()


async def test_put_cancelled_as_it_was_sent_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    async def store(_: ItemClient, put: Any) -> None:  # noqa: ANN401 -- private to the client
        await asyncio.sleep(0.05)
        put.sent.set()
        putting.cancel()

    monkeypatch.setattr(ItemClient, "_store", store)
    async with client(lambda _: None) as items:
        putting = asyncio.create_task(items.put(KEY, b"s", b"v", deadline_s=5))
        await asyncio.wait({putting}, timeout=30)
        assert putting.cancelled()


async def test_ask_answer_of_another_address_or_transaction_is_not_taken() -> None:
    loop = asyncio.get_running_loop()
    asked: asyncio.Queue[tuple[dict[bytes, Any], Peer]] = asyncio.Queue()

    class Silent(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: Peer) -> None:
            asked.put_nowait((lt.bdecode(data), addr))

    honest, _ = await loop.create_datagram_endpoint(Silent, local_addr=("127.0.0.1", 0))
    forger, _ = await loop.create_datagram_endpoint(Silent, local_addr=("127.0.0.1", 0))
    _, krpc = await loop.create_datagram_endpoint(Krpc, local_addr=("127.0.0.1", 0))
    try:
        waiting = asyncio.create_task(krpc.ask(honest.get_extra_info("sockname"), b"get", {b"target": b"t" * 20}))
        query, addr = await asyncio.wait_for(asked.get(), 30)
        answer = {b"r": {b"id": b"i" * 20}, b"t": query[b"t"], b"y": b"r"}
        forger.sendto(lt.bencode(answer), addr)
        honest.sendto(lt.bencode(answer | {b"t": bytes(4)}), addr)
        assert await waiting is None
    finally:
        krpc.close()
        honest.close()
        forger.close()


async def test_ask_answers_that_came_while_this_process_stood_still_are_taken() -> None:
    def answer(server: socket.socket, count: int) -> None:
        for _ in range(count):
            query, addr = server.recvfrom(4_096)
            reply = {b"r": {b"id": b"i" * 20}, b"t": lt.bdecode(query)[b"t"], b"y": b"r"}  # type: ignore[index, call-overload]
            server.sendto(lt.bencode(reply), addr)

    _, krpc = await asyncio.get_running_loop().create_datagram_endpoint(Krpc, local_addr=("127.0.0.1", 0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(30)
        peer = threading.Thread(target=answer, args=(server, 8))
        peer.start()
        asking = [asyncio.create_task(krpc.ask(server.getsockname(), b"get", {})) for _ in range(8)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        peer.join()  # in the loop's own thread: nothing is read meanwhile
        time.sleep(ANSWER_S)  # noqa: ASYNC251 - nor now
        assert all(await asyncio.gather(*asking))
    krpc.close()


async def test_ask_peer_without_a_usable_address_is_nobody() -> None:
    _, krpc = await asyncio.get_running_loop().create_datagram_endpoint(Krpc, local_addr=("127.0.0.1", 0))
    try:
        for peer in [("example.org", 1), ("0.0.0.0", 1), ("::1", 1), ("127.0.0.1", 0), ("127.0.0.1", 70_000)]:  # noqa: S104
            assert await krpc.ask(peer, b"get", {b"target": b"t" * 20}) is None
    finally:
        krpc.close()


@given(st.binary(max_size=400))
def test_read_any_datagram_is_an_answer_or_nothing(data: bytes) -> None:
    answer = _read(("127.0.0.1", 1), data)
    assert answer is None or answer[1].refused or len(answer[1].node) == 20


@given(st.binary(max_size=64), st.integers(0, 2**40), st.binary(min_size=1, max_size=300))
def test_signed_bytes_are_what_libtorrent_bencodes(salt: bytes, sequence: int, value: bytes) -> None:
    whole = lt.bencode({b"salt": salt, b"seq": sequence, b"v": value} if salt else {b"seq": sequence, b"v": value})
    assert signed_bytes(salt, sequence, value) == whole[1:-1]
