"""Keep keys and values: one store per job, cached windows beside them, and one account of steps over both."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch

from plait.protocol.ids import Hash
from plait.protocol.windows import WINDOW_STEPS
from plait_node.engine.errors import JobOpenError, NoRoomError, UnknownJobError
from plait_node.engine.faces import Rows

__all__ = ["InputLog", "JobCache", "KvRoom", "KvShape"]

_MOST_EVICTED = 65_536  # keys that are kept for whoever asks for them, 32 bytes each


@dataclass(frozen=True, slots=True, kw_only=True)
class KvShape:
    """Shape and type of what one step keeps."""

    layers: int
    heads: int
    head_dim: int
    dtype: torch.dtype = torch.float32
    device: str = "cpu"


class JobCache:
    """Keys and values of one job, in the order of steps, and the rows that they were made of.

    `rows` has shape (layers, 2, 1, heads, room, head_dim): one extent a job, so that attention reads it as it lies.
    """

    def __init__(self, shape: KvShape, room: int) -> None:
        # Memory is only taken up as steps are written: the system maps pages at the first touch.
        self.rows = torch.empty(
            shape.layers, 2, 1, shape.heads, room, shape.head_dim, dtype=shape.dtype, device=shape.device
        )
        self.room = room
        self.length = 0
        self.inputs = InputLog()

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write one layer's rows after the accepted ones; return all of the layer's rows."""
        end = self.length + key_states.shape[2]
        keys, values = self.rows[layer_idx]
        keys[:, :, self.length : end] = key_states
        values[:, :, self.length : end] = value_states
        return keys[:, :, :end], values[:, :, :end]

    def window(self, index: int) -> torch.Tensor:
        """Return a view of one whole window, all layers."""
        return self.rows[..., index * WINDOW_STEPS : (index + 1) * WINDOW_STEPS, :]


class InputLog:
    """The rows that a job was given, kept so that its keys and values can be made again."""

    def __init__(self) -> None:
        self._pieces: list[Rows] = []
        self.length = 0

    def add(self, rows: Rows) -> None:
        """Append the rows of the next steps."""
        self._pieces.append(rows)
        self.length += len(rows)

    def cut(self, length: int) -> None:
        """Forget the rows from step `length` on."""
        while self._pieces and self.length > length:
            last = self._pieces.pop()
            self.length -= len(last)
            if self.length < length:
                self.add(last[: length - self.length].copy())

    def read(self, first: int, last: int) -> Rows:
        """Return the rows of steps first to last - 1; they must be there."""
        whole = cast("Rows", np.concatenate(self._pieces))  # numpy's types forget that all pieces have one
        self._pieces = [whole]
        return whole[first:last]


@dataclass(frozen=True, slots=True)
class _Window:
    """One cached window: its keys and values, and the rows that they were made of."""

    kept: torch.Tensor
    inputs: Rows


class KvRoom:
    """At most `total` steps in jobs and cached windows together; cached windows make place for jobs."""

    def __init__(self, shape: KvShape, *, total: int, prefix_limit: int) -> None:
        self._shape = shape
        self._total = total
        self._prefix_limit = prefix_limit
        self._jobs: dict[Hash, JobCache] = {}
        self._windows: OrderedDict[Hash, _Window] = OrderedDict()
        self._evicted: deque[Hash] = deque(maxlen=_MOST_EVICTED)

    @property
    def free(self) -> int:
        """Return the steps that a new job could have: cached windows count as free."""
        return self._total - sum(cache.room for cache in self._jobs.values())

    @property
    def cached(self) -> int:
        """Return the steps that cached windows hold."""
        return len(self._windows) * WINDOW_STEPS

    def open(self, job: Hash, room: int) -> None:
        """Reserve steps for a job; raise `NoRoomError` or `JobOpenError`."""
        if job in self._jobs:
            raise JobOpenError(job)
        if not 0 < room <= self.free:
            raise NoRoomError(asked=room, limit=self.free)
        self._evict(self.free - room)
        self._jobs[job] = JobCache(self._shape, room)

    def close(self, job: Hash) -> None:
        """Give a job's room back; nothing happens if it is not open."""
        self._jobs.pop(job, None)

    def job(self, job: Hash) -> JobCache:
        """Return an open job's store; raise `UnknownJobError`."""
        cache = self._jobs.get(job)
        if cache is None:
            raise UnknownJobError(job)
        return cache

    def keep(self, job: Hash, keys: Sequence[Hash]) -> int:
        """Copy a job's first whole windows under their lineage keys; return how many are cached now."""
        cache = self.job(job)
        kept = 0
        for index, key in enumerate(keys[: cache.length // WINDOW_STEPS]):
            if key not in self._windows:
                if not self._make_place(keys[:index]):
                    break
                begin = index * WINDOW_STEPS
                inputs = cache.inputs.read(begin, begin + WINDOW_STEPS).copy()
                self._windows[key] = _Window(cache.window(index).clone(), inputs)
            self._windows.move_to_end(key)
            kept += 1
        self._touch(keys[:kept])
        return kept

    def held(self, keys: Sequence[Hash]) -> int:
        """Return how many windows of this lineage, from its start, are cached."""
        count = 0
        while count < len(keys) and keys[count] in self._windows:
            count += 1
        return count

    def take(self, job: Hash, keys: Sequence[Hash]) -> int:
        """Copy cached windows into an empty job; return the rows taken."""
        cache = self.job(job)
        count = min(self.held(keys), cache.room // WINDOW_STEPS)
        for index, key in enumerate(keys[:count]):
            cache.window(index).copy_(self._windows[key].kept)
            cache.inputs.add(self._windows[key].inputs)
        self._touch(keys[:count])
        cache.length = count * WINDOW_STEPS
        return cache.length

    def _touch(self, keys: Sequence[Hash]) -> None:
        """Say that a lineage was used; its end goes before its beginning, without which it is no use."""
        for key in reversed(keys):
            self._windows.move_to_end(key)

    def evicted(self) -> list[Hash]:
        """Return the keys of windows that made place since this was asked last, the newest of them if they are many."""
        keys = list(self._evicted)
        self._evicted.clear()
        return keys

    def _make_place(self, wanted: Sequence[Hash]) -> bool:
        """Free one window's place, never at the cost of a window of the same lineage."""
        limit = min(self._prefix_limit, self.free)
        while self.cached + WINDOW_STEPS > limit:
            oldest = next(iter(self._windows), None)
            if oldest is None or oldest in wanted:
                return False
            del self._windows[oldest]
            self._evicted.append(oldest)
        return True

    def _evict(self, limit: int) -> None:
        while self.cached > limit:
            self._evicted.append(self._windows.popitem(last=False)[0])
