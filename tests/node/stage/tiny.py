"""A model small enough to compute by hand: three blocks, each mixing a row with all rows before it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from plait.protocol.ids import Hash
from plait.protocol.manifest import FP32_STRICT, PROFILES, Manifest
from plait.protocol.windows import WINDOW_STEPS
from plait_node.engine import EngineError, StepInput, StepOutput
from plait_node.engine.errors import BadRowsError, JobOpenError, NoRoomError, StepOrderError, UnknownJobError
from plait_node.engine.evidence import EvidenceLog

HIDDEN, VOCABULARY, BLOCKS, CONTEXT = 8, 64, 3, 512
DECAY = np.float32(0.9)

PREFILL_BF16, PREFILL_INT8 = PROFILES["fp32-prefill-bf16"], PROFILES["fp32-prefill-int8"]
ALL_INT8 = replace(PREFILL_INT8, name="rows-int8", decode_codec="int8")

MANIFEST = Manifest(
    name="tiny",
    architecture="tiny",
    config={},
    blocks=BLOCKS,
    hidden=HIDDEN,
    vocabulary=VOCABULARY,
    context=CONTEXT,
    tokenizer=Hash(b"\x01" * 32),
    chat_template=Hash(b"\x02" * 32),
    bos_token="",
    eos_token="",
    end_tokens=(VOCABULARY - 1,),
    weights=Hash(b"\x03" * 32),
    licence="none",
    profiles=(FP32_STRICT, PREFILL_BF16, PREFILL_INT8, ALL_INT8),
)
_MADE = np.random.default_rng(7)
EMBEDDING = _MADE.standard_normal((VOCABULARY, HIDDEN)).astype(np.float32)
WEIGHTS = [_MADE.standard_normal((HIDDEN, HIDDEN)).astype(np.float32) for _ in range(BLOCKS)]


@dataclass(slots=True)
class Cache:
    """One job's state after each row, per block: what a real engine keeps as keys and values."""

    room: int
    states: list[NDArray[np.float32]]
    inputs: list[np.int64 | NDArray[np.float32]]


class TinyEngine:
    """The face of `StageEngine` over the tiny model."""

    def __init__(self, first: int, last: int, *, kv_steps: int = 2_048) -> None:
        self.manifest = MANIFEST
        self.first, self.last = first, last
        self.off_cpu = False
        self.evidence = EvidenceLog()
        self.calls: list[tuple[Hash, int, int]] = []
        self.passes: list[list[tuple[Hash, int, int]]] = []
        self.gate: threading.Event | None = None  # a step waits for it
        self._kv_steps = kv_steps
        self._jobs: dict[Hash, Cache] = {}
        self._cached: dict[Hash, Cache] = {}
        self._evicted: list[Hash] = []

    @property
    def free_steps(self) -> int:
        return self._kv_steps - sum(cache.room for cache in self._jobs.values())

    @property
    def max_steps(self) -> int:
        return CONTEXT

    @property
    def open_jobs(self) -> int:
        return len(self._jobs)

    def open(self, job: Hash, room: int) -> None:
        if job in self._jobs:
            raise JobOpenError(job)
        if room > min(self.free_steps, CONTEXT):
            raise NoRoomError(asked=room, limit=min(self.free_steps, CONTEXT))
        self._jobs[job] = Cache(room=room, states=[], inputs=[])

    def close(self, job: Hash) -> None:
        self._jobs.pop(job, None)

    def step(self, inputs: Sequence[StepInput]) -> list[StepOutput | EngineError]:
        if self.gate is not None:
            self.gate.wait(60)
        self.passes.append([(given.job, given.start, len(given.rows)) for given in inputs])
        return [self._answer(given) for given in inputs]

    def step_one(
        self, job: Hash, start: int, rows: NDArray[np.int64] | NDArray[np.float32], *, logits: int = 1
    ) -> StepOutput:
        answer = self._answer(StepInput(job=job, start=start, rows=rows, logits=logits))
        if isinstance(answer, EngineError):
            raise answer
        return answer

    def _answer(self, given: StepInput) -> StepOutput | EngineError:
        try:
            cache = self._job(given.job)
            self._check(given, cache)
        except EngineError as error:
            return error
        self.calls.append((given.job, given.start, len(given.rows)))
        hidden = EMBEDDING[given.rows] if self.first == 0 else given.rows
        out = np.stack([self._row(cache, row) for row in hidden])
        cache.inputs.extend(given.rows)
        wanted = given.logits and self.last == BLOCKS
        # Row by row: the same numbers whatever else is in the pass.
        drawn = np.stack([EMBEDDING @ row for row in out[-given.logits :]]) if wanted else None
        if given.best and drawn is not None:
            return StepOutput(rows=out, logits=None, best=drawn.argmax(axis=1))
        return StepOutput(rows=out, logits=drawn)

    def _check(self, given: StepInput, cache: Cache) -> None:
        if given.start != len(cache.states):
            raise StepOrderError(asked=given.start, expected=len(cache.states))
        if given.start + len(given.rows) > cache.room:
            raise NoRoomError(asked=given.start + len(given.rows), limit=cache.room)
        if (given.rows.ndim == 1) != (self.first == 0):
            raise BadRowsError("rows of a wrong shape")

    def _row(self, cache: Cache, row: NDArray[np.float32]) -> NDArray[np.float32]:
        blocks = range(self.first, self.last)
        before = cache.states[-1] if cache.states else np.zeros((len(blocks), HIDDEN), dtype=np.float32)
        state = np.empty_like(before)
        for at, block in enumerate(blocks):
            state[at] = before[at] * DECAY + row
            row = np.tanh(WEIGHTS[block] @ state[at]).astype(np.float32)
        cache.states.append(state)
        return row

    def rollback(self, job: Hash, step: int) -> None:
        cache = self._job(job)
        if not 0 <= step <= len(cache.states):
            raise StepOrderError(asked=step, expected=len(cache.states))
        del cache.states[step:]
        del cache.inputs[step:]

    def export_inputs(
        self, job: Hash, first: int = 0, last: int | None = None
    ) -> NDArray[np.int64] | NDArray[np.float32]:
        return np.array(self._job(job).inputs[first:last])

    def keep_prefix(self, job: Hash, keys: Sequence[Hash]) -> int:
        cache = self._job(job)
        for at, key in enumerate(keys):
            part = slice(at * WINDOW_STEPS, (at + 1) * WINDOW_STEPS)
            self._cached[key] = Cache(room=WINDOW_STEPS, states=cache.states[part], inputs=cache.inputs[part])
        return len(keys)

    def take_prefix(self, job: Hash, keys: Sequence[Hash]) -> int:
        cache = self._job(job)
        for key in keys:
            if key not in self._cached:
                break
            cache.states.extend(self._cached[key].states)
            cache.inputs.extend(self._cached[key].inputs)
        return len(cache.states)

    def evicted(self) -> list[Hash]:
        keys, self._evicted = self._evicted, []
        return keys

    def forget_prefixes(self) -> None:
        self._evicted += self._cached
        self._cached.clear()

    def _job(self, job: Hash) -> Cache:
        if job not in self._jobs:
            raise UnknownJobError(job)
        return self._jobs[job]
