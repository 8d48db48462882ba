"""A pipeline of real engines, one process a stage, joined by pipes: what the history is measured on.

Time is counted, not waited for: every frame carries when it left, and a stage is done with it after the CPU time that
it took, begun when the frame came or when the stage was free. So a pipeline of three stages on two busy cores tells
what three machines with a free core each would take. Frames travel in no time, and this is not the node's wire: no TLS,
no hashing, no signatures, so a node is slower by what those take, for every method alike.
"""

from __future__ import annotations

import multiprocessing
import queue
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from plait.protocol.ids import keccak
from plait.protocol.manifest import Manifest, Tensor
from plait.protocol.windows import WINDOW_STEPS
from plait_node.engine import StageEngine
from plait_node.selector.errors import PipelineError

__all__ = ["Pipeline"]

_HEAD: Final = struct.Struct("<cIId")  # what, first number, second number, seconds since the job was opened
_OPEN, _STEP, _DRAW, _KEEP, _TAKE, _READY, _TOKEN = (bytes([code]) for code in b"OSDKTRt")
_JOB: Final = keccak(b"job")
_START_S: Final = 180.0
_ANSWER_S: Final = 120.0


class Pipeline:
    """Stages that tile all blocks evenly; a context manager whose processes end with it."""

    def __init__(
        self, weights: Path, manifest: Manifest, tensors: Sequence[Tensor], *, stages: int, kv_steps: int
    ) -> None:
        context = multiprocessing.get_context("spawn")
        cuts = [manifest.blocks * stage // stages for stage in range(stages + 1)]
        self._to_first, receive = _pipe(context)
        self._processes: list[BaseProcess] = []
        for stage in range(stages):
            following, send = _pipe(context)[::-1]
            spec = _Spec(
                weights=weights,
                manifest_json=manifest.to_json(),
                tensors=tuple(tensors),
                first=cuts[stage],
                last=cuts[stage + 1],
                kv_steps=kv_steps,
            )
            process = context.Process(target=_serve, args=(spec, receive, send), daemon=True)
            process.start()
            self._processes.append(process)
            receive.close()
            send.close()
            receive = following
        self._from_last = receive

    def __enter__(self) -> Self:
        self._expect(_READY, _START_S)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join()
        self._to_first.close()
        self._from_last.close()

    def open(self, room: int) -> None:
        """Begin the job anew with room for so many steps, at second 0."""
        self._send(_OPEN, room, 0, 0.0)
        self._expect(_OPEN, _ANSWER_S)

    def keep(self, windows: int) -> None:
        """Cache the job's first windows in every stage."""
        self._send(_KEEP, windows, 0, 0.0)
        self._expect(_KEEP, _ANSWER_S)

    def take(self, windows: int) -> float:
        """Begin with cached windows in every stage, which must hold them; return when that is done."""
        self._send(_TAKE, windows, 0, 0.0)
        return self._expect(_TAKE, _ANSWER_S)[1]

    def prefill(self, ids: Sequence[int], *, start: int, chunk: int, at: float = 0.0) -> tuple[int, float]:
        """Send a prompt from `start` on in chunks, all at second `at`; return the token and when it came."""
        for low in range(start, len(ids), chunk):
            piece = np.array(ids[low : low + chunk], dtype=np.int64)
            last = low + chunk >= len(ids)
            self._send(_DRAW if last else _STEP, low, len(piece), at, piece.tobytes())
        return self._expect(_TOKEN, _ANSWER_S)

    def _send(self, what: bytes, first: int, second: int, at: float, rows: bytes = b"") -> None:
        try:
            self._to_first.send_bytes(_HEAD.pack(what, first, second, at) + rows)
        except OSError as error:
            raise PipelineError("a stage of the measured pipeline ended; see what it wrote above") from error

    def _expect(self, what: bytes, limit_s: float) -> tuple[int, float]:
        if not self._from_last.poll(limit_s):
            raise PipelineError(f"the pipeline was silent for {limit_s:.0f} s; is the machine overloaded?")
        try:
            got, number, _, at = _HEAD.unpack_from(self._from_last.recv_bytes())
        except EOFError as error:
            raise PipelineError("a stage of the measured pipeline ended; see what it wrote above") from error
        if got != what:
            raise PipelineError(f"the pipeline answered {got!r} to {what!r}")
        return number, at


def _pipe(context: SpawnContext) -> tuple[Connection, Connection]:
    """Return the sending and the receiving end."""
    receive, send = context.Pipe(duplex=False)
    return send, receive


@dataclass(frozen=True, slots=True, kw_only=True)
class _Spec:
    weights: Path
    manifest_json: bytes
    tensors: tuple[Tensor, ...]
    first: int
    last: int
    kv_steps: int


def _serve(spec: _Spec, receive: Connection, send: Connection) -> None:
    manifest = Manifest.from_json(spec.manifest_json)
    engine = StageEngine(
        spec.weights, manifest, first=spec.first, last=spec.last, kv_steps=spec.kv_steps, tensors=spec.tensors
    )
    outbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    # Rows leave in a thread of their own: the next chunk is computed while the last one is on its way.
    threading.Thread(target=_post, args=(outbox, send), daemon=True).start()
    if spec.first == 0:
        outbox.put(_HEAD.pack(_READY, 0, 0, 0.0))
    stage = _Stage(engine)
    while True:
        try:
            frame = receive.recv_bytes()
        except EOFError:
            return
        reply = stage.answer(frame)
        if reply is not None:
            outbox.put(reply)


def _post(outbox: queue.SimpleQueue[bytes], send: Connection) -> None:
    while True:
        send.send_bytes(outbox.get())


class _Stage:
    """One engine behind frames, and its clock; whatever is not computed is passed on as it is."""

    def __init__(self, engine: StageEngine) -> None:
        self._engine = engine
        self._keys = [keccak(bytes([window])) for window in range(256)]
        self._first = engine.first == 0
        self._last = engine.last == engine.manifest.blocks
        self._now = 0.0

    def answer(self, frame: bytes) -> bytes | None:
        what, first, second, at = _HEAD.unpack_from(frame)
        began = time.thread_time()
        reply = self._work(what, first, second, frame[_HEAD.size :])
        self._now = 0.0 if what == _OPEN else max(self._now, at) + time.thread_time() - began
        if reply is None:
            return None
        kind, number, count, rows = reply
        return _HEAD.pack(kind, number, count, self._now) + rows

    def _work(self, what: bytes, first: int, second: int, data: bytes) -> tuple[bytes, int, int, bytes] | None:
        if what == _OPEN:
            self._engine.close(_JOB)
            self._engine.open(_JOB, first)
        elif what == _KEEP:
            self._engine.keep_prefix(_JOB, self._keys[:first])
        elif what == _TAKE:
            if self._engine.take_prefix(_JOB, self._keys[:first]) != WINDOW_STEPS * first:
                raise PipelineError(f"{first} windows were to be cached and are not")
        elif what in (_STEP, _DRAW):
            return self._step(what, first, second, data)
        return what, first, second, data

    def _step(self, what: bytes, start: int, count: int, data: bytes) -> tuple[bytes, int, int, bytes] | None:
        rows: NDArray[np.int64] | NDArray[np.float32]
        if self._first:
            rows = np.frombuffer(data, dtype=np.int64)
        else:
            rows = np.frombuffer(data, dtype=np.float32).reshape(count, -1)
        output = self._engine.step_one(_JOB, start, rows, logits=int(what == _DRAW))
        if not self._last:
            return what, start, count, output.rows.tobytes()
        return None if output.logits is None else (_TOKEN, int(output.logits.argmax()), 0, b"")
