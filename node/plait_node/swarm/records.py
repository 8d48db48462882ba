"""Records of the DHT: built by their node, believed by nobody who has not checked them.

A value of the table is a `StoredRecord`: the signed `Record` and the bytes that its `body` hashes. A
job or receipt too large for an item leaves its digest and signature in their place.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from plait.protocol.codec import (
    amount_bytes,
    amount_from,
    parse,
    signed_from_pb,
    signed_to_pb,
)
from plait.protocol.errors import PlaitError
from plait.protocol.ids import Address, Hash, Signature, address, hash32, keccak
from plait.protocol.messages import Job, Receipt, Record, RecordKind
from plait.protocol.pb import gateway_pb2, signed_pb2
from plait.protocol.typed import Domain, Key, Signed
from plait_node.swarm.errors import BadRecordError, NotReachableError
from plait_node.wire import Destination

if TYPE_CHECKING:
    from plait.protocol.checks import NodeDirectory

NODE_LIFE_S = 60
CLOCK_TOLERANCE_S = 30
BODY_VERSION = 1
MOST_VIA = 3
_DIGEST_BODY = 96  # digest 32, signature 64; every serialised message is longer


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRecord:
    """A record with its body, as it lies in the table and travels in `Open.next`."""

    record: Signed[Record]
    body: bytes

    def to_pb(self) -> signed_pb2.StoredRecord:
        """Return it as it travels."""
        return signed_pb2.StoredRecord(record=signed_to_pb(self.record), body=self.body)

    @classmethod
    def from_pb(cls, received: signed_pb2.StoredRecord) -> StoredRecord:
        """Return the record, unchecked but well formed; raise `BadRecordError`."""
        try:
            record = signed_from_pb(received.record, Record)
        except PlaitError as error:
            raise BadRecordError("malformed", str(error)) from error
        return cls(record=record, body=received.body)

    def pack(self) -> bytes:
        """Return the table's value."""
        return self.to_pb().SerializeToString(deterministic=True)

    @classmethod
    def unpack(cls, value: bytes) -> StoredRecord:
        """Return the record in a value of the table; raise `BadRecordError`."""
        try:
            return cls.from_pb(parse(signed_pb2.StoredRecord, value))
        except PlaitError as error:
            raise BadRecordError("malformed", str(error)) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What a stage says of itself: blocks `[first, last)` and how it serves them.

    It is reached at `host` and `port`, or, where it only dials out, over the nodes in `via`: then they are "" and 0.
    """

    model: Hash
    first: int
    last: int
    profile: Hash
    step_micros: int  # measured time of one decode step over all its blocks
    free_steps: int  # KV room
    queue: int  # jobs it holds
    price: int  # per 1,000,000 steps x blocks
    host: str = ""
    port: int = 0
    certificate: Hash  # SHA-256 of the DER certificate
    via: tuple[Destination, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRecord:
    """A checked announcement; `stored` is what a neighbour is shown."""

    owner: Address
    facts: NodeFacts
    sequence: int
    expires: int
    stored: StoredRecord

    @property
    def destination(self) -> Destination:
        """Return how a link to the node is opened."""
        facts = self.facts
        return Destination(
            owner=self.owner, host=facts.host, port=facts.port, certificate=facts.certificate, via=facts.via
        )


def salt(kind: int, topic: bytes) -> bytes:
    """Return the salt under which a node keeps a record: kind (1 byte) ‖ topic."""
    return bytes([kind]) + topic


def sign_record(key: Key, domain: Domain, record: Record, body: bytes) -> StoredRecord:
    """Sign a record over a body; `record.body` is set to its hash."""
    return StoredRecord(record=key.signed(domain, replace(record, body=keccak(body))), body=body)


async def check_record(
    stored: StoredRecord,
    *,
    domain: Domain,
    keys: NodeDirectory,
    kind: int,
    topic: Hash,
    node: Address,
    now: float,
    life_s: float = NODE_LIFE_S,
) -> None:
    """Raise `BadRecordError` unless an active `node` signed exactly this, lately, about `topic`."""
    record = stored.record.message
    if (record.kind, record.topic, record.node) != (kind, topic, node):
        raise BadRecordError("wrong_topic", "it is of another kind, topic or node than asked for")
    if record.body != keccak(stored.body):
        raise BadRecordError("wrong_body", "its body is not the one that was signed")
    if record.expires <= now:
        late = now - record.expires
        raise BadRecordError("expired", f"it expired at {record.expires}, {late:.0f} s ago by this node's clock")
    if record.expires > now + life_s + CLOCK_TOLERANCE_S:
        more = record.expires - now
        text = f"it lives {more:.0f} s more by this node's clock, at most {life_s:g} are allowed"
        raise BadRecordError("too_long", f"{text}; either its clock is ahead or ours is behind")
    await _check_signer(stored.record, domain=domain, keys=keys, node=node, now=now)
    if not await keys.active(node):
        raise BadRecordError("not_active", f"node 0x{node.hex()} is not staked, or jailed")


async def _check_signer(
    signed: Signed[Record], *, domain: Domain, keys: NodeDirectory, node: Address, now: float
) -> None:
    try:
        signer = signed.signer(domain)
    except PlaitError as error:
        raise BadRecordError("bad_signature", str(error)) from error
    key = await keys.service_key(signer)
    if key is None or key.owner != node:
        raise BadRecordError("foreign_key", f"0x{signer.hex()} is no service key of 0x{node.hex()}")
    if key.valid_from > now + CLOCK_TOLERANCE_S or (key.revoked_at != 0 and key.revoked_at <= now):
        raise BadRecordError("revoked_key", f"service key 0x{signer.hex()} is not valid now")


def node_body(facts: NodeFacts) -> bytes:
    """Return the body of a node record; raise `NotReachableError` for a node that nobody could link to."""
    if not facts.host and not facts.via:
        raise NotReachableError
    return gateway_pb2.NodeBody(
        version=BODY_VERSION,
        first=facts.first,
        last=facts.last,
        profile=facts.profile,
        step_micros=facts.step_micros,
        free_steps=facts.free_steps,
        queue=facts.queue,
        price=amount_bytes(facts.price),
        dialable=f"{facts.host}:{facts.port}" if facts.host else "",
        certificate=facts.certificate,
        via=[
            gateway_pb2.MeetingPoint(owner=each.owner, dialable=each.target, certificate=each.certificate)
            for each in facts.via
        ],
    ).SerializeToString(deterministic=True)


def node_record(stored: StoredRecord) -> NodeRecord:
    """Read the body of a checked node record; raise `BadRecordError`."""
    record = stored.record.message
    try:
        body = parse(gateway_pb2.NodeBody, stored.body)
        price = amount_from(body.price)
        if body.version != BODY_VERSION:
            raise BadRecordError("version", f"body version {body.version}, this node knows {BODY_VERSION}")
        host, port, via = _reach(record.node, body)
    except BadRecordError:
        raise
    except PlaitError as error:
        raise BadRecordError("malformed", str(error)) from error
    if not len(body.profile) == len(body.certificate) == 32:
        raise BadRecordError("malformed", "its profile or certificate has the wrong length")
    if not body.first < body.last <= 0xFFFF:
        raise BadRecordError("malformed", f"[{body.first}, {body.last}) is no range of blocks")
    facts = NodeFacts(
        model=record.topic,
        first=body.first,
        last=body.last,
        profile=Hash(body.profile),
        step_micros=body.step_micros,
        free_steps=body.free_steps,
        queue=body.queue,
        price=price,
        host=host,
        port=port,
        certificate=Hash(body.certificate),
        via=via,
    )
    return NodeRecord(owner=record.node, facts=facts, sequence=record.sequence, expires=record.expires, stored=stored)


def _reach(node: Address, body: gateway_pb2.NodeBody) -> tuple[str, int, tuple[Destination, ...]]:
    """Return host, port and meeting points: the first two, or the last, and not both."""
    if bool(body.dialable) == bool(body.via) or len(body.via) > MOST_VIA:
        raise BadRecordError("malformed", f"a node is dialable or names 1 to {MOST_VIA} meeting points")
    if body.dialable:
        own = Destination.parse(body.dialable, owner=node, certificate=hash32(body.certificate))
        return own.host, own.port, ()
    points = tuple(
        Destination.parse(each.dialable, owner=address(each.owner), certificate=hash32(each.certificate))
        for each in body.via
    )
    return "", 0, points


@dataclass(frozen=True, slots=True, kw_only=True)
class Deposit:
    """A job or receipt found in the table: whole, or as digest and signature."""

    digest: Hash
    signature: Signature
    job: Signed[Job] | None = None
    receipt: Signed[Receipt] | None = None

    def covers(self, domain: Domain, signed: Signed[Job] | Signed[Receipt]) -> bool:
        """Return whether this is the very message that was stored, bit for bit."""
        return self.digest == signed.digest(domain) and self.signature == signed.signature


def deposit_body(domain: Domain, signed: Signed[Job] | Signed[Receipt], *, room: int) -> bytes:
    """Return the message's bytes where they fit into `room`, else digest ‖ signature."""
    whole: bytes = signed_to_pb(signed).SerializeToString(deterministic=True)
    return whole if len(whole) <= room else signed.digest(domain) + signed.signature


def read_deposit(domain: Domain, kind: int, stored: StoredRecord) -> Deposit:
    """Read the body of a checked job or receipt record; raise `BadRecordError`."""
    body = stored.body
    if len(body) == _DIGEST_BODY:
        return Deposit(digest=Hash(body[:32]), signature=Signature(body[32:]))
    try:
        if kind == RecordKind.JOB:
            job = signed_from_pb(parse(signed_pb2.SignedJob, body), Job)
            return Deposit(digest=job.digest(domain), signature=job.signature, job=job)
        receipt = signed_from_pb(parse(signed_pb2.SignedReceipt, body), Receipt)
        return Deposit(digest=receipt.digest(domain), signature=receipt.signature, receipt=receipt)
    except PlaitError as error:
        raise BadRecordError("malformed", str(error)) from error
