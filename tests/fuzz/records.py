"""Targets of the swarm: records of the table, their bodies, deposits, datagrams."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from tests.fuzz.machine import Target, fixed
from tests.fuzz.shapes import varied
from tests.fuzz.wire import LOOP
from tests.node.swarm.chain import DOMAIN, MODEL, NOW, Chain, Node, facts

from plait.protocol.errors import PlaitError
from plait.protocol.ids import HASH_ZERO, Address, Hash, keccak
from plait.protocol.messages import Job, Receipt, Record, RecordKind, Stage
from plait.protocol.pb import gateway_pb2, signed_pb2
from plait.protocol.typed import Key
from plait_node.swarm import BadRecordError, DhtKey, StoredRecord, check_record, node_record
from plait_node.swarm.items import VALUE_LIMIT, signed_bytes, signed_items
from plait_node.swarm.krpc import _bencode, _read, is_address
from plait_node.swarm.records import MOST_VIA, deposit_body, node_body, read_deposit, sign_record
from plait_node.wire import Destination

_NODE = Node(owner=Address(b"\x07" * 20), key=Key.from_bytes(b"\x07" * 32), secret=DhtKey(b"\x07" * 32))
_CHAIN = Chain()
_CHAIN.add(_NODE)
_PEER = ("127.0.0.1", 6_881)
_SALT = b"\0" + MODEL


def _stored(body: bytes, kind: int = RecordKind.NODE) -> StoredRecord:
    record = Record(kind=kind, topic=MODEL, node=_NODE.owner, sequence=7, expires=int(NOW) + 60, body=HASH_ZERO)
    return sign_record(_NODE.key, DOMAIN, record, body)


async def _believed(stored: StoredRecord) -> None:
    await check_record(stored, domain=DOMAIN, keys=_CHAIN, kind=RecordKind.NODE, topic=MODEL, node=_NODE.owner, now=NOW)


def record_from(data: bytes) -> bool:
    """Take a value of the table: read, checked, and then believed only as it was signed."""
    try:
        stored = StoredRecord.unpack(data)
        assert StoredRecord.unpack(stored.pack()) == stored
        LOOP.run(_believed(stored))
    except BadRecordError:
        return False
    assert stored.record.message.body == keccak(stored.body)
    assert stored.record.signer(DOMAIN) == _NODE.key.address
    return True


def body_from(data: bytes) -> bool:
    """Take a body that its node has signed."""
    stored = StoredRecord(record=_SIGNED.record, body=data)
    try:
        read = node_record(stored)
    except BadRecordError:
        return False
    found = read.facts
    assert 0 <= found.first < found.last <= 0xFFFF
    assert 0 <= found.price < 1 << 96
    assert len(found.via) <= MOST_VIA
    assert bool(found.host) != bool(found.via)
    for where in found.via or (read.destination,):
        assert 0 < where.port < 1 << 16
        assert where.host
        assert Destination.parse(where.target, owner=where.owner, certificate=where.certificate) == where
    again = node_record(StoredRecord(record=_SIGNED.record, body=node_body(found)))
    assert again.facts == found
    return True


def deposit_from(data: bytes) -> bool:
    """Take the body of a job's or a receipt's record; the kind is the first byte."""
    kind = RecordKind.JOB if data[:1] == b"\1" else RecordKind.RECEIPT
    try:
        found = read_deposit(DOMAIN, kind, replace(_SIGNED, body=data[1:]))
    except BadRecordError:
        return False
    assert (len(found.digest), len(found.signature)) == (32, 64)
    assert found.job is None or found.covers(DOMAIN, found.job)
    assert found.receipt is None or found.covers(DOMAIN, found.receipt)
    return True


def datagram_from(data: bytes) -> bool:
    """Take a datagram: at most one answer, every part of it of its kind."""
    found = _read(_PEER, data)
    if found is None:
        return False
    number, answer = found
    assert isinstance(number, bytes)
    assert len(answer.node) in {0, 20}
    assert len(answer.nodes) <= 16
    assert all(len(node) == 20 for node, _ in answer.nodes)
    assert all(is_address(peer) or peer[0] == "0.0.0.0" for _, peer in answer.nodes)  # noqa: S104 what nobody asks
    for item in signed_items([answer], _NODE.secret.public, _SALT, Counter()):
        assert item.sequence >= 0
        assert item.value
    return True


def _messages() -> list[bytes]:
    route = tuple(Stage(node=bytes([n]) * 20, first=n, last=n + 1, price=60_000) for n in range(3))  # type: ignore[arg-type]
    one, two = Hash(b"\1" * 32), Hash(b"\2" * 32)
    job = Job(
        request=one, attempt=1, worker=_NODE.owner, route=route, profile=one, choice=two, start=0, row=0, tokens=two,
        closes_at=int(NOW),
    )  # fmt: skip
    receipt = Receipt(
        request=one, segments=(two,), input_tokens=5, output_tokens=6, tokens=two, price=7, finish=0,
        finished_at=int(NOW), closes_at=int(NOW),
    )  # fmt: skip
    signed = [(b"\1", _NODE.key.signed(DOMAIN, job)), (b"\2", _NODE.key.signed(DOMAIN, receipt))]
    return [kind + deposit_body(DOMAIN, each, room=room) for kind, each in signed for room in (0, VALUE_LIMIT)]


def _datagrams() -> list[bytes]:
    value = _stored(node_body(facts(0, 5))).pack()
    item = {
        b"id": b"\1" * 20,
        b"token": b"tok",
        b"nodes": b"\2" * 20 + b"\x7f\0\0\1" + b"\x1a\xe1",
        b"v": value,
        b"k": _NODE.secret.public,
        b"seq": 9,
        b"sig": _NODE.secret.sign(signed_bytes(_SALT, 9, value)),
    }
    return [
        _bencode({b"t": b"aaaa", b"y": b"r", b"r": item}),
        _bencode({b"t": b"aaaa", b"y": b"r", b"r": {b"id": b"\1" * 20}}),
        _bencode({b"t": b"aaaa", b"y": b"e", b"e": [203, b"no"]}),
    ]


def _bodies() -> list[bytes]:
    points = [
        Destination(owner=Address(bytes([n]) * 20), host=f"node-{n}.example.org", port=50_051 + n, certificate=_PIN)
        for n in range(2)
    ]
    return [node_body(facts(0, 5)), node_body(facts(3, 9, host="", port=0, via=tuple(points)))]


_PIN = Hash(b"\x44" * 32)
_SIGNED = _stored(node_body(facts(0, 5)))


def vary_record(data: bytes, place: int, piece: bytes) -> bytes:
    """Change a field of a record; every third time its own node signs the change."""
    made = varied(signed_pb2.StoredRecord, data, place, piece)
    if place % 3:
        return made
    try:
        return _stored(StoredRecord.unpack(made).body + piece).pack()
    except PlaitError:
        return made


def vary_body(data: bytes, place: int, piece: bytes) -> bytes:
    return varied(gateway_pb2.NodeBody, data, place, piece)


def vary_deposit(data: bytes, place: int, piece: bytes) -> bytes:
    kind = signed_pb2.SignedJob if data[:1] == b"\1" else signed_pb2.SignedReceipt
    return data[:1] + varied(kind, data[1:], place, piece)


def targets() -> list[Target]:
    """Return the targets of the swarm."""
    records = [_stored(body).pack() for body in _bodies()]
    deep = b"d1:rd2:id20:" + bytes(20) + b"1:x" + b"l" * 500 + b"e" * 500 + b"e1:t1:a1:y1:re"
    return [
        Target(name="swarm.record", run=record_from, seeds=fixed(records), share=90, vary=vary_record),
        Target(name="swarm.body", run=body_from, seeds=fixed(_bodies()), share=110, vary=vary_body),
        Target(name="swarm.deposit", run=deposit_from, seeds=fixed(_messages()), share=50, vary=vary_deposit),
        Target(name="swarm.datagram", run=datagram_from, seeds=fixed([*_datagrams(), deep]), share=50),
    ]
