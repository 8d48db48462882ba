"""Bytes to frames: what is no frame never gets further than here."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.message import DecodeError

from plait.protocol.pb import stage_pb2 as pb
from plait_node.wire.errors import FrameTooLargeError, MalformedFrameError
from plait_node.wire.identity import MAX_FRAME_BYTES

PART_BYTES = 128 << 10


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


class Joiner:
    """Puts the parts of one peer's frames together again."""

    def __init__(self) -> None:
        self._joined = bytearray()

    def take(self, data: bytes) -> tuple[pb.Frame, int] | None:
        """Return a whole frame and its size, None while parts of it are missing; raise `MalformedFrameError`."""
        frame = parse_frame(data)
        if frame.WhichOneof("body") != "part":
            if self._joined:
                raise MalformedFrameError("another frame between the parts of one")
            return frame, len(data)
        part = frame.part
        if not part.data or len(self._joined) + len(part.data) > MAX_FRAME_BYTES:
            raise MalformedFrameError(
                f"the parts of a frame are empty or above the limit of {MAX_FRAME_BYTES} together"
            )
        self._joined += part.data
        if not part.last:
            return None
        whole = bytes(self._joined)
        self._joined.clear()
        frame = parse_frame(whole)
        if frame.WhichOneof("body") == "part":
            raise MalformedFrameError("a part of parts")
        return frame, len(whole)
