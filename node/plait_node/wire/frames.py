"""Bytes to frames: what is no frame never gets further than here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from google.protobuf.message import DecodeError

from plait.protocol.pb import stage_pb2 as pb
from plait_node.wire.errors import FrameTooLargeError, MalformedFrameError
from plait_node.wire.identity import MAX_FRAME_BYTES

PART_BYTES = 128 << 10
BATCH_FRAMES, BATCH_BYTES = 64, PART_BYTES  # of one batch at most
_WRAPPED = ("part", "batch")


def parse_frame(data: bytes) -> pb.Frame:
    """Return the frame in untrusted bytes; raise `MalformedFrameError`."""
    if len(data) > MAX_FRAME_BYTES:
        raise MalformedFrameError(f"a frame of {len(data)} bytes is above the limit of {MAX_FRAME_BYTES}")
    try:
        frame = pb.Frame.FromString(data)
    except DecodeError as error:
        raise MalformedFrameError("these bytes are no frame") from error
    if frame.WhichOneof("body") is None:
        raise MalformedFrameError("the frame is empty or of a kind this version does not know")
    return frame


def frame_bytes(frame: pb.Frame) -> bytes:
    """Return the frame's bytes; raise `FrameTooLargeError` above the limit."""
    data = frame.SerializeToString()
    if len(data) > MAX_FRAME_BYTES:
        raise FrameTooLargeError(len(data), MAX_FRAME_BYTES)
    return data


def parts_of(data: bytes) -> Iterator[bytes]:
    """Yield a frame's bytes as they are sent: one message, or several where that would keep a slow line busy."""
    if len(data) <= PART_BYTES:
        yield data
        return
    for at in range(0, len(data), PART_BYTES):
        part = pb.Part(data=data[at : at + PART_BYTES], last=at + PART_BYTES >= len(data))
        yield pb.Frame(part=part).SerializeToString()


def batch_of(frames: Sequence[bytes]) -> bytes:
    """Return the one message that carries some frames' bytes: at most `BATCH_FRAMES`, and `BATCH_BYTES` together."""
    return pb.Frame(batch=pb.Batch(frames=frames)).SerializeToString()


def messages_of(frames: Sequence[bytes]) -> Iterator[bytes]:
    """Yield what some frames travel in: one of them whole or in parts, several as a batch, which has no parts."""
    if len(frames) == 1:
        yield from parts_of(frames[0])
    else:
        yield batch_of(frames)


class Joiner:
    """Puts the parts of one peer's frames together again, and takes batches of them apart."""

    def __init__(self) -> None:
        self._joined = bytearray()

    def take(self, data: bytes) -> Sequence[tuple[pb.Frame, int]]:
        """Return the frames that are whole with this message, each with its size; raise `MalformedFrameError`."""
        frame = parse_frame(data)
        kind = frame.WhichOneof("body")
        if kind == "part":
            return self._join(frame.part)
        if self._joined:
            raise MalformedFrameError("another frame between the parts of one")
        return _apart(frame.batch) if kind == "batch" else ((frame, len(data)),)

    def _join(self, part: pb.Part) -> Sequence[tuple[pb.Frame, int]]:
        if not part.data or len(self._joined) + len(part.data) > MAX_FRAME_BYTES:
            raise MalformedFrameError(
                f"the parts of a frame are empty or above the limit of {MAX_FRAME_BYTES} together"
            )
        self._joined += part.data
        if not part.last:
            return ()
        whole = bytes(self._joined)
        self._joined.clear()
        frame = parse_frame(whole)
        if frame.WhichOneof("body") in _WRAPPED:
            raise MalformedFrameError("a frame in parts that is itself a part or a batch")
        return ((frame, len(whole)),)


def _apart(batch: pb.Batch) -> Sequence[tuple[pb.Frame, int]]:
    count, size = len(batch.frames), sum(map(len, batch.frames))
    if not 0 < count <= BATCH_FRAMES or size > BATCH_BYTES:
        raise MalformedFrameError(
            f"a batch of {count} frames and {size} bytes; it has 1 to {BATCH_FRAMES}, at most {BATCH_BYTES} bytes"
        )
    frames = [(parse_frame(data), len(data)) for data in batch.frames]
    if any(frame.WhichOneof("body") in _WRAPPED for frame, _ in frames):
        raise MalformedFrameError("a batch of parts or of batches")
    return frames
