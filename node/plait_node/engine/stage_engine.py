"""Run one range of a model's blocks for many jobs, a batch of rows at a time."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray

from plait.protocol.ids import Hash
from plait.protocol.manifest import Manifest, Tensor
from plait_node.engine.errors import BadRowsError, EngineError, NoRoomError, NumericsError, StepOrderError
from plait_node.engine.evidence import Evidence, EvidenceLog
from plait_node.engine.faces import Blocks, Rows, Span, StepInput, StepOutput
from plait_node.engine.lane import Lane
from plait_node.engine.loading import load_blocks
from plait_node.engine.room import JobCache, KvRoom
from plait_node.engine.threads import choose_threads

__all__ = ["StageEngine"]


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
        lane: Lane | None = None,
    ) -> None:
        """Load this range's tensors; `tensors` is the list in the model's folder, without it the whole file is hashed.

        Cached prefixes hold at most `prefix_steps` (half of `kv_steps` by default), and only what jobs leave free.

        Raises:
            ModelError: the file is missing, damaged, unsupported or not the manifest's, or there is no such range.
        """
        lane = lane or Lane()
        torch.set_num_threads(max(1, lane.threads))
        blocks = load_blocks(weights, manifest, first=first, last=last, tensors=tensors, lane=lane)
        if lane.threads == 0:
            on_cpu = lane.device == "cpu"
            threads = choose_threads(blocks, manifest, first=first, last=last) if on_cpu else 1
            lane = replace(lane, threads=threads)
        self._begin(blocks, manifest, first=first, last=last, kv_steps=kv_steps, prefix_steps=prefix_steps, lane=lane)

    @classmethod
    def over(
        cls,
        blocks: Blocks,
        manifest: Manifest,
        *,
        first: int,
        last: int,
        kv_steps: int,
        prefix_steps: int | None = None,
        lane: Lane,
    ) -> Self:
        """Run blocks that were made elsewhere, of weights that lie in no file."""
        made = cls.__new__(cls)
        made._begin(  # noqa: SLF001 -- the class's own
            blocks, manifest, first=first, last=last, kv_steps=kv_steps, prefix_steps=prefix_steps, lane=lane
        )
        return made

    def _begin(
        self,
        blocks: Blocks,
        manifest: Manifest,
        *,
        first: int,
        last: int,
        kv_steps: int,
        prefix_steps: int | None,
        lane: Lane,
    ) -> None:
        self.blocks, self.manifest, self.lane = blocks, manifest, lane
        self.first, self.last = first, last
        limit = kv_steps // 2 if prefix_steps is None else prefix_steps
        self._room = KvRoom(blocks.kv, total=kv_steps, prefix_limit=limit)
        self._lock = threading.Lock()
        self.evidence = EvidenceLog()

    @property
    def free_steps(self) -> int:
        """Return how many steps a new job could get now."""
        with self._lock:
            return self._room.free

    @property
    def max_steps(self) -> int:
        """Return how many steps one job may have at most, whatever is free: the model's context."""
        return self.manifest.context

    @property
    def off_cpu(self) -> bool:
        """Tell whether the thread that calls `step` waits for a device, instead of computing itself."""
        return self.lane.device != "cpu"

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

    def step(self, inputs: Sequence[StepInput]) -> list[StepOutput | EngineError]:
        """Compute rows of several jobs in one pass, each job at most once; a prompt may come in several calls.

        The answer to each input is its output, or why there is none; one input's fault is no other's, and the job of
        an input that failed is left as it was:
            UnknownJobError, StepOrderError: the job is not open, or `start` is not its next step.
            NoRoomError: the rows do not fit into the job's room.
            BadRowsError: the rows are not what this stage takes.
            NumericsError: the result is not finite; `evidence` has the rows that led to it.
        """
        answers: list[StepOutput | EngineError | None] = [None] * len(inputs)
        with self._lock, torch.inference_mode():
            batch: list[tuple[int, StepInput, JobCache]] = []
            for index, given in enumerate(inputs):
                try:
                    batch.append((index, given, self._checked(given)))
                except EngineError as error:
                    answers[index] = error
            if batch:
                outputs = self._forward([(given, cache) for _, given, cache in batch])
                for (index, _, _), output in zip(batch, outputs, strict=True):
                    answers[index] = output
        return [answer for answer in answers if answer is not None]

    def step_one(self, job: Hash, start: int, rows: Rows, *, logits: int = 1, best: bool = False) -> StepOutput:
        """Compute rows of one job; raise what `step` answers."""
        (answer,) = self.step([StepInput(job=job, start=start, rows=rows, logits=logits, best=best)])
        if isinstance(answer, EngineError):
            raise answer
        return answer

    def replay(self, job: Hash, start: int, rows: Rows) -> None:
        """Make keys and values again from a job's inputs; raise what `step` answers."""
        self.step_one(job, start, rows, logits=0)

    def export_inputs(self, job: Hash, first: int = 0, last: int | None = None) -> Rows:
        """Return the rows that steps first to last - 1 (all by default) were computed from."""
        with self._lock:
            cache = self._room.job(job)
            end = cache.length if last is None else last
            if not 0 <= first < end <= cache.length:
                raise StepOrderError(asked=end, expected=cache.length)
            return cache.inputs.read(first, end)

    def rollback(self, job: Hash, step: int) -> None:
        """Forget all rows from `step` on; raise `StepOrderError` if they were never computed."""
        with self._lock:
            cache = self._room.job(job)
            if not 0 <= step <= cache.length:
                raise StepOrderError(asked=step, expected=cache.length)
            cache.length = step
            cache.inputs.cut(step)

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

    def evicted(self) -> list[Hash]:
        """Return the keys of cached windows that made place for others since this was asked last."""
        with self._lock:
            return self._room.evicted()

    def _forward(self, batch: Sequence[tuple[StepInput, JobCache]]) -> list[StepOutput | EngineError]:
        spans = [Span(cache=cache, start=cache.length, count=len(given.rows)) for given, cache in batch]
        hidden = self.blocks.forward(_joined([given.rows for given, _ in batch]), spans)
        heads = self._heads(hidden, [given for given, _ in batch])
        rows = hidden.numpy(force=True)
        answers: list[StepOutput | EngineError] = []
        at = 0
        for (given, cache), head in zip(batch, heads, strict=True):
            out = rows[at : at + len(given.rows)]
            at += len(given.rows)
            # A float64 sum of fp32 values cannot overflow: it is finite exactly if every term is.
            if self._lost(head) or not np.isfinite(out.sum(dtype=np.float64)):
                answers.append(NumericsError("the model gave NaN or infinity; check memory and weights of this stage"))
                self._keep_evidence(given, cache)
                continue
            cache.length += len(given.rows)
            cache.inputs.add(given.rows)
            answers.append(StepOutput(rows=out, logits=None if given.best else head, best=head if given.best else None))
        return answers

    def _lost(self, head: NDArray[Any] | None) -> bool:
        """Tell whether a row of logits has no finite greatest one, or a best id is none."""
        if head is None or not len(head):
            return False
        if head.dtype == np.int64:
            return bool(head.max() >= self.manifest.vocabulary)
        return not np.isfinite(head.max(axis=1)).all()

    def _keep_evidence(self, given: StepInput, cache: JobCache) -> None:
        before = [cache.inputs.read(0, cache.length)] if cache.length else []
        self.evidence.add(
            Evidence(
                job=given.job,
                start=given.start,
                rows=cast("Rows", np.concatenate([*before, given.rows])),  # all of one type
                first=self.first,
                last=self.last,
                lane=self.lane,
            )
        )

    def _heads(self, hidden: torch.Tensor, inputs: Sequence[StepInput]) -> list[NDArray[Any] | None]:
        """Run the head once over all rows that it is wanted of; return logits or best ids of each input."""
        counts = [min(given.logits, len(given.rows)) for given in inputs]
        if self.last != self.manifest.blocks or not any(counts):
            return [None] * len(inputs)
        ends = np.cumsum([len(given.rows) for given in inputs])
        wanted = [row for end, count in zip(ends, counts, strict=True) for row in range(end - count, end)]
        logits = self.blocks.logits(hidden[wanted])
        if all(given.best for given in inputs):
            pieces = torch.split(_best(logits), counts)  # one wait for the device instead of many
        else:
            pairs = zip(inputs, torch.split(logits, counts), strict=True)
            pieces = [_best(piece) if given.best else piece for given, piece in pairs]
        return [piece.numpy(force=True) if len(piece) else None for piece in pieces]

    def _checked(self, given: StepInput) -> JobCache:
        """Return the job's store; raise what is wrong with the input."""
        cache = self._room.job(given.job)
        self._check_rows(given.rows)
        if given.start != cache.length:
            raise StepOrderError(asked=given.start, expected=cache.length)
        if given.start + len(given.rows) > cache.room:
            raise NoRoomError(asked=given.start + len(given.rows), limit=cache.room)
        return cache

    def _check_rows(self, rows: Rows) -> None:
        if self.first == 0:
            if rows.ndim != 1 or rows.dtype != np.int64 or not len(rows):
                raise BadRowsError(
                    f"ids have shape {rows.shape} and type {rows.dtype}; the first stage takes int64 (n,)"
                )
            if rows.min() < 0 or rows.max() >= self.manifest.vocabulary:
                raise BadRowsError(f"an id is outside 0 to {self.manifest.vocabulary - 1}; send ids of this model")
            return
        if rows.ndim != 2 or rows.shape[1] != self.manifest.hidden or rows.dtype != np.float32 or not len(rows):
            raise BadRowsError(f"rows have shape {rows.shape} and type {rows.dtype}; this stage takes fp32 rows")
        if not np.isfinite(rows.sum(dtype=np.float64)):
            raise BadRowsError("the rows hold NaN or infinity; the stage before is to blame")


def _best(logits: torch.Tensor) -> torch.Tensor:
    """Return the lowest id of the greatest logit of each row, the vocabulary's size where that is not finite."""
    size = logits.shape[-1]
    if logits.device.type == "cpu":
        rows = logits.numpy()
        best = rows.argmax(axis=-1)  # the first of equals; that of a NaN, where there is one
        return torch.as_tensor(np.where(np.isfinite(rows[np.arange(len(rows)), best]), best, size))
    ids = torch.arange(size, device=logits.device)
    greatest = logits.amax(dim=-1, keepdim=True)
    best = torch.where(logits == greatest, ids, size).amin(dim=-1)
    return torch.where(greatest[:, 0].isfinite(), best, size).cpu()


def _joined(pieces: Sequence[Rows]) -> torch.Tensor:
    """Return one tensor that torch may wrap: what came off the wire is a read-only view."""
    joined = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
    usable = joined.flags.writeable and joined.flags.c_contiguous
    return torch.as_tensor(joined if usable else joined.copy())
