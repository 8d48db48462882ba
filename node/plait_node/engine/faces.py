"""What goes into a step and what comes out, and what runs a range of blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from plait.protocol.ids import Hash

if TYPE_CHECKING:
    import torch

    from plait_node.engine.room import JobCache, KvShape

__all__ = ["Blocks", "Rows", "Span", "StepInput", "StepOutput"]

Rows = NDArray[np.int64] | NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepInput:
    """Rows of steps start, start + 1, ... of one job: ids of shape (n,) on the first stage, else fp32 (n, hidden).

    `logits` says of how many of the last rows the logits are wanted; it counts on the last stage only. With `best`
    only the id of the greatest is given back, the lower one of equals: what temperature 0 draws, without moving
    vocabulary-sized rows off the device.
    """

    job: Hash
    start: int
    rows: Rows
    logits: int = 0
    best: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOutput:
    """One fp32 row per row that went in, (n, hidden), and what was asked for of the last of them.

    `logits` is (asked, vocabulary), `best` (asked,) ids; at most one of them is given.
    """

    rows: NDArray[np.float32]
    logits: NDArray[np.float32] | None
    best: NDArray[np.int64] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Rows of one job within a batch: steps start to start + count - 1, kept in `cache`."""

    cache: JobCache
    start: int
    count: int


class Blocks(Protocol):
    """Runs a range of blocks over a batch of rows of several jobs."""

    @property
    def kv(self) -> KvShape:
        """Return what one step keeps."""
        ...

    def forward(self, given: torch.Tensor, spans: Sequence[Span]) -> torch.Tensor:
        """Return fp32 rows (n, hidden) for ids (n,) or fp32 rows (n, hidden), the spans' rows one after the other.

        Keys and values are written behind each span's accepted steps; the caller moves the cache's length.
        """
        ...

    def logits(self, rows: torch.Tensor) -> torch.Tensor:
        """Return fp32 logits (n, vocabulary) of rows (n, hidden) of the last block."""
        ...
