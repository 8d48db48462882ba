"""Run one range of a model's blocks for many jobs, one step at a time."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from plait.protocol.ids import Hash
from plait.protocol.manifest import Manifest, Tensor
from plait_model.families import family_of
from plait_model.gguf import GgufFile
from plait_model.layers import BlockRange
from plait_model.weights import check_tensors, range_names
from plait_node.engine.errors import BadRowsError, NoRoomError, NumericsError, StepOrderError
from plait_node.engine.room import JobCache, KvRoom, KvShape

__all__ = ["StageEngine", "StepOutput"]

Rows = NDArray[np.int64] | NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOutput:
    """What came out: one fp32 row per row that went in and, on the last stage, the logits of the last one."""

    rows: NDArray[np.float32]
    logits: NDArray[np.float32] | None


class StageEngine:
    """Blocks [first, last) of a model with room for `kv_steps` steps; safe to call from several threads."""

    def __init__(
        self,
        weights: Path,
        manifest: Manifest,
        *,
        first: int,
        last: int,
        kv_steps: int,
        prefix_steps: int | None = None,
        tensors: Sequence[Tensor] | None = None,
        threads: int = 1,
    ) -> None:
        """Load this range's tensors; `tensors` is the list in the model's folder, without it the whole file is hashed.

        Cached prefixes hold at most `prefix_steps` (half of `kv_steps` by default), and only what jobs leave free.

        Raises:
            ModelError: the file is missing, damaged, unsupported or not the manifest's, or there is no such range.
        """
        torch.set_num_threads(threads)
        self.manifest = manifest
        self.first = first
        self.last = last
        family = family_of(manifest.architecture)
        with GgufFile.open(weights) as file:
            names = range_names(file, family, first=first, last=last, blocks=manifest.blocks)
            check_tensors(file, names, tensors=tensors, root=manifest.weights)
            self._blocks = BlockRange(file, manifest, first=first, last=last)
        shape = KvShape(layers=last - first, heads=self._blocks.kv_heads, head_dim=self._blocks.head_dim)
        limit = kv_steps // 2 if prefix_steps is None else prefix_steps
        self._room = KvRoom(shape, total=kv_steps, prefix_limit=limit)
        self._lock = threading.Lock()

    @property
    def free_steps(self) -> int:
        """Return how many steps a new job could get now."""
        with self._lock:
            return self._room.free

    @property
    def max_steps(self) -> int:
        """Return how many steps one job may have at most, whatever is free: the model's context."""
        return self.manifest.context

    def open(self, job: Hash, room: int) -> None:
        """Reserve `room` steps; raise `NoRoomError` with the limit, or `JobOpenError`."""
        with self._lock:
            if room > self.max_steps:
                raise NoRoomError(asked=room, limit=min(self.max_steps, self._room.free))
            self._room.open(job, room)

    def close(self, job: Hash) -> None:
        """Forget a job; nothing happens if it is not open."""
        with self._lock:
            self._room.close(job)

    def step(self, job: Hash, start: int, rows: Rows, *, logits: bool = True) -> StepOutput:
        """Compute the rows of steps start, start + 1, ...; a prompt may come in several calls.

        Rows are int64 ids of shape (n,) on the first stage, float32 of shape (n, hidden) on the others. Ask for
        logits only where a token is to be drawn. A call that raises leaves the job as it was.

        Raises:
            UnknownJobError, StepOrderError: the job is not open, or `start` is not its next step.
            NoRoomError: the rows do not fit into the job's room.
            BadRowsError: the rows are not what this stage takes.
            NumericsError: the result is not finite.
        """
        given = self._checked(rows)
        with self._lock, torch.inference_mode():
            cache = self._room.job(job)
            if start != cache.length:
                raise StepOrderError(asked=start, expected=cache.length)
            if start + len(rows) > cache.room:
                raise NoRoomError(asked=start + len(rows), limit=cache.room)
            output = self._forward(given, cache, logits=logits)
            cache.length += len(rows)
            return output

    def rollback(self, job: Hash, step: int) -> None:
        """Forget all rows from `step` on; raise `StepOrderError` if they were never computed."""
        with self._lock:
            cache = self._room.job(job)
            if not 0 <= step <= cache.length:
                raise StepOrderError(asked=step, expected=cache.length)
            cache.length = step

    def keep_prefix(self, job: Hash, keys: Sequence[Hash]) -> int:
        """Cache a job's first whole windows under their lineage keys; return how many windows are held."""
        with self._lock:
            return self._room.keep(job, keys)

    def held_prefix(self, keys: Sequence[Hash]) -> int:
        """Return how many windows of this lineage are cached, counted from its start."""
        with self._lock:
            return self._room.held(keys)

    def take_prefix(self, job: Hash, keys: Sequence[Hash]) -> int:
        """Begin an empty job with cached windows; return the rows taken, a multiple of 16.

        Raises:
            UnknownJobError, StepOrderError: the job is not open, or has rows already.
        """
        with self._lock:
            cache = self._room.job(job)
            if cache.length:
                raise StepOrderError(asked=0, expected=cache.length)
            return self._room.take(job, keys)

    def _forward(self, given: torch.Tensor, cache: JobCache, *, logits: bool) -> StepOutput:
        rows = self._blocks.embed(given) if self._blocks.is_first else given
        hidden = self._blocks.forward(rows, start=cache.length, cache=cache)
        out = hidden.numpy()
        # A float64 sum of fp32 values cannot overflow: it is finite exactly if every term is.
        if not np.isfinite(out.sum(dtype=np.float64)):
            raise NumericsError("the model gave NaN or infinity; the job fails, check memory and weights of this stage")
        last = self._blocks.logits(hidden[-1]).numpy() if logits and self._blocks.is_last else None
        return StepOutput(rows=out, logits=last)

    def _checked(self, rows: Rows) -> torch.Tensor:
        if self._blocks.is_first:
            if rows.ndim != 1 or rows.dtype != np.int64 or not len(rows):
                raise BadRowsError(
                    f"ids have shape {rows.shape} and type {rows.dtype}; the first stage takes int64 (n,)"
                )
            if rows.min() < 0 or rows.max() >= self.manifest.vocabulary:
                raise BadRowsError(f"an id is outside 0 to {self.manifest.vocabulary - 1}; send ids of this model")
            return torch.as_tensor(_writable(rows))
        if rows.ndim != 2 or rows.shape[1] != self.manifest.hidden or rows.dtype != np.float32 or not len(rows):
            raise BadRowsError(f"rows have shape {rows.shape} and type {rows.dtype}; this stage takes fp32 rows")
        if not np.isfinite(rows.sum(dtype=np.float64)):
            raise BadRowsError("the rows hold NaN or infinity; the stage before is to blame")
        return torch.as_tensor(_writable(rows))


def _writable(rows: Rows) -> Rows:
    """Return rows that torch may wrap: what came off the wire is a read-only view."""
    return rows if rows.flags.writeable and rows.flags.c_contiguous else rows.copy()
