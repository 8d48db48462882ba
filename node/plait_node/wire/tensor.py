"""Rows as bytes and back: two codecs, no shapes but (rows, width), nothing executed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from plait_node.wire.errors import TensorError

Rows = NDArray[np.int64] | NDArray[np.float32]

IDS = "ids"  # 4-byte big-endian token ids, shape (rows,)
FP32 = "fp32"  # little-endian IEEE 754 single precision, shape (rows, width)
CODECS = (IDS, FP32)
ID_BYTES = 4


def row_bytes(codec: str, width: int) -> int:
    """Return how many bytes one encoded row has; raise `TensorError` for an unknown codec."""
    if codec == IDS:
        return ID_BYTES
    if codec == FP32:
        return 4 * width
    raise TensorError(f"rows come in one of {', '.join(CODECS)}, not in {codec[:32]!r}")


def encode_rows(rows: NDArray[Any], *, codec: str) -> bytes:
    """Return the rows' bytes back to back; raise `TensorError` when the shape does not fit the codec."""
    if codec == IDS:
        if rows.ndim != 1 or rows.size == 0 or rows.min() < 0 or rows.max() >= 1 << 32:
            raise TensorError("token ids are a non-empty vector of whole numbers below 2^32")
        return rows.astype(">u4").tobytes()
    if codec != FP32 or rows.ndim != 2 or rows.size == 0:
        raise TensorError("hidden rows are a non-empty matrix in codec fp32")
    return np.ascontiguousarray(rows, dtype="<f4").tobytes()


def decode_rows(data: bytes, *, codec: str, count: int, width: int, limit: int) -> Rows:
    """Return (count,) ids below `limit` or (count, width) finite floats; raise `TensorError` for anything else."""
    if count < 1 or len(data) != count * row_bytes(codec, width):
        raise TensorError(f"{len(data)} bytes are not {count} rows of codec {codec[:32]!r} and width {width}")
    if codec == IDS:
        ids = np.frombuffer(data, dtype=">u4").astype(np.int64)
        if int(ids.max()) >= limit:
            raise TensorError(f"a token id is {int(ids.max())}, the vocabulary ends at {limit}")
        return ids
    # A copy: the bytes of a message are read-only, and whoever computes on rows may want to write.
    rows = np.frombuffer(data, dtype="<f4").astype(np.float32).reshape(count, width)
    if not np.isfinite(rows).all():
        raise TensorError("rows carry a NaN or an infinity")
    return rows
