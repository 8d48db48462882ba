"""Computed rows as frames for the next stage."""

from __future__ import annotations

from collections.abc import Iterator

from plait.protocol.ids import Hash
from plait.protocol.pb import stage_pb2 as pb
from plait_node.stage.compute import StepDone
from plait_node.stage.kept import KeptRows
from plait_node.wire.identity import MAX_FRAME_BYTES

__all__ = ["again_frames", "rows_frames"]

_FRAME_HEAD = 1_024  # bytes of a frame beside its rows, generously


def rows_frames(job: Hash, done: StepDone, *, step_rows: int) -> Iterator[pb.Frame]:
    """Yield frames of at most `step_rows` rows; speculative rows stay in one."""
    width = len(done.data) // done.count
    most = min(step_rows, (MAX_FRAME_BYTES - _FRAME_HEAD) // width)
    rows = done.count if done.speculative else most
    for at in range(0, done.count, rows):
        data = done.data[at * width : (at + rows) * width]
        yield pb.Frame(
            rows=pb.Rows(
                job=job,
                step=done.step + at,
                count=len(data) // width,
                codec=done.codec,
                data=data,
                speculative=done.speculative,
            )
        )


def again_frames(job: Hash, kept: KeptRows, first: int, last: int, *, most: int) -> Iterator[pb.Frame]:
    """Yield the kept rows of steps first to last - 1, the bytes that were sent, in frames of at most `most` rows."""
    for begin, end in kept.codecs.pieces(first, last):
        width, codec, data = kept.codecs.width(begin), kept.codecs.between(begin), kept.rows(begin, end) or b""
        size = width * min(most, (MAX_FRAME_BYTES - _FRAME_HEAD) // width)
        for at in range(0, len(data), size):
            part = data[at : at + size]
            rows = pb.Rows(job=job, step=begin + at // width, count=len(part) // width, codec=codec, data=part)
            yield pb.Frame(rows=rows)
