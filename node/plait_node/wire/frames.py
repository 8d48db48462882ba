"""Bytes to frames: what is no frame never gets further than here."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from plait.protocol.pb import stage_pb2 as pb
from plait_node.wire.errors import FrameTooLargeError, MalformedFrameError
from plait_node.wire.identity import MAX_FRAME_BYTES


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
