"""Records that are believed, and every way in which one is not."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.node.swarm.chain import DOMAIN, MODEL, NOW, Chain, KeyEntry, Node, facts

from plait.protocol.ids import HASH_ZERO, Address, Hash, keccak
from plait.protocol.messages import Job, Receipt, Record, RecordKind, Stage
from plait.protocol.typed import Key
from plait_node.swarm.announcer import Announcer
from plait_node.swarm.dht import VALUE_LIMIT, DhtKey, MemoryDht
from plait_node.swarm.errors import BadRecordError, NotReachableError
from plait_node.swarm.lookup import Lookup
from plait_node.swarm.records import (
    NodeFacts,
    StoredRecord,
    check_record,
    node_body,
    node_record,
    salt,
    sign_record,
)
from plait_node.wire import Destination


def stored(signer: Node, body: bytes = b"body", **changes: object) -> StoredRecord:
    record = Record(
        kind=RecordKind.NODE, topic=MODEL, node=signer.owner, sequence=7, expires=int(NOW) + 60, body=HASH_ZERO
    )
    return sign_record(signer.key, DOMAIN, replace(record, **changes), body)  # type: ignore[arg-type]


def _point(number: int, **changes: object) -> Destination:
    """Return a meeting point with as long a host name as three of them have room for in a record."""
    point = Destination(
        owner=Address(bytes([number]) * 20),
        host=f"node-{number}." + "x" * 40 + ".example.org",
        port=50_051,
        certificate=Hash(bytes([number]) * 32),
    )
    return replace(point, **changes)  # type: ignore[arg-type]


async def check(record: StoredRecord, node: Node, chain: Chain) -> None:
    await check_record(record, domain=DOMAIN, keys=chain, kind=RecordKind.NODE, topic=MODEL, node=node.owner, now=NOW)


async def refusal(record: StoredRecord, node: Node, chain: Chain) -> str:
    with pytest.raises(BadRecordError) as caught:
        await check(record, node, chain)
    return caught.value.reason


async def test_record_of_an_active_node_is_believed_after_the_wire() -> None:
    chain = Chain()
    node = chain.add(Node())
    sent = stored(node)
    received = StoredRecord.unpack(sent.pack())
    assert received == sent
    await check(received, node, chain)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"kind": RecordKind.JOB}, "wrong_topic"),
        ({"topic": Hash(b"\x99" * 32)}, "wrong_topic"),
        ({"node": b"\x99" * 20}, "wrong_topic"),
        ({"expires": int(NOW)}, "expired"),
        ({"expires": int(NOW) + 91}, "too_long"),
    ],
)
async def test_record_that_says_something_else_is_refused(changes: dict[str, object], reason: str) -> None:
    chain = Chain()
    node = chain.add(Node())
    assert await refusal(stored(node, **changes), node, chain) == reason


async def test_record_with_another_body_is_refused() -> None:
    chain = Chain()
    node = chain.add(Node())
    assert await refusal(replace(stored(node), body=b"other"), node, chain) == "wrong_body"


async def test_record_signed_by_a_key_nobody_registered_is_refused() -> None:
    chain = Chain()
    node = chain.add(Node())
    stranger = Node(owner=node.owner)
    assert await refusal(stored(stranger), node, chain) == "foreign_key"


async def test_record_signed_by_another_nodes_key_is_refused() -> None:
    chain = Chain()
    node, other = chain.add(Node()), chain.add(Node())
    assert await refusal(stored(replace(node, key=other.key)), node, chain) == "foreign_key"


@pytest.mark.parametrize("entry", [{"revoked_at": int(NOW) - 1}, {"valid_from": int(NOW) + 31}])
async def test_record_under_a_key_not_valid_now_is_refused(entry: dict[str, int]) -> None:
    chain = Chain()
    node = chain.add(Node())
    chain.keys[node.key.address] = KeyEntry(owner=node.owner, **entry)
    assert await refusal(stored(node), node, chain) == "revoked_key"


async def test_record_of_an_unstaked_node_is_refused() -> None:
    chain = Chain()
    node = chain.add(Node())
    chain.inactive.add(node.owner)
    assert await refusal(stored(node), node, chain) == "not_active"


async def test_record_with_one_bit_of_the_signature_changed_is_refused() -> None:
    chain = Chain()
    node = chain.add(Node())
    good = stored(node)
    for bit in range(0, 512, 37):
        raw = bytearray(good.record.signature)
        raw[bit // 8] ^= 1 << bit % 8
        bad = replace(good, record=replace(good.record, signature=bytes(raw)))
        assert await refusal(bad, node, chain) in {"foreign_key", "bad_signature"}


@given(st.binary(max_size=300))
def test_record_unpack_of_any_bytes_is_a_record_or_refused(value: bytes) -> None:
    try:
        read = StoredRecord.unpack(value)
    except BadRecordError:
        return
    assert StoredRecord.unpack(read.pack()) == read


def test_node_record_round_trips_every_fact() -> None:
    node = Node()
    told = facts(10, 20, queue=3, price=2**96 - 1, host="::1", port=65_535)
    read = node_record(stored(node, node_body(told)))
    assert (read.owner, read.facts) == (node.owner, told)


def test_node_record_of_a_node_that_only_dials_out_names_its_meeting_points() -> None:
    node = Node()
    told = facts(10, 20, host="", port=0, via=tuple(_point(number) for number in range(3)))
    read = node_record(stored(node, node_body(told)))
    assert read.facts == told
    assert read.destination == Destination(
        owner=node.owner, host="", port=0, certificate=told.certificate, via=told.via
    )
    assert len(read.stored.pack()) < VALUE_LIMIT


def test_node_body_of_a_node_that_nobody_could_reach_is_not_made() -> None:
    with pytest.raises(NotReachableError, match="no link to a meeting point"):
        node_body(facts(0, 1, host="", port=0))


async def test_record_of_a_clock_five_minutes_off_is_refused_and_the_text_says_by_how_much() -> None:
    chain = Chain()
    node = chain.add(Node())
    for skew, text in ((-300, "240 s ago by this node's clock"), (300, "360 s more by this node's clock")):
        with pytest.raises(BadRecordError, match=text):
            await check(stored(node, expires=int(NOW) + skew + 60), node, chain)


@pytest.mark.parametrize(
    "bad",
    [
        facts(5, 5),
        facts(0, 70_000),
        facts(0, 1, port=0),
        facts(0, 1, port=65_536),
        facts(0, 1, host="x" * 300),
        facts(0, 1, certificate=b"short"),
        facts(0, 1, profile=b""),
        facts(0, 1, via=(_point(0),)),  # dialable as well
        facts(0, 1, host="", port=0, via=tuple(_point(number) for number in range(4))),
        facts(0, 1, host="", port=0, via=(_point(0, port=0),)),
        facts(0, 1, host="", port=0, via=(_point(0, owner=b"short"),)),
        facts(0, 1, host="", port=0, via=(_point(0, certificate=b"short"),)),
    ],
)
def test_node_record_with_a_malformed_body_is_refused(bad: NodeFacts) -> None:
    with pytest.raises(BadRecordError):
        node_record(stored(Node(), node_body(bad)))


@given(st.binary(max_size=200))
def test_node_record_of_any_body_is_read_or_refused(body: bytes) -> None:
    try:
        node_record(stored(_NODE, body))
    except BadRecordError:
        return


_NODE = Node()


def job(stages: int) -> Job:
    route = tuple(Stage(node=os.urandom(20), first=n, last=n + 1, price=60_000) for n in range(stages))
    return Job(
        request=Hash(os.urandom(32)),
        attempt=1,
        worker=_NODE.owner,
        route=route,
        profile=HASH_ZERO,
        choice=HASH_ZERO,
        start=0,
        row=0,
        tokens=HASH_ZERO,
        closes_at=int(NOW) + 5_400,
    )


async def put_and_find(message: Job | Receipt, dht: MemoryDht, reader: Node) -> tuple[object, object]:
    chain = Chain(registered=[reader], keys={reader.key.address: KeyEntry(owner=reader.owner)})
    announcer = Announcer(
        dht=dht, dht_key=reader.secret, key=reader.key, domain=DOMAIN, node=reader.owner, clock=lambda: NOW
    )
    signed = reader.key.signed(DOMAIN, message)
    await announcer.deposit(signed)
    lookup = Lookup(dht=dht, nodes=chain, keys=chain, domain=DOMAIN, clock=lambda: NOW)
    find = lookup.job if isinstance(message, Job) else lookup.receipt
    return signed, await find(message.request, reader.owner)


@pytest.mark.parametrize(("stages", "whole"), [(3, True), (12, True), (20, False), (64, False)])
async def test_lookup_finds_a_job_whole_or_by_digest(stages: int, whole: bool) -> None:
    dht = MemoryDht()
    signed, found = await put_and_find(job(stages), dht, Node())
    assert found.covers(DOMAIN, signed)  # type: ignore[attr-defined]
    assert (found.job == signed) is whole  # type: ignore[attr-defined]
    assert all(len(value) <= VALUE_LIMIT for value in dht.shelf.values())
    other = Key.generate().signed(DOMAIN, signed.message)  # type: ignore[attr-defined]
    assert not found.covers(DOMAIN, other)  # type: ignore[attr-defined]


async def test_lookup_finds_a_receipt_and_nothing_for_another_request() -> None:
    node, dht = Node(), MemoryDht()
    receipt = Receipt(
        request=keccak(b"request"),
        segments=tuple(Hash(os.urandom(32)) for _ in range(16)),
        input_tokens=5,
        output_tokens=6,
        tokens=HASH_ZERO,
        price=7,
        finish=0,
        finished_at=int(NOW),
        closes_at=int(NOW) + 1_800,
    )
    signed, found = await put_and_find(receipt, dht, node)
    assert found.receipt == signed  # type: ignore[attr-defined]
    chain = Chain()
    chain.add(node)
    lookup = Lookup(dht=dht, nodes=chain, keys=chain, domain=DOMAIN, clock=lambda: NOW)
    assert await lookup.receipt(keccak(b"another"), node.owner) is None
    with pytest.raises(BadRecordError, match="no registered node"):
        await lookup.receipt(receipt.request, Node().owner)


async def test_lookup_record_of_another_request_in_its_place_is_refused() -> None:
    """A worker cannot answer for request B with what it stored for A."""
    node, dht = Node(), MemoryDht()
    signed, _ = await put_and_find(job(2), dht, node)
    value = dht.shelf[(node.dht_key, salt(RecordKind.JOB, signed.message.request))]  # type: ignore[attr-defined]
    dht.shelf[(node.dht_key, salt(RecordKind.JOB, keccak(b"B")))] = value
    chain = Chain()
    chain.add(node)
    lookup = Lookup(dht=dht, nodes=chain, keys=chain, domain=DOMAIN, clock=lambda: NOW)
    with pytest.raises(BadRecordError) as caught:
        await lookup.job(keccak(b"B"), node.owner)
    assert caught.value.reason == "wrong_topic"


def test_dht_key_of_the_same_seed_is_the_same() -> None:
    seed = os.urandom(32)
    assert DhtKey(seed).public == DhtKey(seed).public
