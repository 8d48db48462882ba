"""Load a range of blocks for a lane, every tensor checked against the manifest."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch

from plait.protocol.manifest import Manifest, Tensor
from plait_model.families import DecoderShape, find_family, shape_of
from plait_model.layers import BlockRange, range_tensors
from plait_model.source import WeightFile, open_weights
from plait_model.weights import check_tensors
from plait_node.engine.decoder_weights import load_decoder
from plait_node.engine.errors import DeviceError
from plait_node.engine.faces import Blocks
from plait_node.engine.lane import Lane
from plait_node.engine.lean import LeanBlocks
from plait_node.engine.native import NativeBlocks, find_compiler
from plait_node.engine.reference import ReferenceBlocks

__all__ = ["load_blocks"]

_KEPT_SHAPES: Final = 64
_KERNEL_COLUMNS: Final = 32  # compiled code reads int8 rows, and repacks others, in runs of so many columns


def load_blocks(
    weights: Path,
    manifest: Manifest,
    *,
    first: int,
    last: int,
    tensors: Sequence[Tensor] | None,
    lane: Lane,
) -> Blocks:
    """Return what runs blocks [first, last); raise `ModelError`, or `DeviceError` where the lane's device is not."""
    if lane.device == "cuda" and not torch.cuda.is_available():
        raise DeviceError('device = "cuda": torch sees no CUDA device here; install its CUDA build, or use "cpu"')
    _bound_caches()
    family = find_family(manifest.architecture)
    with open_weights(weights) as file:
        names = range_tensors(file, manifest, first=first, last=last)
        check_tensors(file, names, tensors=tensors, root=manifest.weights)
        if family is None:
            blocks: Blocks = ReferenceBlocks(BlockRange(file, manifest, first=first, last=last))
        else:
            blocks = _lean(file, manifest, first, last, lane)
    _give_back()
    return blocks


def _lean(file: WeightFile, manifest: Manifest, first: int, last: int, lane: Lane) -> Blocks:
    """Return the lean decoder: compiled where that is wanted and possible, else with weights packed for oneDNN."""
    on_cpu = lane.device == "cpu"
    shape = shape_of(manifest)
    compiled = on_cpu and lane.compiled and _fits_kernels(shape) and find_compiler() is not None
    packed = on_cpu and not compiled and lane.weights in ("fp32", "bf16")
    made = load_decoder(file, manifest, first=first, last=last, lane=lane, packed=packed)
    dtype = torch.float32 if lane.weights == "fp32" else torch.bfloat16
    lean = LeanBlocks(made, dtype=dtype, device=lane.device)
    if compiled:
        return NativeBlocks(lean, threads=max(1, lane.threads))
    if not on_cpu and lane.compiled:
        from plait_node.engine.cuda import CudaBlocks  # noqa: PLC0415 -- triton comes with CUDA builds of torch only

        return CudaBlocks(lean)
    return lean


def _fits_kernels(shape: DecoderShape) -> bool:
    """Tell whether the columns of every product are what compiled code takes."""
    return not any(cols % _KERNEL_COLUMNS for cols in (shape.hidden, shape.inner, shape.heads * shape.head_dim))


def _bound_caches() -> None:
    """Bound what oneDNN and torch keep for each shape of a product, unless the operator did.

    Both keep 1,024 shapes, and every number of rows makes four: 0.8 MB each, which looks like a leak. A shape that is
    not kept costs about 1 ms. They read this once, at their first product in the process.
    """
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, str(_KEPT_SHAPES))


def _give_back() -> None:
    """Let the C library return what loading left free: it would keep up to 1 GB of it (Gemma 3 270M in int8)."""
    with contextlib.suppress(OSError, AttributeError):  # a C library other than glibc has its own ways
        ctypes.CDLL(None).malloc_trim(0)
