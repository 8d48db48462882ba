"""One frame of rows through the engine: decode, compute, draw, encode, hash. Runs in the engine's thread."""

from __future__ import annotations

import time
from dataclasses import dataclass

from plait.protocol.ids import Hash
from plait.protocol.messages import Request
from plait_model.sampler import sample
from plait_node.commit import RowHashes, hash_rows, hash_tail_rows
from plait_node.stage.config import Engine
from plait_node.wire import decode_rows, encode_rows, row_bytes
from plait_node.wire.tensor import FP32


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """From which step on the last stage draws tokens, and by what."""

    first_step: int  # P - 1
    request: Hash
    terms: Request

    def position(self, step: int) -> int:
        """Return the absolute output position drawn from the row of `step`."""
        return step + 1 - self.terms.input_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class StepWork:
    """Encoded rows of one frame; `draw` is set on the last stage."""

    job: Hash
    step: int
    count: int
    codec: str
    data: bytes
    draw: Draw | None

    @property
    def end(self) -> int:
        """Return the first step after the rows."""
        return self.step + self.count


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDone:
    """What came out, and how long the thread worked on it."""

    data: bytes
    inputs: RowHashes
    outputs: RowHashes
    token: int | None
    free_steps: int
    seconds: float


def compute_step(engine: Engine, work: StepWork) -> StepDone:
    """Run the rows through the engine.

    Raises `TensorError` or the engine's `BadRowsError` for rows nobody could compute with, other errors of engine and
    sampler for faults of this stage.
    """
    began = time.perf_counter()
    manifest = engine.manifest
    rows = decode_rows(work.data, codec=work.codec, count=work.count, width=manifest.hidden, limit=manifest.vocabulary)
    last = work.end - 1
    draws = work.draw is not None and last >= work.draw.first_step
    output = engine.step(work.job, work.step, rows, logits=draws)
    data = encode_rows(output.rows, codec=FP32)
    inputs = hash_rows(work.step, work.data, width=row_bytes(work.codec, manifest.hidden))
    width = row_bytes(FP32, manifest.hidden)
    token: int | None = None
    if work.draw is None:
        outputs = hash_rows(work.step, data, width=width)
    else:
        if draws and output.logits is not None:
            terms = work.draw.terms
            token = sample(
                output.logits,
                seed=terms.seed,
                request=work.draw.request,
                position=work.draw.position(last),
                sampling=terms.sampling,
            ).id
        outputs = hash_tail_rows(work.step, data, width=width, sampled=token)
    return StepDone(
        data=data,
        inputs=inputs,
        outputs=outputs,
        token=token,
        free_steps=engine.free_steps,
        seconds=time.perf_counter() - began,
    )
