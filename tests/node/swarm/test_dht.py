"""The DHT over eight real libtorrent sessions on loopback."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import libtorrent as lt
import pytest

from plait_node.swarm import dht, krpc, search
from plait_node.swarm.dht import LibtorrentDht
from plait_node.swarm.errors import DhtPortInUseError, DhtStoppedError, DhtTimeoutError, ValueTooLargeError
from plait_node.swarm.items import VALUE_LIMIT, DhtKey
from plait_node.swarm.krpc import Krpc

FOUND_S = 20.0
LIBTORRENTS_S = 12.0  # its own search would wait 15 s for each dead peer


@pytest.fixture(autouse=True)
def calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait longer for peers than a node does: all of them share this process, and the machine may be busy.

    Whoever is late is left out of an answer, and a node then looks again: that is not what is tried here.
    """
    monkeypatch.setattr(search, "_SLOW_S", 1.0)
    monkeypatch.setattr(krpc, "ANSWER_S", 3.0)


@asynccontextmanager
async def network(size: int) -> AsyncIterator[list[LibtorrentDht]]:
    nodes = [LibtorrentDht()]
    await nodes[0].start()
    try:
        for _ in range(size - 1):
            node = LibtorrentDht(peers=[("127.0.0.1", nodes[0].port)])
            nodes.append(node)
            await node.start()
            nodes[0].add_peers([("127.0.0.1", node.port)])
        await asyncio.gather(*(node.joined(deadline_s=60) for node in nodes))
        yield nodes
    finally:
        await asyncio.gather(*(node.stop() for node in nodes))


async def test_dht_eight_nodes_each_reads_the_newest_of_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_SLOW_S", FOUND_S)  # all live: none is left out
    monkeypatch.setattr(krpc, "ANSWER_S", FOUND_S)
    async with network(8) as nodes:
        keys = [DhtKey(os.urandom(32)) for _ in nodes]
        stored = await asyncio.gather(
            *(node.put(key, b"salt", key.public * 20) for node, key in zip(nodes, keys, strict=True))
        )
        assert all(count >= 1 for count in stored)
        for node in nodes:
            found = await asyncio.gather(*(node.get(key.public, b"salt", deadline_s=FOUND_S) for key in keys))
            assert found == [key.public * 20 for key in keys]

        await nodes[3].put(keys[3], b"salt", b"newer")
        assert [await node.get(keys[3].public, b"salt", deadline_s=FOUND_S) for node in nodes] == [b"newer"] * 8
        assert await nodes[1].get(keys[3].public, b"another salt") is None


async def test_dht_put_twice_at_once_keeps_the_later() -> None:
    async with network(3) as nodes:
        key = DhtKey(os.urandom(32))
        await asyncio.gather(nodes[1].put(key, b"s", b"first"), nodes[1].put(key, b"s", b"second"))
        assert await nodes[2].get(key.public, b"s", deadline_s=FOUND_S) == b"second"


async def test_dht_value_at_the_limit_is_stored_and_above_it_refused() -> None:
    async with network(2) as nodes:
        key = DhtKey(os.urandom(32))
        value = os.urandom(VALUE_LIMIT)
        assert await nodes[0].put(key, b"s", value) >= 1
        assert await nodes[1].get(key.public, b"s", deadline_s=FOUND_S) == value
        with pytest.raises(ValueTooLargeError) as caught:
            await nodes[0].put(key, b"s", value + b"x")
        assert (caught.value.size, caught.value.limit) == (VALUE_LIMIT + 1, VALUE_LIMIT)


async def test_dht_put_signed_by_another_key_is_stored_by_nobody() -> None:
    """Peers check the Ed25519 signature, so nobody writes under a key that is not his."""

    class Thief(DhtKey):
        def sign(self, data: bytes) -> bytes:
            return DhtKey(os.urandom(32)).sign(data)

    async with network(4) as nodes:
        seed = os.urandom(32)
        await nodes[0].put(DhtKey(seed), b"s", b"mine")
        assert await nodes[1].put(Thief(seed), b"s", b"stolen") == 0
        assert await nodes[2].get(DhtKey(seed).public, b"s", deadline_s=FOUND_S) == b"mine"


async def test_dht_announced_port_is_found_by_others() -> None:
    async with network(5) as nodes:
        topic = os.urandom(20)
        nodes[2].announce(topic, 7_001)
        nodes[3].announce(topic, 7_002)
        found: set[tuple[str, int]] = set()
        async with asyncio.timeout(60):
            while len(found) < 2:
                found = await nodes[4].providers(topic)
        assert found == {("127.0.0.1", 7_001), ("127.0.0.1", 7_002)}
        assert await nodes[4].providers(os.urandom(20)) == set()


async def test_dht_peer_gone_others_still_find_the_value() -> None:
    async with network(8) as nodes:
        key = DhtKey(os.urandom(32))
        await nodes[1].put(key, b"s", b"kept")
        await asyncio.gather(nodes[1].stop(), nodes[5].stop())
        assert await nodes[7].get(key.public, b"s", deadline_s=FOUND_S) == b"kept"


async def test_dht_peers_killed_puts_are_found_at_once_all_the_same() -> None:
    async with network(7) as nodes:
        for node in nodes:
            node.add_peers([("127.0.0.1", other.port) for other in nodes if other is not node])
        await asyncio.gather(nodes[2].stop(), nodes[4].stop())
        key = DhtKey(os.urandom(32))
        began = asyncio.get_running_loop().time()
        assert await nodes[1].put(key, b"s", b"fresh") >= 1
        assert await nodes[6].get(key.public, b"s", deadline_s=FOUND_S) == b"fresh"
        assert await nodes[0].get(key.public, b"absent") is None
        assert asyncio.get_running_loop().time() - began < LIBTORRENTS_S


CHILD = """
import asyncio, sys
from plait_node.swarm.dht import LibtorrentDht
async def main():
    node = LibtorrentDht(peers=[("127.0.0.1", int(sys.argv[1]))])
    await node.start()
    await node.joined(deadline_s=50)
    print(node.port, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


@asynccontextmanager
async def child_of(node: LibtorrentDht) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, str(node.port), stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    try:
        yield child, int(await asyncio.wait_for(child.stdout.readline(), 60))
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


async def test_dht_process_killed_puts_are_found_without_waiting_for_it() -> None:
    async with network(6) as nodes, child_of(nodes[0]) as (child, port):
        for node in nodes:
            node.add_peers([("127.0.0.1", port)])
        key = DhtKey(os.urandom(32))
        assert await nodes[1].put(key, b"before", b"alive") >= 4
        child.kill()
        await child.wait()
        for trial in range(4):
            began = asyncio.get_running_loop().time()
            stored = await nodes[1 + trial].put(key, b"after %d" % trial, b"fresh")
            assert await nodes[5 - trial].get(key.public, b"after %d" % trial, deadline_s=FOUND_S) == b"fresh"
            assert asyncio.get_running_loop().time() - began < LIBTORRENTS_S
            assert stored >= 3


async def test_dht_who_puts_and_gets_is_not_taken_for_a_node_of_the_table() -> None:
    """A socket that only asks must not be named to others: each would wait for its answer."""
    async with network(5) as nodes:
        key = DhtKey(os.urandom(32))
        for turn in range(3):
            await asyncio.gather(*(node.put(key, b"%d" % turn, b"x") for node in nodes))
        loop = asyncio.get_running_loop()
        _, asking = await loop.create_datagram_endpoint(Krpc, local_addr=("127.0.0.1", 0))
        try:
            named: set[tuple[str, int]] = set()
            for node in nodes:
                answer = await asking.ask(("127.0.0.1", node.port), b"get", {b"target": bytes(20)})
                assert answer is not None
                named |= {peer for _, peer in answer.nodes}
        finally:
            asking.close()
        assert named
        assert named <= {("127.0.0.1", node.port) for node in nodes}


async def test_dht_lying_and_silent_peers_beside_honest_ones_change_nothing() -> None:
    class Liar(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            query: Any = lt.bdecode(data)
            nodes = b"".join(os.urandom(20) + b"\x7f\x00\x00\x01" + os.urandom(2) for _ in range(16))
            lie = {b"id": os.urandom(20), b"token": b"t", b"nodes": nodes, b"k": key.public, b"seq": 2**62}
            lie |= {b"sig": os.urandom(64), b"v": b"forged"}
            for reply in (os.urandom(100), b"d" * 2_000, lt.bencode({b"r": lie, b"t": query[b"t"], b"y": b"r"})):
                self.transport.sendto(reply, addr)  # type: ignore[attr-defined]

    key = DhtKey(os.urandom(32))
    loop = asyncio.get_running_loop()
    liar, _ = await loop.create_datagram_endpoint(Liar, local_addr=("127.0.0.1", 0))
    mute, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
    try:
        async with network(4) as nodes:
            for node in nodes:
                node.add_peers([liar.get_extra_info("sockname"), mute.get_extra_info("sockname")])
            began = loop.time()
            assert await nodes[1].put(key, b"s", b"true", deadline_s=FOUND_S) >= 4
            assert await nodes[2].get(key.public, b"s", deadline_s=FOUND_S) == b"true"
            assert loop.time() - began < LIBTORRENTS_S
    finally:
        liar.close()
        mute.close()


async def test_dht_alone_keeps_its_own_items() -> None:
    node = LibtorrentDht()
    await node.start()
    try:
        key = DhtKey(os.urandom(32))
        assert await node.put(key, b"s", b"mine") == 1
        assert await node.get(key.public, b"s", deadline_s=FOUND_S) == b"mine"
    finally:
        await node.stop()


async def test_dht_start_port_taken_names_the_port() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp:
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        port: int = tcp.getsockname()[1]
        with pytest.raises(DhtPortInUseError, match=str(port)):
            await LibtorrentDht(port=port).start()


async def test_dht_start_any_port_looks_again_where_that_of_udp_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Libtorrent takes a free port of TCP, and then wants the same one of UDP."""
    settings, asked = dht._settings, list[int]()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        taken: int = udp.getsockname()[1]

        def unlucky(host: str, port: int) -> Any:  # noqa: ANN401 -- libtorrent's
            asked.append(port)
            return settings(host, taken if len(asked) == 1 else port)

        monkeypatch.setattr(dht, "_settings", unlucky)
        node = LibtorrentDht()
        await node.start()
        assert asked == [0, 0]
        assert node.port != taken
        await node.stop()


async def test_dht_nobody_to_join_times_out_with_advice() -> None:
    node = LibtorrentDht()
    await node.start()
    try:
        with pytest.raises(DhtTimeoutError, match="bootstrap"):
            await node.joined(deadline_s=0.3)
        assert await node.get(os.urandom(32), b"s") is None
    finally:
        await node.stop()
    with pytest.raises(DhtStoppedError):
        await node.get(os.urandom(32), b"s", deadline_s=FOUND_S)


async def test_dht_bootstrap_starts_late_is_joined_all_the_same() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    early = LibtorrentDht(peers=[("127.0.0.1", port)])
    await early.start()
    late = LibtorrentDht(port=port)
    await asyncio.sleep(0.5)
    await late.start()
    try:
        await early.joined(deadline_s=60)
    finally:
        await asyncio.gather(early.stop(), late.stop())


def test_dht_key_repr_hides_the_secret() -> None:
    seed = os.urandom(32)
    assert seed.hex() not in repr(DhtKey(seed))
