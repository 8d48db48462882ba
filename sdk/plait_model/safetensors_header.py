"""Parse the header of a safetensors file; every length is checked before it is believed."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from plait_model.errors import MalformedFolderError, UnsupportedModelError

if TYPE_CHECKING:
    import mmap

__all__ = ["BYTES_OF", "StoredTensor", "read_header"]

_MAX_HEADER: Final = 100_000_000
_MAX_DIMS: Final = 8
_BYTES: Final = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2}
BYTES_OF: Final = _BYTES | {"I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """Where one tensor lies; `offset` counts from the start of its file, `file` is its place among the folder's."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int
    file: int


def read_header(data: mmap.mmap, *, label: str, file: int) -> list[StoredTensor]:
    """Return where the tensors of one file lie; `label` names it in errors.

    Raises:
        MalformedFolderError: truncated, inconsistent, or with tensors that overlap or lie outside the file.
        UnsupportedModelError: a storage type that safetensors does not have.
    """
    if len(data) < 8:
        raise MalformedFolderError(f"{label} ends inside its first 8 bytes; fetch it again")
    (length,) = struct.unpack("<Q", data[:8])
    if length > min(_MAX_HEADER, len(data) - 8):
        raise MalformedFolderError(f"{label} claims a header of {length} bytes, which it does not have; fetch it again")
    start = 8 + length
    found = [
        _tensor(name, entry, start=start, end=len(data), label=label, file=file)
        for name, entry in _entries(data[8:start], label).items()
        if name != "__metadata__"
    ]
    at = start
    for tensor in sorted(found, key=lambda tensor: (tensor.offset, tensor.size)):
        if tensor.offset != at:
            raise MalformedFolderError(f"{label}: {tensor.name} does not begin where the tensor before it ends")
        at += tensor.size
    if at != len(data):
        raise MalformedFolderError(f"{label} has {len(data) - at} bytes that belong to no tensor; fetch it again")
    return found


def _entries(raw: bytes, label: str) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            raise ValueError("a name is there twice")
        return made

    try:
        value = json.loads(raw, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise MalformedFolderError(f"the header of {label} is no JSON: {error}; fetch it again") from error
    if not isinstance(value, dict):
        raise MalformedFolderError(f"the header of {label} is no JSON object; fetch it again")
    return cast("dict[str, Any]", value)


def _tensor(name: str, entry: object, *, start: int, end: int, label: str, file: int) -> StoredTensor:
    value = cast("dict[str, Any]", entry) if isinstance(entry, dict) else {}
    shape, dtype = _counts(value.get("shape"), most=_MAX_DIMS), value.get("dtype")
    offsets = _counts(value.get("data_offsets"), most=2)
    if shape is None or offsets is None or len(offsets) != 2 or not isinstance(dtype, str):
        raise MalformedFolderError(f"{label}: tensor {name} lacks a type, a shape or its place; fetch it again")
    if dtype not in BYTES_OF:
        raise UnsupportedModelError(f"{label}: tensor {name} is stored as {dtype}; convert it to F32, F16 or BF16")
    first, last = offsets
    if not first <= last <= end - start:
        raise MalformedFolderError(f"{label}: tensor {name} lies outside the file; fetch it again")
    if last - first != math.prod(shape) * BYTES_OF[dtype]:
        raise MalformedFolderError(f"{label}: tensor {name} of shape {shape} does not have {last - first} bytes")
    return StoredTensor(name=name, dtype=dtype, shape=shape, offset=start + first, size=last - first, file=file)


def _counts(value: object, *, most: int) -> tuple[int, ...] | None:
    """Return a list of at most so many whole numbers from 0 up; none for anything else."""
    if not isinstance(value, list):
        return None
    items = cast("list[object]", value)
    if len(items) > most or not all(type(item) is int and 0 <= item < 2**63 for item in items):
        return None
    return tuple(cast("list[int]", items))
