"""What measured stages compute with: a real model, or nothing at all where the way of a row is what is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Final, cast

import numpy as np

from plait.protocol.ids import Hash
from plait.protocol.manifest import FP32_STRICT, PROFILES, Manifest
from plait_node.engine import EngineError, Lane, StageEngine, StepInput, StepOutput
from plait_node.engine.errors import JobOpenError, NoRoomError, StepOrderError, UnknownJobError
from plait_node.engine.evidence import EvidenceLog
from plait_node.engine.faces import Rows
from plait_node.engine.native import NativeBlocks
from plait_node.engine.residents import Engine

__all__ = ["COPYING", "SLOW_LINKS", "SMOLLM2", "Copying", "engine_of", "manifest_of"]

SMOLLM2: Final = "smollm2-135m"
COPYING: Final = "copying"
_WIDTH: Final = 2_048  # 8 KiB a row in fp32
_VOCABULARY: Final = 1_024
SLOW_LINKS: Final = (PROFILES["fp32-prefill-bf16"], PROFILES["fp32-prefill-int8"])
_COPYING: Final = Manifest(
    name=COPYING,
    architecture=COPYING,
    config={},
    blocks=8,
    hidden=_WIDTH,
    vocabulary=_VOCABULARY,
    context=1 << 20,
    tokenizer=Hash(bytes(32)),
    chat_template=Hash(bytes(32)),
    bos_token="",
    eos_token="",
    end_tokens=(_VOCABULARY - 1,),
    weights=Hash(bytes(32)),
    licence="none",
    profiles=(FP32_STRICT, *SLOW_LINKS),
)


@cache
def manifest_of(name: str) -> Manifest:
    """Return a model's manifest. The only end token is one that is never drawn: an answer has the length asked for."""
    if name == COPYING:
        return _COPYING
    from bench.models import built  # noqa: PLC0415 - brings transformers, which rows that nobody computes need not

    manifest = built(name).manifest
    return replace(manifest, end_tokens=(manifest.vocabulary - 1,), profiles=(FP32_STRICT, *SLOW_LINKS))


def engine_of(name: str, first: int, last: int, *, threads: int, kv_steps: int) -> Engine:
    """Return an engine over blocks [first, last), its compiled code built, in fp32."""
    make = _MAKERS.get(name)
    if make is not None:
        return make(first, last, kv_steps)
    from bench.models import built, gguf  # noqa: PLC0415 - as above

    engine = StageEngine(
        gguf(name),
        manifest_of(name),
        first=first,
        last=last,
        kv_steps=kv_steps,
        tensors=built(name).tensors,
        lane=Lane(weights="fp32", threads=threads),
    )
    if isinstance(engine.blocks, NativeBlocks):
        engine.blocks.wait()
    return engine


class Copying:
    """Gives on the rows that it gets; draws the id after the newest one. A pass costs nothing."""

    def __init__(self, first: int, last: int, kv_steps: int) -> None:
        self.manifest = _COPYING
        self.first, self.last = first, last
        self.off_cpu = False
        self.evidence = EvidenceLog()
        self._kv_steps = kv_steps
        self._rooms: dict[Hash, int] = {}
        self._inputs: dict[Hash, list[Rows]] = {}

    @property
    def free_steps(self) -> int:
        """Return the room that is left."""
        return self._kv_steps - sum(self._rooms.values())

    @property
    def max_steps(self) -> int:
        """Return the most that one job may have."""
        return self._kv_steps

    def open(self, job: Hash, room: int) -> None:
        """Reserve room; raise `JobOpenError` or `NoRoomError`."""
        if job in self._rooms:
            raise JobOpenError(job)
        if room > self.free_steps:
            raise NoRoomError(asked=room, limit=self.free_steps)
        self._rooms[job], self._inputs[job] = room, []

    def close(self, job: Hash) -> None:
        """Forget the job."""
        self._rooms.pop(job, None)
        self._inputs.pop(job, None)

    def step(self, inputs: Sequence[StepInput]) -> list[StepOutput | EngineError]:
        """Return the rows that came, and ids where they are asked for."""
        return [self._answer(given) for given in inputs]

    def _answer(self, given: StepInput) -> StepOutput | EngineError:
        known = self._inputs.get(given.job)
        if known is None:
            return UnknownJobError(given.job)
        known.extend(given.rows)
        rows = np.asarray(given.rows, dtype=np.float32)
        if self.first == 0:
            rows = np.repeat(rows[:, None], _WIDTH, axis=1)
        asked = given.logits if self.last == _COPYING.blocks else 0
        if not asked:
            return StepOutput(rows=rows, logits=None)
        best = (rows[-asked:, 0].astype(np.int64) + 1) % (_VOCABULARY - 1)
        return StepOutput(rows=rows, logits=None, best=best)

    def rollback(self, job: Hash, step: int) -> None:
        """Forget rows from `step` on."""
        del self._inputs[job][step:]

    def export_inputs(self, job: Hash, first: int = 0, last: int | None = None) -> Rows:
        """Return the rows that steps `first` to `last` - 1 came as; raise `StepOrderError` for none."""
        rows = self._inputs[job][first:last]
        if not rows:
            raise StepOrderError(asked=first, expected=len(self._inputs[job]))
        return cast("Rows", np.array(rows))  # all of one type

    def keep_prefix(self, job: Hash, keys: Sequence[Hash]) -> int:
        """Keep nothing."""
        del job, keys
        return 0

    def take_prefix(self, job: Hash, keys: Sequence[Hash]) -> int:
        """Find nothing."""
        del job, keys
        return 0

    def evicted(self) -> list[Hash]:
        """Return nothing."""
        return []


_MAKERS: Final[Mapping[str, Callable[[int, int, int], Engine]]] = {COPYING: Copying}
