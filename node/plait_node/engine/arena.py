"""Memory for weights on huge pages, one matrix behind the other in the order of their use.

A decode step reads every weight once. On 4 KiB pages the processor spends a third of that looking up where they lie
(19 against 29 GB/s on one core of a virtual Zen 4, bench/NOTES.md).
"""

from __future__ import annotations

import contextlib
import math
import mmap
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch

__all__ = ["Arena"]

_HUGE: Final = 2 << 20
_CHUNK: Final = 64 << 20
_LINE: Final = 64  # bytes of a cache line, where each tensor begins


class Arena:
    """Takes in tensors that live as long as the process, or as the last of their chunk."""

    def __init__(self) -> None:
        self._chunk = torch.empty(0, dtype=torch.uint8)

    def place(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a contiguous copy in huge pages where the system has them; tensors on other devices as they are."""
        if tensor.device.type != "cpu":
            return tensor.contiguous()
        return self.take(tensor.shape, tensor.dtype).copy_(tensor)

    def take(self, shape: Sequence[int], dtype: torch.dtype, *, device: torch.device | str = "cpu") -> torch.Tensor:
        """Return a tensor to be written: what is made straight in its place is in memory only once."""
        if torch.device(device).type != "cpu":
            return torch.empty(*shape, dtype=dtype, device=device)
        size = math.prod(shape) * dtype.itemsize
        if size > len(self._chunk):
            self._chunk = _reserved(max(_CHUNK, size))
        taken = self._chunk[:size].view(dtype).view(*shape)
        self._chunk = self._chunk[-(-size // _LINE) * _LINE :]
        return taken


def _reserved(size: int) -> torch.Tensor:
    """Return at least `size` bytes from a huge page's start; they take up memory as they are written."""
    # Private: shared memory gets no huge pages.
    area = mmap.mmap(-1, -(-size // _HUGE) * _HUGE + _HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    whole = torch.as_tensor(np.frombuffer(area, dtype=np.uint8))
    with contextlib.suppress(OSError, AttributeError):  # a system without huge pages still has memory
        area.madvise(mmap.MADV_HUGEPAGE)
    return whole[-whole.data_ptr() % _HUGE :]
