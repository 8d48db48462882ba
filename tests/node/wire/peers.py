"""Peers for tests: identities, a directory in memory, and pairs of links over loopback TLS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from plait.protocol.ids import Address
from plait.protocol.typed import Domain, Key
from plait_node.wire import Blame, Destination, Dialer, Link, LinkServer, Patience, PeerIdentity, make_certificate

DOMAIN = Domain(chain_id=31_337, channels=Address(bytes(19) + b"\x07"))
HASTY = Patience(heartbeat_s=0.1, missed_heartbeats=4, send_s=1.0, handshake_s=30.0, close_s=0.5)
# Where no silence is to be found out: a busy machine may keep a process from running for seconds.
STEADY = replace(HASTY, missed_heartbeats=300, send_s=30.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownKey:
    owner: Address
    valid_from: int = 0
    revoked_at: int = 0


@dataclass(slots=True)
class MemoryDirectory:
    """What the chain would say."""

    keys: dict[Address, KnownKey] = field(default_factory=dict)
    staked: set[Address] = field(default_factory=set)

    async def service_key(self, address: Address, /) -> KnownKey | None:
        return self.keys.get(address)

    async def active(self, owner: Address, /) -> bool:
        return owner in self.staked

    def join(self, identity: PeerIdentity) -> None:
        self.keys[identity.key.address] = KnownKey(owner=identity.owner)
        self.staked.add(identity.owner)


def identity(directory: MemoryDirectory | None = None, *, versions: tuple[int, int] = (1, 1)) -> PeerIdentity:
    made = PeerIdentity(
        owner=Key.generate().address,
        key=Key.generate(),
        certificate=make_certificate(),
        domain=DOMAIN,
        versions=versions,
    )
    if directory is not None:
        directory.join(made)
    return made


@dataclass(slots=True)
class Listening:
    """A server of one node, the links it accepted and whom it blamed."""

    identity: PeerIdentity
    port: int
    links: asyncio.Queue[Link]
    blames: list[Blame]
    blame_came: asyncio.Event

    @property
    def destination(self) -> Destination:
        pin = self.identity.certificate.fingerprint
        return Destination(owner=self.identity.owner, host="127.0.0.1", port=self.port, certificate=pin)

    async def accepted(self) -> Link:
        return await asyncio.wait_for(self.links.get(), 30)

    async def blamed(self) -> None:
        await asyncio.wait_for(self.blame_came.wait(), 30)


@asynccontextmanager
async def listening(
    who: PeerIdentity, directory: MemoryDirectory, *, patience: Patience = STEADY
) -> AsyncIterator[Listening]:
    links: asyncio.Queue[Link] = asyncio.Queue()
    blames: list[Blame] = []
    came = asyncio.Event()

    def on_blame(blame: Blame) -> None:
        blames.append(blame)
        came.set()

    async def on_link(link: Link) -> None:
        links.put_nowait(link)
        await link.wait_closed()

    server = LinkServer(who, directory, on_link, patience=patience, on_blame=on_blame)
    port = await server.start("127.0.0.1")
    try:
        yield Listening(identity=who, port=port, links=links, blames=blames, blame_came=came)
    finally:
        await server.stop()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two ends of one link, and whom each blamed."""

    dialed: Link
    accepted: Link
    dialer_blames: list[Blame]
    server_blames: list[Blame]


@asynccontextmanager
async def linked(*, patience: Patience = STEADY) -> AsyncIterator[Pair]:
    directory = MemoryDirectory()
    server, client = identity(directory), identity(directory)
    blames: list[Blame] = []
    async with listening(server, directory, patience=patience) as listener:
        dialer = Dialer(identity=client, directory=directory, patience=patience, on_blame=blames.append)
        link = await dialer.dial(listener.destination)
        try:
            yield Pair(
                dialed=link,
                accepted=await listener.accepted(),
                dialer_blames=blames,
                server_blames=listener.blames,
            )
        finally:
            await link.close()
