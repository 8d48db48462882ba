"""A knock: one node's signed wish that another opens a link to it (docs/protocol.md, section 8)."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from plait.protocol.codec import fault_to_pb, parse, signed_from_pb, signed_to_pb
from plait.protocol.errors import Fault, PlaitError
from plait.protocol.ids import Address, Hash, address, hash32, keccak, to_hex
from plait.protocol.messages import Record
from plait.protocol.pb import stage_pb2 as pb
from plait.protocol.typed import Signed
from plait_node.wire.dial import Destination
from plait_node.wire.errors import KnockError, MalformedFrameError
from plait_node.wire.handshake import CLOCK_TOLERANCE_S, check_key
from plait_node.wire.identity import Directory, PeerIdentity

KIND = 5  # of the signed record
LIFE_S = 30
BODY_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Knock:
    """Whom it calls, and the record that its caller signed. Well formed, and not to be believed before `check`."""

    to: Address
    record: Signed[Record]
    body: bytes

    @classmethod
    def make(cls, identity: PeerIdentity, to: Address, *, at: Destination | None, now: float) -> Knock:
        """Sign a call to `to`; `at` is where this node can be dialed, None: nowhere."""
        body = pb.KnockBody(
            version=BODY_VERSION,
            to=to,
            dialable="" if at is None else at.target,
            certificate=identity.certificate.fingerprint,
        ).SerializeToString(deterministic=True)
        record = Record(
            kind=KIND,
            topic=Hash(secrets.token_bytes(32)),
            node=identity.owner,
            sequence=int(now * 1_000),
            expires=int(now) + LIFE_S,
            body=keccak(body),
        )
        return cls(to=to, record=identity.key.signed(identity.domain, record), body=body)

    @classmethod
    def from_pb(cls, received: pb.Knock) -> Knock:
        """Read what a peer sent; raise `MalformedFrameError`."""
        try:
            parse(pb.KnockBody, received.body)
            return cls(to=address(received.to), record=signed_from_pb(received.record, Record), body=received.body)
        except PlaitError as error:
            raise MalformedFrameError(f"a malformed knock: {error}") from error

    def frame(self) -> pb.Frame:
        """Return it as it travels."""
        return pb.Frame(knock=pb.Knock(to=self.to, record=signed_to_pb(self.record), body=self.body))

    @property
    def caller(self) -> Address:
        """Return who says that it knocks."""
        return self.record.message.node

    @property
    def topic(self) -> Hash:
        """Return the 32 bytes that name this knock."""
        return self.record.message.topic

    @property
    def dialable(self) -> bool:
        """Tell whether the caller says where it can be dialed."""
        return bool(self._read().dialable)

    async def check(self, identity: PeerIdentity, directory: Directory, *, now: float) -> Destination | None:
        """Return where to dial the caller, None where only a relay helps; raise `KnockError`, `PlaitError`."""
        record = self.record.message
        if record.kind != KIND or record.body != keccak(self.body):
            raise KnockError("the signed record is not one of this call")
        _check_times(record.expires, now)
        body = self._read()
        if body.version != BODY_VERSION:
            raise KnockError(f"body version {body.version}, this node knows {BODY_VERSION}")
        if body.to != identity.owner:
            raise KnockError(f"it calls 0x{body.to.hex()}, this is {to_hex(identity.owner)}")
        await check_key(directory, self.record.signer(identity.domain), self.caller, now=now)
        if not body.dialable:
            return None
        return Destination.parse(body.dialable, owner=self.caller, certificate=hash32(body.certificate))

    def _read(self) -> pb.KnockBody:
        return parse(pb.KnockBody, self.body)


def knocked(to: Address, topic: Hash, fault: Fault) -> pb.Frame:
    """Return the frame that tells a caller why its knock is not answered."""
    return pb.Frame(knocked=pb.Knocked(to=to, topic=topic, fault=fault_to_pb(fault)))


def _check_times(expires: int, now: float) -> None:
    late = now - expires
    if late >= 0:
        raise KnockError(
            f"it expired {late:.0f} s ago by this node's clock; if it was fresh, one of the two clocks is wrong"
        )
    if -late > LIFE_S + CLOCK_TOLERANCE_S:
        raise KnockError(
            f"it lives {-late:.0f} s more by this node's clock, a knock {LIFE_S}; one of the clocks is wrong"
        )
