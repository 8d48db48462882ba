"""Hostile peers of the table: whatever they answer, a reader takes only what the key signed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

import libtorrent as lt
from hypothesis import given
from hypothesis import strategies as st

from plait_node.swarm.items import DhtKey, ItemClient, signed_bytes, target_of
from plait_node.swarm.krpc import Krpc, Peer, _read
from plait_node.swarm.search import Peers


class LyingPeer(asyncio.DatagramProtocol):
    """Answers every query as `lie` says."""

    def __init__(self, lie: Callable[[dict[bytes, Any]], dict[bytes, Any] | bytes | None]) -> None:
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


async def found(lie: Callable[[dict[bytes, Any]], dict[bytes, Any] | bytes | None], key: DhtKey) -> bytes | None:
    loop = asyncio.get_running_loop()
    socket, _ = await loop.create_datagram_endpoint(lambda: LyingPeer(lie), local_addr=("127.0.0.1", 0))
    own: Peer = socket.get_extra_info("sockname")
    _, krpc = await loop.create_datagram_endpoint(Krpc, local_addr=("127.0.0.1", 0))
    try:
        return await ItemClient(krpc, Peers(own=own, clock=loop.time)).get(key.public, b"s", deadline_s=2)
    finally:
        krpc.close()
        socket.close()


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
        b"d1:rd2:id",
        b"l" * 900 + b"e" * 900,
        None,
    ]
    for lie in lies:
        assert await found(lambda _, lie=lie: lie, KEY) is None, lie


async def test_get_peer_that_names_ever_nearer_peers_is_asked_a_bounded_number_of_times() -> None:
    seen: list[int] = []

    def endless(query: dict[bytes, Any]) -> dict[bytes, Any]:
        seen.append(1)
        near = int.from_bytes(target_of(KEY.public, b"s"), "big") ^ (1 << max(0, 159 - len(seen)))
        return {b"nodes": (near.to_bytes(20, "big") + b"\x7f\x00\x00\x01" + b"\x00\x01") * 30}

    assert await asyncio.wait_for(found(endless, KEY), 20) is None
    assert len(seen) <= 64


@given(st.binary(max_size=400))
def test_read_any_datagram_is_an_answer_or_nothing(data: bytes) -> None:
    answer = _read(("127.0.0.1", 1), data)
    assert answer is None or answer[1].refused or len(answer[1].node) == 20


@given(st.binary(max_size=64), st.integers(0, 2**40), st.binary(min_size=1, max_size=300))
def test_signed_bytes_are_what_libtorrent_bencodes(salt: bytes, sequence: int, value: bytes) -> None:
    whole = lt.bencode({b"salt": salt, b"seq": sequence, b"v": value} if salt else {b"seq": sequence, b"v": value})
    assert signed_bytes(salt, sequence, value) == whole[1:-1]
