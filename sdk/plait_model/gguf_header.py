"""Parse the header of a GGUF file; every length is checked before it is believed."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from plait_model.errors import MalformedGgufError, UnsupportedModelError

if TYPE_CHECKING:
    import mmap
    from collections.abc import Mapping

__all__ = ["Array", "GgufTensor", "Header", "Scalar", "read_array", "read_header"]

Scalar = bool | int | float | str

_MAGIC: Final = b"GGUF"
_VERSIONS: Final = (2, 3)
_SCALARS: Final = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING: Final = 8
_ARRAY: Final = 9
_MAX_ENTRIES: Final = 100_000
_MAX_ARRAY: Final = 4_000_000
_MAX_DIMS: Final = 4
_DEFAULT_ALIGNMENT: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufTensor:
    """Where one tensor lies; `shape` is outermost dimension first, `offset` counts from the start of the file."""

    name: str
    kind: GGMLQuantizationType
    shape: tuple[int, ...]
    offset: int
    size: int

    @property
    def dtype(self) -> str:
        """Return the storage type as GGUF names it, such as `Q4_1`."""
        return self.kind.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Array:
    """An array that was stepped over: its element kind, its length and where its first element lies."""

    kind: int
    count: int
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """All that a GGUF file says about itself."""

    metadata: Mapping[str, Scalar | Array]
    tensors: Mapping[str, GgufTensor]


@dataclass(slots=True)
class _Cursor:
    data: mmap.mmap
    at: int = 0

    def take(self, size: int) -> bytes:
        end = self.at + size
        if end > len(self.data):
            raise MalformedGgufError(f"the file ends at byte {len(self.data)}, inside a value; fetch it again")
        piece = self.data[self.at : end]
        self.at = end
        return piece

    def number(self, form: str) -> bool | int | float:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def count(self, form: str, limit: int, what: str) -> int:
        value = int(self.number(form))
        if value > limit:
            raise MalformedGgufError(f"the file claims {value} {what}, above {limit}; it is damaged or hostile")
        return value

    def string(self) -> str:
        raw = self.take(self.count("<Q", len(self.data), "bytes in a string"))
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise MalformedGgufError("a string in the file is not UTF-8; fetch it again") from error

    def value(self, kind: int) -> Scalar | Array:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self.array()
        if kind not in _SCALARS:
            raise MalformedGgufError(f"value type {kind} does not exist in GGUF; fetch the file again")
        return self.number(_SCALARS[kind])

    def array(self) -> Array:
        kind = int(self.number("<I"))
        count = self.count("<Q", _MAX_ARRAY, "elements in an array")
        found = Array(kind=kind, count=count, offset=self.at)
        if kind in _SCALARS:
            self.take(struct.calcsize(_SCALARS[kind]) * count)
        elif kind == _STRING:
            for _ in range(count):
                self.take(self.count("<Q", len(self.data), "bytes in a string"))
        else:
            raise UnsupportedModelError(f"an array of value type {kind} is not supported; convert the model anew")
        return found


def read_header(data: mmap.mmap) -> Header:
    """Return metadata and tensor places.

    Raises:
        MalformedGgufError: truncated, inconsistent, or with a tensor outside the file.
        UnsupportedModelError: a GGUF version or tensor type that is not known.
    """
    cursor = _Cursor(data)
    if cursor.take(4) != _MAGIC:
        raise MalformedGgufError("the file does not begin with GGUF; give a .gguf file")
    version = int(cursor.number("<I"))
    if version not in _VERSIONS:
        raise UnsupportedModelError(f"GGUF version {version} is not among {_VERSIONS}; convert the model anew")
    tensors = cursor.count("<Q", _MAX_ENTRIES, "tensors")
    entries = cursor.count("<Q", _MAX_ENTRIES, "metadata entries")
    metadata: dict[str, Scalar | Array] = {}
    for _ in range(entries):
        key = cursor.string()
        metadata[key] = cursor.value(int(cursor.number("<I")))
    places = [_place(cursor) for _ in range(tensors)]
    start = _data_start(cursor.at, metadata)
    found = {name: _tensor(name, kind, shape, start + offset, len(data)) for name, kind, shape, offset in places}
    if len(found) != len(places):
        raise MalformedGgufError("two tensors share a name; fetch the file again")
    return Header(metadata=metadata, tensors=found)


def read_array(data: mmap.mmap, array: Array) -> list[Scalar]:
    """Return the elements of an array that `read_header` stepped over."""
    cursor = _Cursor(data, array.offset)
    if array.kind == _STRING:
        return [cursor.string() for _ in range(array.count)]
    form = _SCALARS[array.kind]
    raw = cursor.take(struct.calcsize(form) * array.count)
    return [element for (element,) in struct.iter_unpack(form, raw)]


def _place(cursor: _Cursor) -> tuple[str, int, tuple[int, ...], int]:
    name = cursor.string()
    dims = cursor.count("<I", _MAX_DIMS, "dimensions")
    shape = tuple(int(cursor.number("<Q")) for _ in range(dims))[::-1]
    return name, int(cursor.number("<I")), shape, int(cursor.number("<Q"))


def _data_start(end: int, metadata: Mapping[str, Scalar | Array]) -> int:
    alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise MalformedGgufError(f"alignment {alignment!r} is not a power of two; fetch the file again")
    return (end + alignment - 1) // alignment * alignment


def _tensor(name: str, kind: int, shape: tuple[int, ...], offset: int, file_size: int) -> GgufTensor:
    try:
        known = GGMLQuantizationType(kind)
    except ValueError as error:
        raise UnsupportedModelError(f"tensor {name} has storage type {kind}, not known to this gguf package") from error
    block, block_bytes = GGML_QUANT_SIZES[known]
    elements = math.prod(shape)
    if not shape or elements == 0 or shape[-1] % block:
        raise MalformedGgufError(f"tensor {name} of shape {shape} does not divide into blocks of {block}")
    size = elements // block * block_bytes
    if offset + size > file_size:
        raise MalformedGgufError(f"tensor {name} ends at byte {offset + size} of {file_size}; fetch the file again")
    return GgufTensor(name=name, kind=known, shape=shape, offset=offset, size=size)
