"""Rows as bytes and back: four codecs, no shapes but (rows, width), nothing executed.

Every codec has one encoding per value and its decoder takes no other bytes, so that rows decoded and encoded again are
the same bytes, and so is their hash. Each row is encoded by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plait_node.wire.errors import TensorError

Rows = NDArray[np.int64] | NDArray[np.float32]

IDS = "ids"  # 4-byte big-endian token ids, shape (rows,)
FP32 = "fp32"  # little-endian IEEE 754 single precision, shape (rows, width)
BF16 = "bf16"  # little-endian upper half of fp32, rounded to nearest, ties to even
INT8 = "int8"  # per row: a bf16 scale per block of 64 values, then one signed byte per value
CODECS = (IDS, FP32, BF16, INT8)
ID_BYTES = 4
INT8_BLOCK = 64  # values; the last block of a row may be shorter
INT8_BEST = 127  # the magnitude that some value of every block but one of zeros has
_SMALLEST_SCALE = np.float32(2.0**-126)  # below it bf16 has fewer than 8 bits: such a block is zeros
_LARGEST_SCALE = np.float32(2.0**120 * 2.015625)  # the last bf16 value of which 127 times is finite in fp32


def row_bytes(codec: str, width: int) -> int:
    """Return how many bytes one encoded row has; raise `TensorError` for an unknown codec."""
    match codec:
        case "ids":
            return ID_BYTES
        case "fp32":
            return 4 * width
        case "bf16":
            return 2 * width
        case "int8":
            return 2 * _blocks(width) + width
        case _:
            raise TensorError(f"rows come in one of {', '.join(CODECS)}, not in {codec[:32]!r}")


def encode_rows(rows: NDArray[Any], *, codec: str) -> bytes:
    """Return the rows' bytes back to back; raise `TensorError` when shape or values do not fit the codec."""
    if codec == IDS:
        if rows.ndim != 1 or rows.size == 0 or rows.min() < 0 or rows.max() >= 1 << 32:
            raise TensorError("token ids are a non-empty vector of whole numbers below 2^32")
        return rows.astype(">u4").tobytes()
    if codec not in _ENCODERS or rows.ndim != 2 or rows.size == 0:
        raise TensorError(f"hidden rows are a non-empty matrix in codec {', '.join(_ENCODERS)}")
    return _ENCODERS[codec](np.ascontiguousarray(rows, dtype="<f4"))


def decode_rows(data: bytes, *, codec: str, count: int, width: int, limit: int) -> Rows:
    """Return (count,) ids below `limit` or (count, width) finite floats; raise `TensorError` for anything else."""
    if count < 1 or width < 1 or len(data) != count * row_bytes(codec, width):
        raise TensorError(f"{len(data)} bytes are not {count} rows of codec {codec[:32]!r} and width {width}")
    if codec == IDS:
        ids = np.frombuffer(data, dtype=">u4").astype(np.int64)
        if int(ids.max()) >= limit:
            raise TensorError(f"a token id is {int(ids.max())}, the vocabulary ends at {limit}")
        return ids
    rows = _DECODERS[codec](data, count, width)
    if not np.isfinite(rows).all():
        raise TensorError("rows carry a NaN or an infinity")
    return rows


def _encode_fp32(rows: NDArray[np.float32]) -> bytes:
    return rows.tobytes()


def _decode_fp32(data: bytes, count: int, width: int) -> NDArray[np.float32]:
    # A copy: the bytes of a message are read-only, and whoever computes on rows may want to write.
    return np.frombuffer(data, dtype="<f4").astype(np.float32).reshape(count, width)


def _encode_bf16(rows: NDArray[np.float32]) -> bytes:
    halves = _upper_halves(rows)
    if not np.isfinite(_widened(halves)).all():
        raise TensorError("rows carry a NaN, an infinity or a value beyond bf16; send them in fp32")
    return halves.tobytes()


def _decode_bf16(data: bytes, count: int, width: int) -> NDArray[np.float32]:
    return _widened(np.frombuffer(data, dtype="<u2")).reshape(count, width)


def _encode_int8(rows: NDArray[np.float32]) -> bytes:
    """Write a row as its scales, then its values, value = round(x / scale), so that each block reaches 127.

    A scale has 8 significant bits: 127 scales are exact in fp32, and dividing them by 127 gives the scale again.
    """
    if not np.isfinite(rows).all():
        raise TensorError("rows carry a NaN or an infinity; they cannot be scaled to int8")
    blocks = _in_blocks(rows)
    scales = _scales(np.abs(blocks).max(axis=2))
    divisors = np.where(scales > 0, scales, np.float32(np.inf))
    values = np.clip(np.rint(blocks / divisors[:, :, None]), -INT8_BEST, INT8_BEST).astype(np.int8)
    flat = values.reshape(len(rows), -1)[:, : rows.shape[1]]
    heads = _upper_halves(scales).view(np.uint8).reshape(len(rows), -1)
    return np.concatenate([heads, flat.view(np.uint8)], axis=1).tobytes()


def _decode_int8(data: bytes, count: int, width: int) -> NDArray[np.float32]:
    bytes_ = np.frombuffer(data, dtype=np.uint8).reshape(count, -1)
    head = 2 * _blocks(width)
    scales = _widened(np.ascontiguousarray(bytes_[:, :head]).view("<u2"))
    values = _in_blocks(np.ascontiguousarray(bytes_[:, head:]).view(np.int8).astype(np.float32))
    largest = np.abs(values).max(axis=2)
    # Written so that a NaN fails: it compares as false.
    scaled = (scales >= _SMALLEST_SCALE) & (scales <= _LARGEST_SCALE) & (largest == INT8_BEST)
    empty = (scales == 0) & ~np.signbit(scales) & (largest == 0)
    if not (scaled | empty).all():
        raise TensorError("an int8 block's scale is out of range or its largest value is not 127; nobody encodes so")
    return (values * scales[:, :, None]).reshape(count, -1)[:, :width].copy()


def _scales(largest: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the bf16 value nearest to a 127th of each block's largest magnitude, 0 for a block of zeros."""
    nearest = _widened(_upper_halves(largest / np.float32(INT8_BEST)))
    return np.where(nearest < _SMALLEST_SCALE, np.float32(0), np.minimum(nearest, _LARGEST_SCALE))


def _upper_halves(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return fp32 as bf16's bits, rounded to nearest, ties to even; values too large become an infinity."""
    bits = np.ascontiguousarray(values, dtype="<f4").view("<u4")
    rounded = (bits.astype(np.uint64) + 0x7FFF + (bits >> 16 & 1)) >> 16
    # A NaN whose bits carried over would read as a number.
    return np.where(np.isnan(values), 0x7FC0, rounded).astype("<u2")


def _widened(halves: NDArray[np.uint16]) -> NDArray[np.float32]:
    return (halves.astype("<u4") << 16).view("<f4").astype(np.float32)


def _blocks(width: int) -> int:
    return -(-width // INT8_BLOCK)


def _in_blocks(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (rows, blocks, 64), the last block filled up with zeros."""
    count, width = rows.shape
    blocks = _blocks(width)
    if width < blocks * INT8_BLOCK:
        rows = np.pad(rows, ((0, 0), (0, blocks * INT8_BLOCK - width)))
    return rows.reshape(count, blocks, INT8_BLOCK)


_ENCODERS: dict[str, Callable[[NDArray[np.float32]], bytes]] = {
    FP32: _encode_fp32,
    BF16: _encode_bf16,
    INT8: _encode_int8,
}
_DECODERS: dict[str, Callable[[bytes, int, int], NDArray[np.float32]]] = {
    FP32: _decode_fp32,
    BF16: _decode_bf16,
    INT8: _decode_int8,
}
