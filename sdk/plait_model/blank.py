"""Lay out a file of weights of which nothing is there yet: a head of our own, and a place for each tensor.

A node that fetches some of a model's tensors writes them into such a file, and leaves the others' places empty. Its
head is made of the list that the manifest commits to, so nothing in it is a stranger's word.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from plait.protocol.manifest import Tensor
from plait_model.errors import UnsupportedModelError
from plait_model.safetensors_header import BYTES_OF

__all__ = ["Blank", "blank", "block_of", "needed"]

_ALIGNMENT: Final = 32  # GGUF's own where a file names none
_MOST_BYTES: Final = 1 << 43  # 8 TiB: above it a list is a mistake or an attack
_EMBEDDINGS: Final = ("token_embd.weight", "model.embed_tokens.weight")
_HEADS: Final = ("output.weight", "lm_head.weight")
_BLOCKS: Final = ("blk.", "model.layers.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Blank:
    """The file's kind, its first bytes, where each tensor lies in it (offset and size in bytes), and how long it is."""

    kind: Literal[".gguf", ".safetensors"]
    head: bytes
    places: Mapping[str, tuple[int, int]]
    size: int


def blank(tensors: Sequence[Tensor]) -> Blank:
    """Return the layout of a file of these tensors, GGUF where their names are llama.cpp's, else safetensors.

    Raises:
        UnsupportedModelError: a storage type or shape that is not known, or more bytes than a file may have.
    """
    for tensor in tensors:
        if not all(0 <= length < _MOST_BYTES for length in tensor.shape):
            raise UnsupportedModelError(f"tensor {tensor.name} has the shape {tensor.shape}, which no file can have")
    gguf = not any(tensor.name.startswith("model.") for tensor in tensors)
    sizes = [(_gguf_size if gguf else _safetensors_size)(tensor) for tensor in tensors]
    if sum(sizes) > _MOST_BYTES:
        raise UnsupportedModelError(f"the tensors of this model have {sum(sizes)} bytes, above {_MOST_BYTES}")
    return _gguf(tensors, sizes) if gguf else _safetensors(tensors, sizes)


def block_of(name: str) -> int | None:
    """Return the block that a tensor belongs to; none for those outside of all blocks."""
    for prefix in _BLOCKS:
        number = name.removeprefix(prefix).partition(".")[0]
        if name.startswith(prefix) and number.isascii() and number.isdigit():
            return int(number)
    return None


def needed(tensors: Sequence[Tensor], *, first: int, last: int, blocks: int) -> list[Tensor]:
    """Return the tensors that blocks first to last - 1 of `blocks` need, the outer ones of the ends among them."""
    tied = not any(tensor.name in _HEADS for tensor in tensors)

    def wanted(tensor: Tensor) -> bool:
        block = block_of(tensor.name)
        if block is not None:
            return first <= block < last
        if tensor.name in _EMBEDDINGS:
            return first == 0 or (last == blocks and tied)
        return last == blocks

    return [tensor for tensor in tensors if wanted(tensor)]


def _gguf(tensors: Sequence[Tensor], sizes: Sequence[int]) -> Blank:
    head = bytearray(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), 1))
    head += _text("general.alignment") + struct.pack("<II", 4, _ALIGNMENT)
    offsets, at = list[int](), 0
    for tensor, size in zip(tensors, sizes, strict=True):
        offsets.append(at)
        head += _text(tensor.name) + struct.pack("<I", len(tensor.shape))
        head += b"".join(struct.pack("<Q", length) for length in reversed(tensor.shape))
        head += struct.pack("<IQ", GGMLQuantizationType[tensor.dtype], at)
        at += -(-size // _ALIGNMENT) * _ALIGNMENT
    head += bytes(-len(head) % _ALIGNMENT)
    return _laid(".gguf", bytes(head), tensors, offsets, sizes, length=at)


def _safetensors(tensors: Sequence[Tensor], sizes: Sequence[int]) -> Blank:
    offsets = [sum(sizes[:number]) for number in range(len(sizes))]
    entries = {
        tensor.name: {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [at, at + size]}
        for tensor, at, size in zip(tensors, offsets, sizes, strict=True)
    }
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return _laid(".safetensors", struct.pack("<Q", len(text)) + text, tensors, offsets, sizes, length=sum(sizes))


def _laid(
    kind: Literal[".gguf", ".safetensors"],
    head: bytes,
    tensors: Sequence[Tensor],
    offsets: Sequence[int],
    sizes: Sequence[int],
    *,
    length: int,
) -> Blank:
    places = {tensor.name: (len(head) + at, size) for tensor, at, size in zip(tensors, offsets, sizes, strict=True)}
    return Blank(kind=kind, head=head, places=places, size=len(head) + length)


def _gguf_size(tensor: Tensor) -> int:
    kind = GGMLQuantizationType.__members__.get(tensor.dtype)
    if kind is None or not tensor.shape:
        raise UnsupportedModelError(f"tensor {tensor.name} is stored as {tensor.dtype}, not known to this gguf package")
    block, block_bytes = GGML_QUANT_SIZES[kind]
    if tensor.shape[-1] % block:
        raise UnsupportedModelError(f"tensor {tensor.name} of shape {tensor.shape} has no whole blocks of {block}")
    return math.prod(tensor.shape) // block * block_bytes


def _safetensors_size(tensor: Tensor) -> int:
    if tensor.dtype not in BYTES_OF:
        raise UnsupportedModelError(f"tensor {tensor.name} is stored as {tensor.dtype}, unknown to safetensors")
    return math.prod(tensor.shape) * BYTES_OF[tensor.dtype]


def _text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw
