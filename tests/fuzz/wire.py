"""Targets of the wire: rows, frames and their parts, knocks, handshakes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import numpy as np
from tests.fuzz.machine import Target, fixed
from tests.fuzz.shapes import varied
from tests.node.wire.peers import DOMAIN, KnownKey, MemoryDirectory

from plait.protocol.errors import PlaitError
from plait.protocol.ids import Address, Hash
from plait.protocol.pb import signed_pb2
from plait.protocol.pb import stage_pb2 as pb
from plait.protocol.typed import Key
from plait_node.wire import HandshakeError, MalformedFrameError, PeerIdentity, TensorError, decode_rows, encode_rows
from plait_node.wire.certificate import Certificate
from plait_node.wire.dial import Destination
from plait_node.wire.frames import BATCH_FRAMES, Joiner, batch_of, frame_bytes, parse_frame, parts_of
from plait_node.wire.handshake import Handshake
from plait_node.wire.identity import MAX_FRAME_BYTES
from plait_node.wire.knock import Knock
from plait_node.wire.tensor import BF16, CODECS, FP32, IDS, INT8

NOW = 1_800_000_000.0
_VOCABULARY = 50_000
_PIN = Hash(b"\x44" * 32)
_PIECE = 2_000


def identity(number: int) -> PeerIdentity:
    """Return a peer that is the same in every run; its certificate is named and never shown."""
    return PeerIdentity(
        owner=Address(bytes([number]) * 20),
        key=Key.from_bytes(bytes([number]) * 32),
        certificate=Certificate(pem=b"", key_pem=b"", fingerprint=_PIN),
        domain=DOMAIN,
    )


ME, PEER = identity(1), identity(2)
DIRECTORY = MemoryDirectory(
    keys={each.key.address: KnownKey(owner=each.owner) for each in (ME, PEER)}, staked={ME.owner, PEER.owner}
)


def rows_from(data: bytes) -> bool:
    """Codec 1 byte, count 1, width 2, then rows as a peer sends them."""
    if len(data) < 4:
        return False
    codec, count, width = (*CODECS, "gzip")[data[0] % 5], data[1], int.from_bytes(data[2:4], "big")
    try:
        rows = decode_rows(data[4:], codec=codec, count=count, width=width, limit=_VOCABULARY)
    except TensorError:
        return False
    assert rows.shape == ((count,) if codec == IDS else (count, width))
    assert np.isfinite(rows).all()
    assert codec != IDS or (rows.min() >= 0 and rows.max() < _VOCABULARY)
    assert encode_rows(rows, codec=codec) == data[4:]
    return True


def rows_to(data: bytes) -> bool:
    """Width 1 byte, then any floats; what is encoded is decoded to itself, and nothing else is."""
    width = data[0] + 1 if data else 1
    values = np.frombuffer(data[1 : 1 + (len(data) - 1) // (4 * width) * 4 * width], dtype="<f4").reshape(-1, width)
    done = False
    for codec in (FP32, BF16, INT8):
        try:
            sent = encode_rows(values, codec=codec)
            rows = decode_rows(sent, codec=codec, count=len(values), width=width, limit=1)
        except TensorError:
            continue
        assert encode_rows(rows, codec=codec) == sent
        done = True
    return done


def frame_from(data: bytes) -> bool:
    try:
        frame = parse_frame(data)
    except MalformedFrameError:
        return False
    assert frame.WhichOneof("body") is not None
    assert parse_frame(frame_bytes(frame)) == frame
    return True


def joined(data: bytes) -> bool:
    """How often each message comes 1 byte, length 2, message, and so on: what a stream of a peer's is made of."""
    joiner, whole = Joiner(), False
    for message in _messages(data):
        try:
            taken = joiner.take(message)
        except MalformedFrameError:
            return False
        assert len(joiner._joined) <= MAX_FRAME_BYTES
        assert len(taken) <= BATCH_FRAMES
        for frame, size in taken:
            assert frame.WhichOneof("body") not in {None, "part", "batch"}
            assert size <= MAX_FRAME_BYTES
            whole = True
    return whole


def _messages(data: bytes) -> Iterator[bytes]:
    at = 0
    while at + 3 <= len(data):
        size = int.from_bytes(data[at + 1 : at + 3], "big")
        message = data[at + 3 : at + 3 + size]
        yield from (message for _ in range(data[at] + 1))
        at += 3 + size


def _stream(*messages: bytes, times: int = 1) -> bytes:
    return b"".join(bytes([times - 1]) + len(each).to_bytes(2, "big") + each for each in messages)


def _cut(frame: pb.Frame) -> list[bytes]:
    """Return a frame in parts far smaller than those that are really cut."""
    data = frame.SerializeToString()
    return [
        pb.Frame(part=pb.Part(data=data[at : at + 50], last=at + 50 >= len(data))).SerializeToString()
        for at in range(0, len(data), 50)
    ]


class Loop:
    """One event loop for all cases of a target."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, work):  # noqa: ANN001, ANN201 as `asyncio.run`
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        return self._loop.run_until_complete(work)

    def close(self) -> None:
        if self._loop is not None:
            self._loop.close()
            self._loop = None


LOOP = Loop()


def knock_from(data: bytes) -> bool:
    """Take a frame with a knock, as the node that it calls does."""
    try:
        frame = parse_frame(data)
        if frame.WhichOneof("body") != "knock":
            return False
        knock = Knock.from_pb(frame.knock)
        assert Knock.from_pb(parse_frame(knock.frame().SerializeToString()).knock) == knock
        assert isinstance(knock.dialable, bool)
        assert len(knock.topic) == 32
        where = LOOP.run(knock.check(ME, DIRECTORY, now=NOW))
    except PlaitError:
        return False
    assert where is None or Destination.parse(where.target, owner=where.owner, certificate=where.certificate) == where
    return True


class Scripted:
    """A transport over which a peer says what a case says."""

    where = "fuzz"

    def __init__(self, messages: Iterator[bytes]) -> None:
        self._messages = messages

    async def read(self) -> bytes | None:
        return next(self._messages, None)

    async def write(self, data: bytes) -> None:
        assert len(data) <= MAX_FRAME_BYTES

    async def finish(self) -> None:
        return

    async def abort(self) -> None:
        return


def handshake_with(data: bytes) -> bool:
    """Greet a peer that says anything; nobody proves anything without an answer to our nonce."""
    greeting = Handshake(
        identity=ME, directory=DIRECTORY, dialer=True, certificate=_PIN, expected=PEER.owner, clock=lambda: NOW
    )
    try:
        LOOP.run(greeting.run(Scripted(_messages(data)), deadline_s=5.0))
    except HandshakeError:
        return False
    raise AssertionError("a handshake was replayed")


def vary_frame(data: bytes, place: int, piece: bytes) -> bytes:
    return varied(pb.Frame, data, place, piece)


def _row_seeds() -> list[bytes]:
    values = np.random.default_rng(1).standard_normal((3, 70)).astype(np.float32)
    found = [bytes([0, 3, 0, 1]) + encode_rows(np.array([7, 0, 49_999]), codec=IDS)]
    for codec in (FP32, BF16, INT8):
        found.append(bytes([CODECS.index(codec), 3, 0, 70]) + encode_rows(values, codec=codec))
        found.append(bytes([CODECS.index(codec), 1, 0, 2]) + encode_rows(values[:1, :2], codec=codec))
    return found


def frame_seeds() -> list[bytes]:
    """Return a frame of each kind, every field filled."""
    found: list[bytes] = []
    for spec in pb.Frame.DESCRIPTOR.oneofs_by_name["body"].fields:
        frame = pb.Frame()
        filled(getattr(frame, spec.name))
        getattr(frame, spec.name).SetInParent()
        found.append(frame.SerializeToString())
    return found


def filled(message, depth: int = 0) -> None:  # noqa: ANN001 any message
    """Set every field of a message."""
    for spec in message.DESCRIPTOR.fields:
        if spec.message_type is not None:
            if depth < 6:
                inner = getattr(message, spec.name)
                filled(inner.add() if spec.is_repeated else inner, depth + 1)
            continue
        value = {"bytes": bytes(range(32)), "str": "127.0.0.1:9000", "bool": True, "int": 3}[_kind(spec)]
        if spec.is_repeated:
            getattr(message, spec.name).append(value)
        else:
            setattr(message, spec.name, value)


def _kind(spec) -> str:  # noqa: ANN001 any field
    return {spec.TYPE_BYTES: "bytes", spec.TYPE_STRING: "str", spec.TYPE_BOOL: "bool"}.get(spec.type, "int")


def _knock_seeds() -> list[bytes]:
    where = Destination(owner=PEER.owner, host="127.0.0.1", port=9_000, certificate=_PIN)
    knocks = [Knock.make(PEER, ME.owner, at=at, now=NOW) for at in (where, None)]
    return [knock.frame().SerializeToString() for knock in knocks]


def _hello_seeds() -> list[bytes]:
    nonce = pb.Nonce(version_min=1, version_max=1, nonce=bytes(32), node=PEER.owner, clock=int(NOW))
    hello = pb.Frame()
    filled(hello.hello)
    hello.hello.signature = bytes(63) + b"\1"
    hello.hello.message.node, hello.hello.message.peer = PEER.owner, ME.owner
    fault = pb.Frame(fault=pb.JobFault(fault=signed_pb2.Fault(code="busy", text="full")))
    return [
        _stream(pb.Frame(nonce=nonce).SerializeToString(), hello.SerializeToString()),
        _stream(pb.Frame(nonce=nonce).SerializeToString(), fault.SerializeToString()),
    ]


def targets() -> list[Target]:
    """Return the targets of the wire."""
    frames = frame_seeds()
    whole = pb.Frame(rows=pb.Rows(job=bytes(32), step=1, count=1, codec="ids", data=bytes(_PIECE)))
    small = pb.Frame(ping=pb.Ping(number=1)).SerializeToString()
    big = pb.Frame(part=pb.Part(data=bytes(60_000))).SerializeToString()
    streams = [
        _stream(*_cut(whole)),
        _stream(whole.SerializeToString(), *_cut(whole)),
        _stream(big, times=200) + _stream(*_cut(whole)),
        _stream(*list(parts_of(whole.SerializeToString()))),
        _stream(batch_of([small] * 3)),
        _stream(batch_of([small, batch_of([small] * 2)])),
        _stream(small, batch_of([small, *_cut(whole)]), *_cut(whole)),
    ]
    floats = [b"\x45" + seed[4:] for seed in _row_seeds()[1:2]] + [b"\1" + bytes(8), b"\0" + b"\0\0\xc0\x7f"]
    wide = 60 << 20  # a stream of parts is held up to the limit of a frame, twice while it becomes one
    return [
        Target(name="wire.rows", run=rows_from, seeds=fixed(_row_seeds()), share=100),
        Target(name="wire.floats", run=rows_to, seeds=fixed(floats), share=60),
        Target(name="wire.frame", run=frame_from, seeds=fixed(frames), share=90, vary=vary_frame),
        Target(name="wire.parts", run=joined, seeds=fixed(streams), share=50, peak=wide),
        Target(name="wire.knock", run=knock_from, seeds=fixed(_knock_seeds()), share=70, vary=vary_frame),
        Target(name="wire.handshake", run=handshake_with, seeds=fixed(_hello_seeds()), share=40),
    ]
