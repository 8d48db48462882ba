"""Peers that take without giving: half-open, drip by drip, too many, with a wrong clock. Others are served."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace

import pytest
from tests.node.wire.peers import HASTY, MemoryDirectory, identity, listening

from plait.protocol.ids import Address
from plait.protocol.pb import stage_pb2 as pb
from plait_node.wire import BusyError, ClockSkewError, Dialer, HandshakeError, make_certificate
from plait_node.wire.gate import (
    MAX_HANDSHAKES,
    MAX_HANDSHAKES_A_CALLER,
    MAX_HANDSHAKES_AN_ADDRESS,
    MAX_RELAYED_HANDSHAKES,
    Gate,
    Rates,
    source_of,
)
from plait_node.wire.server import MAX_LINKS_A_PEER
from plait_node.wire.transport import DialedTransport

QUICK = replace(HASTY, handshake_s=5.0)


@asynccontextmanager
async def half_open(port: int, count: int) -> AsyncIterator[list[asyncio.StreamReader]]:
    """Open connections that never begin TLS."""
    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(count)]
    try:
        yield [reader for reader, _ in opened]
    finally:
        for _, writer in opened:
            writer.close()


def client_hello() -> bytes:
    """Return the first bytes of a TLS client."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    out = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), out).do_handshake()
    return out.read()


async def drip(port: int, data: bytes, *, pause_s: float) -> None:
    """Say one byte at a time until the server has had enough."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for at in range(len(data)):
            writer.write(data[at : at + 1])
            await writer.drain()
            await asyncio.sleep(pause_s)
            if reader.at_eof():
                return
        raise AssertionError("the server waited for all of it")
    except ConnectionError:
        return
    finally:
        writer.close()


async def test_server_with_hundreds_of_half_open_connections_serves_an_honest_peer_and_drops_them() -> None:
    directory = MemoryDirectory()
    server, client = identity(directory), identity(directory)
    async with listening(server, directory, patience=QUICK) as listener, half_open(listener.port, 300) as readers:
        dripping = [asyncio.create_task(drip(listener.port, client_hello(), pause_s=0.1)) for _ in range(20)]
        link = await Dialer(identity=client, directory=directory, patience=HASTY).dial(listener.destination)
        await link.send(pb.Frame(cancel=pb.CancelJob(job=bytes(32))))
        accepted = await listener.accepted()
        assert (await accepted.receive(deadline_s=30)).WhichOneof("body") == "cancel"

        async with asyncio.timeout(60):
            await asyncio.gather(*(_ended(reader) for reader in readers))
            await asyncio.gather(*dripping)
        assert not link.closed
        await link.close()


async def _ended(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(ConnectionError):
        while await reader.read(4_096):
            pass


async def test_server_takes_few_silent_streams_of_an_address_and_tells_the_next_to_wait() -> None:
    directory = MemoryDirectory()
    server, client = identity(directory), identity(directory)
    async with listening(server, directory, patience=QUICK) as listener:
        silent = [
            DialedTransport(f"127.0.0.1:{listener.port}", server.certificate.pem)
            for _ in range(MAX_HANDSHAKES_AN_ADDRESS)
        ]
        for each in silent:  # its nonce shows that the handshake has begun
            assert await asyncio.wait_for(each.read(), 30)
        dialer = Dialer(identity=client, directory=directory, patience=HASTY)
        with pytest.raises(HandshakeError, match="try again later"):
            await dialer.dial(listener.destination)
        await listener.blamed()  # the silent ones, at the deadline, by address alone
        assert all(blame.owner is None for blame in listener.blames)
        link = await dialer.dial(listener.destination)
        await link.close()
        for each in silent:
            await each.abort()


async def test_server_takes_few_links_of_one_peer() -> None:
    directory = MemoryDirectory()
    server, client, other = identity(directory), identity(directory), identity(directory)
    async with listening(server, directory, patience=HASTY) as listener:
        dialer = Dialer(identity=client, directory=directory, patience=HASTY)
        links = [await dialer.dial(listener.destination) for _ in range(MAX_LINKS_A_PEER)]
        for _ in links:
            await listener.accepted()
        last = await dialer.dial(listener.destination)
        await asyncio.wait_for(last.wait_closed(), 30)
        assert "links of one node" in last.reason
        assert not any(link.closed for link in links)
        assert (await Dialer(identity=other, directory=directory).dial(listener.destination)).peer == server.owner
        for link in links:
            await link.close()


async def test_two_nodes_with_one_key_have_links_of_their_own_and_none_to_each_other() -> None:
    directory = MemoryDirectory()
    server, one = identity(directory), identity(directory)
    twin = replace(one, certificate=make_certificate())
    async with listening(server, directory) as listener, listening(twin, directory) as other:
        links = [
            await Dialer(identity=who, directory=directory, patience=HASTY).dial(listener.destination)
            for who in (one, twin)
        ]
        accepted = [await listener.accepted() for _ in links]
        await links[0].send(pb.Frame(cancel=pb.CancelJob(job=b"\x01" * 32)))
        await links[1].send(pb.Frame(cancel=pb.CancelJob(job=b"\x02" * 32)))
        heard = [(await each.receive(deadline_s=30)).cancel.job[0] for each in accepted]
        assert heard == [1, 2]
        await accepted[0].accuse("a lie")
        await accepted[0].wait_closed()
        assert not accepted[1].closed
        with pytest.raises(HandshakeError, match="each needs an owner of its own"):
            await Dialer(identity=one, directory=directory, patience=HASTY).dial(other.destination)
        for link in links:
            await link.close()


@pytest.mark.parametrize("skew", [300, -300])
async def test_clocks_five_minutes_apart_refuse_each_other_say_so_and_blame_nobody(skew: int) -> None:
    directory = MemoryDirectory()
    server, client = identity(directory), identity(directory)
    blames: list[object] = []
    async with listening(server, directory) as listener:
        dialer = Dialer(
            identity=client,
            directory=directory,
            patience=HASTY,
            on_blame=blames.append,
            clock=lambda: time.time() + skew,
        )
        where = "behind" if skew > 0 else "ahead of"
        async with asyncio.timeout(30):
            while not listener.blames:  # who reads first ends the stream, at times before the other has read
                with pytest.raises(ClockSkewError, match=f"clock is (29|30)[0-9] s {where} this node's"):
                    await dialer.dial(listener.destination)
                await asyncio.sleep(0.1)
        assert listener.blames[0].owner is None
        assert "set the wrong one by NTP" in listener.blames[0].reason
        assert not blames
        near = replace(dialer, clock=lambda: time.time() + skew / 4)
        await (await near.dial(listener.destination)).close()


async def test_server_is_full_at_the_same_number_wherever_peers_come_from() -> None:
    gate = Gate()
    with contextlib.ExitStack() as stack:
        for number in range(MAX_HANDSHAKES):
            stack.enter_context(gate.pending(f"ipv4:10.0.0.{number}:1"))
        with pytest.raises(BusyError), gate.pending("ipv4:10.0.1.1:1"):
            raise AssertionError("there is no place")
    with contextlib.ExitStack() as stack:
        for number in range(MAX_HANDSHAKES_AN_ADDRESS):
            stack.enter_context(gate.pending(f"ipv6:%5B2001:db8::{number}%5D:{number}"))
        with pytest.raises(BusyError, match="2001:db8::/64"), gate.pending("ipv6:[2001:db8::ffff]:1"):
            raise AssertionError("there is no place")
        with gate.pending("ipv6:[2001:db8:1::1]:1"):
            pass


def test_gate_counts_callers_over_relays_by_themselves_and_leaves_places_for_all_others() -> None:
    gate, here = Gate(), "ipv4:127.0.0.1:50051"
    callers = [Address(bytes([number]) * 20) for number in range(MAX_RELAYED_HANDSHAKES // MAX_HANDSHAKES_A_CALLER + 1)]
    with ExitStack() as stack:
        for caller in callers[:-1]:
            for _ in range(MAX_HANDSHAKES_A_CALLER):
                stack.enter_context(gate.pending(here, caller=caller))
            with pytest.raises(BusyError, match="over a relay"):
                stack.enter_context(gate.pending(here, caller=caller))
        with pytest.raises(BusyError, match="over relays"):
            stack.enter_context(gate.pending(here, caller=callers[-1]))
        stack.enter_context(gate.pending(here))
        stack.enter_context(gate.pending("ipv4:1.2.3.4:5"))
    with gate.pending(here, caller=callers[-1]):
        pass


@pytest.mark.parametrize(
    ("where", "source"),
    [
        ("ipv4:1.2.3.4:50051", "1.2.3.4"),
        ("ipv6:%5B::1%5D:1", "::/64"),
        ("ipv6:[::ffff:1.2.3.4]:1", "1.2.3.4"),
        ("ipv6:[fe80::1%25eth0]:1", "fe80::/64"),
        ("unix:/tmp/socket", "/tmp/socket"),
        ("", ""),
    ],
)
def test_source_of_a_peer_is_its_household(where: str, source: str) -> None:
    assert source_of(where) == source


def test_rates_give_a_burst_and_then_so_many_a_second() -> None:
    now = [0.0]
    rates = Rates(a_second=2, burst=3, clock=lambda: now[0])
    one, two = Address(bytes(20)), Address(b"\x01" * 20)
    assert [rates.take(one) for _ in range(4)] == [True, True, True, False]
    assert rates.take(two)
    now[0] = 0.5
    assert [rates.take(one) for _ in range(2)] == [True, False]
    for number in range(5_000):
        now[0] += 10
        rates.take(Address(number.to_bytes(20, "big")))
    assert len(rates._left) < 2_000
