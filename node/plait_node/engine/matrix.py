"""Weight matrices in the forms that a lane may hold them in, each with its product."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Final, Protocol

import torch
from torch.nn import functional

from plait_node.engine.arena import Arena

__all__ = ["GROUP", "Int4", "Int8", "Matrix", "NativeMatrix", "Packed", "Plain", "quantised"]

GROUP: Final = 32  # weights that share a scale and a least value in int4
_KINDS: Final = {torch.float32: 0, torch.bfloat16: 1}
_INT8, _INT4 = 2, 3
_SLAB_ROWS: Final = 4_096  # rounded at once: an embedding's fp32 copy would be the largest thing in memory


class NativeMatrix(ctypes.Structure):
    """`plait::Matrix` of native/kernels.h."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("scale", ctypes.c_void_p),
        ("group_scale", ctypes.c_void_p),
        ("group_least", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("rows", ctypes.c_int32),
        ("cols", ctypes.c_int32),
        ("kind", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
    )


class Matrix(Protocol):
    """A weight matrix (rows, cols) and perhaps a bias (rows,)."""

    @property
    def rows(self) -> int:
        """Return the number of outputs."""
        ...

    def linear(self, given: torch.Tensor) -> torch.Tensor:
        """Return (n, rows) for (n, cols), in the type that came in."""
        ...

    def take(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the fp32 rows of some ids, (n, cols): what an embedding does."""
        ...


@dataclass(frozen=True, slots=True)
class Plain:
    """Weights as they are, fp32 or bf16, row by row."""

    weight: torch.Tensor
    bias: torch.Tensor | None = None

    @property
    def rows(self) -> int:
        """Return the number of outputs."""
        return self.weight.shape[0]

    def linear(self, given: torch.Tensor) -> torch.Tensor:
        """Return (n, rows) for (n, cols)."""
        bias = None if self.bias is None else self.bias.to(given.dtype)
        return functional.linear(given, self.weight, bias)

    def take(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the fp32 rows of some ids."""
        return functional.embedding(ids, self.weight).float()

    def native(self) -> NativeMatrix:
        """Describe this matrix to compiled code, which reads it where it lies."""
        rows, cols = self.weight.shape
        return NativeMatrix(
            data=self.weight.data_ptr(),
            bias=None if self.bias is None else self.bias.data_ptr(),
            rows=rows,
            cols=cols,
            kind=_KINDS[self.weight.dtype],
        )


class Packed:
    """Weights reordered once for oneDNN's kernels, which else do so in every call; torch keeps the operators private.

    What decodes where there is no compiler (`decode_vs_generate` of bench/results/engine.json).
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self.rows = weight.shape[0]
        self._bias = None if bias is None else bias.to(weight.dtype)
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight)  # noqa: SLF001 -- see the class

    def linear(self, given: torch.Tensor) -> torch.Tensor:
        """Return (n, rows) for (n, cols)."""
        return torch.ops.mkldnn._linear_pointwise(given, self._weight, self._bias, "none", [], "")  # noqa: SLF001 -- see the class

    def take(self, ids: torch.Tensor) -> torch.Tensor:
        """Raise: rows cannot be read out of oneDNN's order."""
        del ids
        raise TypeError("an embedding is never packed")


@dataclass(frozen=True, slots=True)
class Int8:
    """Weights rounded to int8 with one scale a row."""

    weight: torch.Tensor  # (rows, cols) int8
    scale: torch.Tensor  # (rows,) fp32
    bias: torch.Tensor | None = None

    @classmethod
    def of(cls, weight: torch.Tensor, bias: torch.Tensor | None, arena: Arena) -> Int8:
        """Round a matrix; the scale makes each row's largest weight 127."""
        rounded = arena.take(weight.shape, torch.int8, device=weight.device)
        scale = torch.empty(len(weight), device=weight.device)
        for first in range(0, len(weight), _SLAB_ROWS):
            rows = slice(first, first + _SLAB_ROWS)
            slab = weight[rows].float()
            scale[rows] = slab.abs().amax(dim=1).clamp(min=1e-30) / 127
            rounded[rows] = (slab / scale[rows, None]).round_()
        return cls(rounded, scale, bias)

    @property
    def rows(self) -> int:
        """Return the number of outputs."""
        return self.weight.shape[0]

    def linear(self, given: torch.Tensor) -> torch.Tensor:
        """Return (n, rows) for (n, cols); int8 is exact in bf16, the scales come after the product."""
        made = functional.linear(given, self.weight.to(given.dtype)) * self.scale.to(given.dtype)
        return made if self.bias is None else made + self.bias.to(given.dtype)

    def take(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the fp32 rows of some ids."""
        return self.weight[ids].float() * self.scale[ids, None]

    def native(self) -> NativeMatrix:
        """Describe this matrix to compiled code."""
        rows, cols = self.weight.shape
        return NativeMatrix(
            data=self.weight.data_ptr(),
            scale=self.scale.data_ptr(),
            bias=None if self.bias is None else self.bias.data_ptr(),
            rows=rows,
            cols=cols,
            kind=_INT8,
        )


@dataclass(frozen=True, slots=True)
class Int4:
    """Weights rounded to 16 levels between the least and the greatest of each group of 32."""

    weight: torch.Tensor  # (rows, cols / 2) uint8: of two neighbouring groups, the first lies in the low nibbles
    scale: torch.Tensor  # (rows, cols / 32) fp16
    least: torch.Tensor  # (rows, cols / 32) fp16
    bias: torch.Tensor | None = None

    @classmethod
    def of(cls, weight: torch.Tensor, bias: torch.Tensor | None, arena: Arena) -> Int4:
        """Round a matrix whose columns are a multiple of 64."""
        rows, cols = weight.shape
        groups = weight.float().reshape(rows, cols // GROUP, GROUP)
        least = groups.amin(dim=2).half()
        scale = ((groups.amax(dim=2) - least.float()) / 15).clamp(min=6e-8).half()
        levels = ((groups - least.float()[..., None]) / scale.float()[..., None]).round().clamp(0, 15).to(torch.uint8)
        pairs = levels.reshape(rows, cols // (2 * GROUP), 2, GROUP)
        packed = pairs[:, :, 0] | (pairs[:, :, 1] << 4)
        return cls(arena.place(packed.reshape(rows, cols // 2)), arena.place(scale), arena.place(least), bias)

    @property
    def rows(self) -> int:
        """Return the number of outputs."""
        return self.weight.shape[0]

    def linear(self, given: torch.Tensor) -> torch.Tensor:
        """Return (n, rows) for (n, cols)."""
        made = functional.linear(given, _unpacked(self.weight, self.scale, self.least).to(given.dtype))
        return made if self.bias is None else made + self.bias.to(given.dtype)

    def take(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the fp32 rows of some ids."""
        return _unpacked(self.weight[ids], self.scale[ids], self.least[ids])

    def native(self) -> NativeMatrix:
        """Describe this matrix to compiled code."""
        rows, half = self.weight.shape
        return NativeMatrix(
            data=self.weight.data_ptr(),
            group_scale=self.scale.data_ptr(),
            group_least=self.least.data_ptr(),
            bias=None if self.bias is None else self.bias.data_ptr(),
            rows=rows,
            cols=2 * half,
            kind=_INT4,
        )


def quantised(weight: torch.Tensor, bias: torch.Tensor | None, arena: Arena, *, bits: int) -> Int8 | Int4:
    """Return a matrix in 8 or, where its columns allow it, 4 bits a weight."""
    if bits == 4 and weight.shape[1] % (2 * GROUP) == 0:
        return Int4.of(weight, bias, arena)
    return Int8.of(weight, bias, arena)


def _unpacked(weight: torch.Tensor, scale: torch.Tensor, least: torch.Tensor) -> torch.Tensor:
    """Return `Int4`'s weights in fp32."""
    rows, half = weight.shape
    pairs = weight.reshape(rows, half // GROUP, 1, GROUP)
    levels = torch.cat((pairs & 15, pairs >> 4), dim=2).reshape(rows, 2 * half // GROUP, GROUP)
    return (levels * scale.float()[..., None] + least.float()[..., None]).reshape(rows, 2 * half)
