from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import replace

import pytest
from tests.node.wire.peers import HASTY, KnownKey, Listening, MemoryDirectory, identity, listening

from plait.protocol.codec import signed_to_pb
from plait.protocol.errors import MalformedMessageError
from plait.protocol.ids import Address, Hash
from plait.protocol.messages import Hello
from plait.protocol.pb import stage_pb2 as pb
from plait.protocol.typed import Key
from plait_node.wire import (
    Blame,
    CertificateMismatchError,
    Destination,
    Dialer,
    DialError,
    HandshakeError,
    HandshakeRefusedError,
    LinkServer,
    ListenError,
    PeerIdentity,
    VersionMismatchError,
    make_certificate,
)
from plait_node.wire.handshake import common_version
from plait_node.wire.transport import DialedTransport


def dialer(who: PeerIdentity, directory: MemoryDirectory, blames: list[Blame] | None = None) -> Dialer:
    found = [] if blames is None else blames
    return Dialer(identity=who, directory=directory, patience=HASTY, on_blame=found.append)


async def test_dial_another_certificate_is_refused_and_blamed() -> None:
    directory = MemoryDirectory()
    server, client = identity(directory), identity(directory)
    blames: list[Blame] = []
    async with listening(server, directory) as listener:
        other = replace(listener.destination, certificate=make_certificate().fingerprint)
        with pytest.raises(CertificateMismatchError) as caught:
            await dialer(client, directory, blames).dial(other)
    assert caught.value.owner == server.owner
    assert blames[0].owner == server.owner


async def test_dial_nobody_listening_says_where_and_blames() -> None:
    directory = MemoryDirectory()
    client = identity(directory)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        gone = Destination(owner=Address(bytes(20)), host="127.0.0.1", port=port, certificate=Hash(bytes(32)))
        with pytest.raises(DialError, match=str(port)):
            await dialer(client, directory).dial(gone)


async def test_dial_server_that_says_nothing_ends_at_the_deadline() -> None:
    directory = MemoryDirectory()
    client = identity(directory)
    hasty = replace(HASTY, handshake_s=0.3)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        mute = Destination(owner=Address(bytes(20)), host="127.0.0.1", port=port, certificate=Hash(bytes(32)))
        with pytest.raises(DialError):
            await Dialer(identity=client, directory=directory, patience=hasty).dial(mute)


async def test_dial_key_of_another_owner_is_refused() -> None:
    directory = MemoryDirectory()
    server, client = identity(directory), identity(directory)
    directory.keys[server.key.address] = KnownKey(owner=Address(b"\x09" * 20))
    async with listening(server, directory) as listener:
        with pytest.raises(HandshakeError, match="no service key"):
            await dialer(client, directory).dial(listener.destination)


async def test_server_unstaked_dialer_is_refused_and_process_lives() -> None:
    directory = MemoryDirectory()
    server, client, good = identity(directory), identity(directory), identity(directory)
    directory.staked.discard(client.owner)
    async with listening(server, directory) as listener:
        # The dialer may have finished its own half; then it learns from the end of the stream.
        with contextlib.suppress(HandshakeError):
            link = await dialer(client, directory).dial(listener.destination)
            await asyncio.wait_for(link.wait_closed(), 30)
            assert "not an active node" in link.reason
        await listener.blamed()
        assert listener.blames[0].owner is None
        assert "not an active node" in listener.blames[0].reason
        link = await dialer(good, directory).dial(listener.destination)
        await link.close()


@pytest.mark.parametrize("known", [{"revoked_at": 1}, {"valid_from": 1 << 40}])
async def test_dial_revoked_or_future_key_is_refused(known: dict[str, int]) -> None:
    directory = MemoryDirectory()
    server, client = identity(directory), identity(directory)
    directory.keys[server.key.address] = KnownKey(owner=server.owner, **known)
    async with listening(server, directory) as listener:
        with pytest.raises(HandshakeError, match="not valid now"):
            await dialer(client, directory).dial(listener.destination)


async def test_dial_version_outside_the_range_names_both_ranges() -> None:
    directory = MemoryDirectory()
    server, client = identity(directory), identity(directory, versions=(2, 3))
    async with listening(server, directory) as listener:
        with pytest.raises(HandshakeError) as caught:
            await dialer(client, directory).dial(listener.destination)
    assert "1 to 1" in caught.value.text
    assert "2 to 3" in caught.value.text


def test_common_version_is_the_greatest_in_both() -> None:
    assert common_version((1, 4), (2, 3)) == 3
    for theirs in [(5, 6), (0, 0), (3, 2)]:
        with pytest.raises(VersionMismatchError):
            common_version((1, 4), theirs)


class RawDialer:
    """A hostile dialer that says what it likes."""

    def __init__(self, listener: Listening) -> None:
        self.transport = DialedTransport(f"127.0.0.1:{listener.port}", listener.identity.certificate.pem)

    async def say(self, frame: pb.Frame) -> None:
        await self.transport.write(frame.SerializeToString())

    async def hear(self) -> pb.Frame:
        data = await asyncio.wait_for(self.transport.read(), 30)
        assert data is not None
        return pb.Frame.FromString(data)

    async def until_fault(self) -> str:
        while True:
            frame = await self.hear()
            if frame.WhichOneof("body") == "fault":
                await self.transport.abort()
                return frame.fault.fault.text


def nonce(who: PeerIdentity, value: bytes) -> pb.Frame:
    return pb.Frame(nonce=pb.Nonce(version_min=1, version_max=1, nonce=value, node=who.owner))


async def test_server_replayed_hello_is_refused() -> None:
    directory = MemoryDirectory()
    server, client = identity(directory), identity(directory)
    async with listening(server, directory) as listener:

        async def attempt(replay: pb.Frame | None) -> tuple[pb.Frame, str]:
            raw = RawDialer(listener)
            await raw.say(nonce(client, b"\x01" * 32))
            theirs = (await raw.hear()).nonce
            hello = Hello(
                node=client.owner,
                peer=server.owner,
                dialer=True,
                certificate=server.certificate.fingerprint,
                nonce=Hash(b"\x01" * 32),
                peer_nonce=Hash(theirs.nonce),
            )
            said = replay or pb.Frame(hello=signed_to_pb(client.key.signed(client.domain, hello)))
            await raw.say(said)
            if replay is None:
                await listener.accepted()
                await raw.transport.abort()
                return said, ""
            return said, await raw.until_fault()

        recorded, _ = await attempt(None)
        _, fault = await attempt(recorded)
        assert "peer_nonce" in fault
        assert listener.links.empty()


@pytest.mark.parametrize("change", ["peer", "dialer", "certificate", "nonce", "signature"])
async def test_server_hello_with_one_thing_changed_is_refused(change: str) -> None:
    directory = MemoryDirectory()
    server, client = identity(directory), identity(directory)
    async with listening(server, directory) as listener:
        raw = RawDialer(listener)
        await raw.say(nonce(client, b"\x01" * 32))
        theirs = (await raw.hear()).nonce
        hello = Hello(
            node=client.owner,
            peer=Address(bytes(20)) if change == "peer" else server.owner,
            dialer=change != "dialer",
            certificate=Hash(bytes(32)) if change == "certificate" else server.certificate.fingerprint,
            nonce=Hash((b"\x02" if change == "nonce" else b"\x01") * 32),
            peer_nonce=Hash(theirs.nonce),
        )
        key = Key.generate() if change == "signature" else client.key
        await raw.say(pb.Frame(hello=signed_to_pb(key.signed(client.domain, hello))))
        fault = await raw.until_fault()
        assert change in fault or "no service key" in fault
        assert listener.links.empty()
        await listener.blamed()


@pytest.mark.parametrize(
    "first",
    [
        b"\xff\xff",
        b"",
        pb.Frame(ping=pb.Ping(number=1)).SerializeToString(),
        pb.Frame(nonce=pb.Nonce(version_min=1, version_max=1, nonce=b"short", node=bytes(20))).SerializeToString(),
        pb.Frame(nonce=pb.Nonce(version_min=1, version_max=1, nonce=bytes(32), node=b"x")).SerializeToString(),
    ],
)
async def test_server_garbage_before_the_hello_is_refused_and_process_lives(first: bytes) -> None:
    directory = MemoryDirectory()
    server, client = identity(directory), identity(directory)
    async with listening(server, directory) as listener:
        raw = RawDialer(listener)
        await raw.transport.write(first)
        assert await raw.until_fault()
        link = await dialer(client, directory).dial(listener.destination)
        await link.close()


async def test_server_silent_dialer_is_dropped_at_the_deadline() -> None:
    directory = MemoryDirectory()
    server = identity(directory)
    async with listening(server, directory, patience=replace(HASTY, handshake_s=0.3)) as listener:
        raw = RawDialer(listener)
        assert "took more than" in await raw.until_fault()


async def test_dial_itself_is_refused() -> None:
    directory = MemoryDirectory()
    server = identity(directory)
    async with listening(server, directory) as listener:
        with pytest.raises((HandshakeRefusedError, HandshakeError), match="itself"):
            await dialer(server, directory).dial(listener.destination)


async def test_server_port_in_use_says_so() -> None:
    directory = MemoryDirectory()
    server = identity(directory)

    async def ignore(_: object) -> None:
        return

    async with listening(server, directory) as listener:
        second = LinkServer(identity(directory), directory, ignore)
        with pytest.raises(ListenError, match=str(listener.port)):
            await second.start("127.0.0.1", listener.port)
        await second.stop()


@pytest.mark.parametrize(
    "text", ["", "host", ":1", "host:", "host:0", "host:65536", "ho st:1", "a/b:1", "host:1١", "h" * 300 + ":1"]
)
def test_destination_hostile_address_is_refused(text: str) -> None:
    with pytest.raises(MalformedMessageError):
        Destination.parse(text, owner=Address(bytes(20)), certificate=Hash(bytes(32)))


def test_destination_ipv6_address_is_read() -> None:
    parsed = Destination.parse("[::1]:50051", owner=Address(bytes(20)), certificate=Hash(bytes(32)))
    assert (parsed.host, parsed.port, parsed.target) == ("::1", 50_051, "[::1]:50051")
