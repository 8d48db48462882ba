"""Prove to each other who is at the two ends of a TLS connection (docs/protocol.md, section 8)."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from plait.protocol.codec import fault_from_pb, fault_to_pb, signed_from_pb, signed_to_pb
from plait.protocol.errors import Fault, ProtocolError
from plait.protocol.ids import Address, Hash, address, hash32, to_hex
from plait.protocol.messages import Hello
from plait.protocol.pb import stage_pb2 as pb
from plait.protocol.typed import Signed
from plait_node.wire.errors import (
    ClockSkewError,
    HandshakeError,
    HandshakeRefusedError,
    MalformedFrameError,
    VersionMismatchError,
    WireError,
)
from plait_node.wire.frames import parse_frame
from plait_node.wire.identity import Directory, PeerIdentity
from plait_node.wire.transport import Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class Proven:
    """The peer's owner, proven by a service key of its own, and the version both speak."""

    owner: Address
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Handshake:
    """One side of one handshake; `certificate` is the TLS server's, `expected` whom a dialer looks for."""

    identity: PeerIdentity
    directory: Directory
    dialer: bool
    certificate: Hash
    expected: Address | None
    clock: Callable[[], float]

    async def run(self, transport: Transport, *, deadline_s: float) -> Proven:
        """Return the proven peer; raise `HandshakeError` after telling the peer why."""
        try:
            return await self._in_time(transport, deadline_s)
        except HandshakeRefusedError:
            raise
        except (HandshakeError, MalformedFrameError, ProtocolError) as error:
            await tell(transport, error.fault())
            if isinstance(error, HandshakeError):
                raise
            raise HandshakeError(f"the peer's handshake is malformed: {error.text}") from error

    async def _in_time(self, transport: Transport, deadline_s: float) -> Proven:
        try:
            async with asyncio.timeout(deadline_s):
                return await self._prove(transport)
        except TimeoutError as error:
            raise HandshakeError(f"the handshake took more than {deadline_s} s; check the peer's load") from error

    async def _prove(self, transport: Transport) -> Proven:
        mine = Hash(secrets.token_bytes(32))
        least, most = self.identity.versions
        clock = int(self.clock())
        nonce = pb.Nonce(version_min=least, version_max=most, nonce=mine, node=self.identity.owner, clock=clock)
        await transport.write(pb.Frame(nonce=nonce).SerializeToString())
        theirs = (await _read(transport, "nonce")).nonce
        version = common_version(self.identity.versions, (theirs.version_min, theirs.version_max))
        check_clock(self.clock(), theirs.clock)
        claimed = self._claimed(theirs, mine)

        hello = self._hello(claimed, mine, hash32(theirs.nonce))
        signed = self.identity.key.signed(self.identity.domain, hello)
        await transport.write(pb.Frame(hello=signed_to_pb(signed)).SerializeToString())
        answer = signed_from_pb((await _read(transport, "hello")).hello, Hello)
        await self._check(answer, claimed, mine, hash32(theirs.nonce))
        return Proven(owner=claimed, version=version)

    def _claimed(self, theirs: pb.Nonce, mine: Hash) -> Address:
        claimed = address(theirs.node)
        if self.expected is not None and claimed != self.expected:
            raise HandshakeError(f"looked for {to_hex(self.expected)}, {to_hex(claimed)} answered")
        if claimed == self.identity.owner or hash32(theirs.nonce) == mine:
            raise HandshakeError("a node does not link to itself; of two processes each needs an owner of its own")
        return claimed

    def _hello(self, peer: Address, mine: Hash, theirs: Hash) -> Hello:
        return Hello(
            node=self.identity.owner,
            peer=peer,
            dialer=self.dialer,
            certificate=self.certificate,
            nonce=mine,
            peer_nonce=theirs,
        )

    async def _check(self, answer: Signed[Hello], claimed: Address, mine: Hash, theirs: Hash) -> None:
        wanted = Hello(
            node=claimed,
            peer=self.identity.owner,
            dialer=not self.dialer,
            certificate=self.certificate,
            nonce=theirs,
            peer_nonce=mine,
        )
        wrong = [name for name in Hello.__dataclass_fields__ if getattr(answer.message, name) != getattr(wanted, name)]
        if wrong:
            raise HandshakeError(f"the hello names another {', '.join(wrong)}; it was made for another connection")
        await check_key(self.directory, answer.signer(self.identity.domain), claimed, now=self.clock())


CLOCK_TOLERANCE_S = 30
# Two nodes whose records a third one believes may be this far apart, one ahead of it and one behind; they are to link.
MOST_SKEW_S = 90


async def check_key(directory: Directory, signer: Address, owner: Address, *, now: float) -> None:
    """Raise `HandshakeError` unless `signer` is a service key, valid now, of an active node."""
    facts = await directory.service_key(signer)
    if facts is None or facts.owner != owner:
        raise HandshakeError(f"{to_hex(signer)} is no service key of {to_hex(owner)}")
    if facts.valid_from > now + CLOCK_TOLERANCE_S or 0 < facts.revoked_at <= now:
        raise HandshakeError(f"the service key {to_hex(signer)} is not valid now")
    if not await directory.active(owner):
        raise HandshakeError(f"{to_hex(owner)} is not an active node: it is unstaked or jailed")


def check_clock(ours: float, theirs: int) -> None:
    """Raise `ClockSkewError` when the clocks differ too much; a peer that does not tell its time is not judged."""
    ahead = theirs - ours
    if theirs and abs(ahead) > MOST_SKEW_S:
        where = "ahead of" if ahead > 0 else "behind"
        raise ClockSkewError(
            f"the peer's clock is {abs(ahead):.0f} s {where} this node's, at most {MOST_SKEW_S} s are allowed; "
            "set the wrong one by NTP"
        )


def common_version(ours: tuple[int, int], theirs: tuple[int, int]) -> int:
    """Return the greatest version both ranges hold; raise `VersionMismatchError` naming both."""
    version = min(ours[1], theirs[1])
    if theirs[0] > theirs[1] or version < max(ours[0], theirs[0]):
        raise VersionMismatchError(
            f"this node speaks versions {ours[0]} to {ours[1]}, the peer {theirs[0]} to {theirs[1]}; "
            "upgrade the older side"
        )
    return version


async def _read(transport: Transport, wanted: str) -> pb.Frame:
    data = await transport.read()
    if data is None:
        raise HandshakeRefusedError("the peer ended the stream before it proved who it is")
    frame = parse_frame(data)
    kind = frame.WhichOneof("body")
    if kind == "fault":
        said = fault_from_pb(frame.fault.fault)
        raise HandshakeRefusedError(f"the peer refused the link: {said.text} ({said.code})")
    if kind != wanted:
        raise MalformedFrameError(f"expected a {wanted}, got {kind or 'an empty frame'}")
    return frame


async def tell(transport: Transport, fault: Fault) -> None:
    """Say why there will be no link, if the peer still listens."""
    frame = pb.Frame(fault=pb.JobFault(fault=fault_to_pb(fault)))
    try:
        async with asyncio.timeout(1.0):
            await transport.write(frame.SerializeToString())
    except (TimeoutError, WireError):
        return
