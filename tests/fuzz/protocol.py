"""Targets of the protocol: every message, payments, faults, manifests, sealed bodies, events, proofs, claim rows."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from tests.fuzz.machine import Target, fixed
from tests.fuzz.shapes import varied
from tests.fuzz.wire import filled
from tests.sdk.swarm import Swarm, manifest

from plait.client.sse import MAX_EVENT_BYTES, EventReader
from plait.protocol import codec
from plait.protocol.choice import ChoiceNote
from plait.protocol.errors import (
    BadProofError,
    BadSignatureError,
    MalformedMessageError,
    ManifestError,
    SealingError,
)
from plait.protocol.ids import Address, Hash, keccak
from plait.protocol.manifest import Manifest
from plait.protocol.messages import MESSAGES
from plait.protocol.pb import signed_pb2
from plait.protocol.receipts import ABORTED, RECEIPT, ClaimRow, ReceiptLeaf
from plait.protocol.sealing import (
    CAPSULE_BYTES,
    HYBRID,
    MAX_CHUNK_IDS,
    MAX_STOPS,
    X25519,
    AnswerOpener,
    ContentKey,
    Note,
    PrekeySecret,
    open_prompt,
    seal_capsule,
    seal_prompt,
)
from plait.protocol.tree import Tree, verify_consistency, verify_inclusion
from plait.protocol.typed import Domain, Key, struct_hash

DOMAIN = Domain(chain_id=31_337, channels=Address(b"\x07" * 20))
_KEY = Key.from_bytes(b"\x09" * 32)
_K = ContentKey(b"\x05" * 32)
_REQUEST, _JOB = Hash(b"\x08" * 32), Hash(b"\x0a" * 32)
_NODE = Address(b"\x07" * 20)
_LARGEST_TREE = 33
_TREE = Tree(bytes([n]) for n in range(_LARGEST_TREE))

Read = Callable[[bytes], bool]


def message_from(data: bytes) -> bool:
    """Take any of the signed messages, and any of their parts; the kind is the first byte."""
    kind = _PLAIN[data[0] % len(_PLAIN)] if data else _PLAIN[0]
    try:
        received = codec.parse(getattr(signed_pb2, kind.__name__), data[1:])
        message = codec.from_pb(received, kind)
    except MalformedMessageError:
        return False
    assert codec.from_pb(codec.to_pb(message), kind) == message
    assert len(struct_hash(message)) == 32
    return True


def signed_from(data: bytes) -> bool:
    """Take a signed message as it travels; who signed it is asked as well."""
    kind = _SIGNED[data[0] % len(_SIGNED)] if data else _SIGNED[0]
    try:
        signed = codec.signed_from_pb(codec.parse(getattr(signed_pb2, f"Signed{kind.__name__}"), data[1:]), kind)
        assert codec.signed_from_pb(codec.signed_to_pb(signed), kind) == signed
        assert len(signed.signer(DOMAIN)) == 20
    except (MalformedMessageError, BadSignatureError):
        return False
    return True


def payment_from(data: bytes) -> bool:
    try:
        payment = codec.payment_from_pb(codec.parse(signed_pb2.Payment, data))
    except MalformedMessageError:
        return False
    assert codec.payment_from_pb(codec.payment_to_pb(payment)) == payment
    assert all(len(leaf.encode()) == 128 for leaf in payment.ended)
    return True


def fault_from(data: bytes) -> bool:
    """Take what a peer says of an error: it is printed, so it is one line without control characters."""
    try:
        fault = codec.fault_from_pb(codec.parse(signed_pb2.Fault, data))
    except MalformedMessageError:
        return False
    assert len(fault.text) <= 2_000
    assert fault.text.isprintable()
    assert 0 < len(fault.code) <= 64
    return True


def manifest_from(data: bytes) -> bool:
    try:
        read = Manifest.from_json(data)
    except ManifestError:
        return False
    assert read.to_json() == data
    assert len(read.model_id) == 32
    return True


def prompt_from(data: bytes) -> bool:
    """Open a prompt: the first byte says whether the payer itself sealed these bytes, or they are not sealed at all."""
    body = data[1:]
    sealed = (
        ChaCha20Poly1305(_K.prompt_key(_REQUEST)).encrypt(bytes(12), body, _REQUEST) if data[:1] < b"\x80" else body
    )
    try:
        ids, stop = open_prompt(_K, _REQUEST, sealed)
    except SealingError:
        return False
    assert all(0 <= token < 1 << 32 for token in ids)
    assert len(stop) <= MAX_STOPS
    assert open_prompt(_K, _REQUEST, seal_prompt(_K, _REQUEST, ids, stop)) == (ids, stop)
    return True


def answer_from(data: bytes) -> bool:
    """Open a chunk that the worker itself sealed around these bytes: ids, or the note with its choice."""
    sealed = ChaCha20Poly1305(_K.answer_key(_JOB)).encrypt(bytes(12), data, _REQUEST + _JOB)
    opener = AnswerOpener(_K, request=_REQUEST, job=_JOB)
    try:
        opened = opener.open(sealed)
        if isinstance(opened, Note):
            choice = ChoiceNote.from_note(opened)
            assert len(choice.choice) == 32
            assert ChoiceNote.from_note(Note(text=choice.to_json())) == choice
            return True
    except SealingError:
        return False
    assert 1 <= len(opened) <= MAX_CHUNK_IDS
    assert all(0 <= token < 1 << 32 for token in opened)
    return True


def capsule_from(data: bytes) -> bool:
    secret = _SECRETS[HYBRID if data[:1] >= b"\x80" else X25519]
    try:
        secret.open(data[1:], request=_REQUEST, node=_NODE)
    except SealingError:
        return False
    return True


def events_from(data: bytes) -> bool:
    """Read a stream of events that comes in pieces; the first byte is their size."""
    reader, found = EventReader(), 0
    size = data[0] + 1 if data else 1
    try:
        for at in range(1, len(data), size):
            found += len(reader.feed(data[at : at + size]))
            assert len(reader._rest) <= MAX_EVENT_BYTES
    except MalformedMessageError:
        return False
    return found > 0


def proof_from(data: bytes) -> bool:
    """Take a proof about a tree of up to 33 leaves: kind, place, size, then its hashes. Only true ones are taken."""
    if len(data) < 3:
        return False
    first, size = data[1] % (_LARGEST_TREE + 3), data[2] % (_LARGEST_TREE + 1)
    proof = tuple(Hash(data[at : at + 32]) for at in range(3, len(data), 32))
    root = _TREE.root(size)
    try:
        if data[0] % 2:
            verify_inclusion(bytes([first]), index=first, size=size, proof=proof, root=root)
            assert proof == _TREE.inclusion(first, size)
        else:
            old = _TREE.root(min(first, _LARGEST_TREE))
            verify_consistency(old_size=first, new_size=size, old_root=old, new_root=root, proof=proof)
            assert proof == _TREE.consistency(first, size)
    except BadProofError:
        return False
    return True


def claim_row_from(data: bytes) -> bool:
    try:
        row = ClaimRow.unpack(data)
    except MalformedMessageError:
        return False
    assert row.pack() == data
    return True


def leaf_from(data: bytes) -> bool:
    try:
        leaf = codec.receipt_leaf_from_pb(codec.parse(signed_pb2.ReceiptLeaf, data))
    except MalformedMessageError:
        return False
    assert codec.receipt_leaf_from_pb(codec.receipt_leaf_to_pb(leaf)) == leaf
    assert len(leaf.encode()) == 128
    return True


_PLAIN = [kind for kind in MESSAGES if hasattr(signed_pb2, kind.__name__)]
_SIGNED = [kind for kind in MESSAGES if hasattr(signed_pb2, f"Signed{kind.__name__}")]
_SECRETS = {kem: PrekeySecret(kem=kem, secret=bytes(range(size))) for kem, size in ((X25519, 32), (HYBRID, 96))}


def _vary(name: str, head: int = 0) -> Callable[[bytes, int, bytes], bytes]:
    def vary(data: bytes, place: int, piece: bytes) -> bytes:
        return data[:head] + varied(getattr(signed_pb2, name), data[head:], place, piece)

    return vary


_ODD = (1 << 70, -1, 1e308, float("nan"), float("-inf"), 0.1, True, None, "", "\ud800", "\0", [], {}, [[[]]], {"": 1})


def vary_json(data: bytes, place: int, piece: bytes) -> bytes:
    """Change one value of a JSON text, at any depth, and leave the rest canonical; bytes before `{` stay."""
    head, brace, rest = data.partition(b"{")
    try:
        value = json.loads(brace + rest)
    except ValueError:
        return data
    spots = list(_spots(value))
    owner, key = spots[place % len(spots)]
    odd = [*_ODD, piece.decode("latin-1"), int.from_bytes(piece, "big")]
    owner[key] = odd[place // 7 % len(odd)]
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=place % 2 == 0)
    return head + text.encode("utf-8", "surrogatepass")


def _spots(value: dict[Any, Any] | list[Any]) -> Iterator[tuple[Any, Any]]:
    for key in [*value] if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _spots(value[key])


def _vary_message(data: bytes, place: int, piece: bytes) -> bytes:
    return _vary(_PLAIN[data[0] % len(_PLAIN)].__name__, 1)(data, place, piece)


def _vary_signed(data: bytes, place: int, piece: bytes) -> bytes:
    return _vary(f"Signed{_SIGNED[data[0] % len(_SIGNED)].__name__}", 1)(data, place, piece)


def right_lengths(message: object) -> None:
    """Give a filled message fields of the lengths that the protocol asks for."""
    for spec, value in message.ListFields():  # type: ignore[attr-defined]
        if spec.message_type is not None:
            for each in value if spec.is_repeated else [value]:
                right_lengths(each)
        elif spec.type == spec.TYPE_BYTES and not spec.is_repeated:
            setattr(message, spec.name, value[: _LENGTHS.get(spec.name, 32)])
            if spec.name == "signature":
                message.signature = _KEY.sign_digest(_JOB)  # type: ignore[attr-defined]


_ADDRESSES = ("node", "gateway", "payer", "payee", "worker", "owner", "peer", "signer")
_AMOUNTS = ("input_price", "output_price", "max_price", "price", "cumulative", "amount", "claimed", "hop_amount")
_LENGTHS = dict.fromkeys(_ADDRESSES, 20) | dict.fromkeys(_AMOUNTS, 12) | {"group": 8}


def _filled(name: str) -> bytes:
    made = getattr(signed_pb2, name)()
    filled(made)
    right_lengths(made)
    return made.SerializeToString()


def _answers() -> Iterator[bytes]:
    yield b"\0" + (258).to_bytes(4, "big") * 3
    note = ChoiceNote(method="ngram+prefix", amounts={"draft": 4}, predicted={"ttft_s": 0.5}, reason="it repeats")
    yield b"\1" + note.to_json()
    yield b'\1{"amounts":{},"method":"plain","predicted":{},"reason":""}'


def _proofs() -> list[bytes]:
    numbers = random.Random(1)
    found: list[bytes] = []
    for _ in range(30):
        size = numbers.randint(1, _LARGEST_TREE)
        index = numbers.randrange(size)
        found.append(bytes([1, index, size]) + b"".join(_TREE.inclusion(index, size)))
        found.append(bytes([0, index, size]) + b"".join(_TREE.consistency(index, size)))
    return found


def _capsules() -> list[bytes]:
    seals = [
        seal_capsule(_K, prekey_public=secret.public, kem=kem, request=_REQUEST, node=_NODE)
        for kem, secret in _SECRETS.items()
    ]
    assert {len(each) for each in seals} == set(CAPSULE_BYTES.values())
    return [b"\0" + seals[0], b"\xff" + seals[1]]


def _prompts() -> Sequence[bytes]:
    plain = [signed_pb2.Prompt(ids=[1, 70_000, 3], stop=stop).SerializeToString() for stop in ([], ["\n", "end"])]
    padded = [len(body).to_bytes(4, "big") + body for body in plain]
    return [b"\0" + each + bytes(-len(each) % 1_024) for each in padded] + [
        b"\xff" + seal_prompt(_K, _REQUEST, [1], [])
    ]


def _payments() -> list[bytes]:
    leaf = ReceiptLeaf(kind=RECEIPT, hash=_REQUEST, hop_amount=7, windows_paid=2)
    aborted = ReceiptLeaf(kind=ABORTED, hash=_JOB, hop_amount=0, windows_paid=0)
    made = signed_pb2.Payment()
    made.voucher.ParseFromString(_filled("SignedVoucher"))
    made.pay.ParseFromString(_filled("SignedPay"))
    made.ended.extend([codec.receipt_leaf_to_pb(each) for each in (leaf, aborted)])
    made.consistency.extend([keccak(b"one"), keccak(b"two")])
    return [made.SerializeToString()]


def _events() -> list[bytes]:
    event = b": plait\n\nid: 7\nevent: chunk\ndata: AAAA\n\n"
    return [bytes([size]) + event * 3 for size in (0, 12, 200)]


def _rows() -> list[bytes]:
    row = ClaimRow(payer=_NODE, cumulative=1 << 90, jobs=3, receipts_root=_REQUEST, signature=_KEY.sign_digest(_JOB))
    return [row.pack()]


def targets() -> list[Target]:
    """Return the targets of the protocol."""
    plain = [bytes([at]) + _filled(kind.__name__) for at, kind in enumerate(_PLAIN)]
    signed = [bytes([at]) + _filled(f"Signed{kind.__name__}") for at, kind in enumerate(_SIGNED)]
    real = bytes([_SIGNED.index(type(_QUOTE.message))]) + codec.signed_to_pb(_QUOTE).SerializeToString()
    leaf = codec.receipt_leaf_to_pb(ReceiptLeaf(kind=RECEIPT, hash=_REQUEST, hop_amount=7, windows_paid=2))
    fault = signed_pb2.Fault(code="busy", text="no room now; try again", retry=True)
    made = [
        ("message", message_from, plain, 70, _vary_message),
        ("signed", signed_from, [*signed, real], 70, _vary_signed),
        ("payment", payment_from, _payments(), 50, _vary("Payment")),
        ("fault", fault_from, [fault.SerializeToString()], 20, _vary("Fault")),
        ("manifest", manifest_from, [manifest().to_json()], 40, vary_json),
        ("prompt", prompt_from, _prompts(), 30, None),
        ("answer", answer_from, [*_answers()], 50, vary_json),
        ("capsule", capsule_from, _capsules(), 15, None),
        ("events", events_from, _events(), 25, None),
        ("proof", proof_from, _proofs(), 60, None),
        ("row", claim_row_from, _rows(), 10, None),
        ("leaf", leaf_from, [leaf.SerializeToString()], 20, _vary("ReceiptLeaf")),
    ]
    return [
        Target(name=f"protocol.{name}", run=run, seeds=fixed(seeds), share=share, vary=vary)
        for name, run, seeds, share, vary in made
    ]


_SWARM = Swarm()
_QUOTE = _SWARM.quote(_SWARM.prekey())
