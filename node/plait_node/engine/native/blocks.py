"""Run rows through a range of blocks in one compiled call."""

from __future__ import annotations

import ctypes
import logging
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Final

import torch

from plait_node.engine.decoder_weights import BlockWeights, DecoderWeights
from plait_node.engine.errors import CompilerError
from plait_node.engine.faces import Span
from plait_node.engine.lean import LeanBlocks
from plait_node.engine.matrix import Int4, Int8, Matrix, NativeMatrix, Plain
from plait_node.engine.native.build import load_library

__all__ = ["NativeBlocks"]

_log = logging.getLogger(__name__)

_POINTERS: Final = (
    "attention_norm",
    "mlp_norm",
    "after_attention_norm",
    "after_mlp_norm",
    "query_norm",
    "key_norm",
)


class _Block(ctypes.Structure):
    """`plait::Block` of decoder.cpp."""

    _fields_ = (
        ("qkv", NativeMatrix),
        ("out", NativeMatrix),
        ("gate_up", NativeMatrix),
        ("down", NativeMatrix),
        *((name, ctypes.c_void_p) for name in _POINTERS),
        ("window", ctypes.c_int32),
        ("rope", ctypes.c_int32),
    )


class _Model(ctypes.Structure):
    """`plait::Model` of decoder.cpp."""

    _fields_ = (
        ("blocks", ctypes.POINTER(_Block)),
        ("frequencies", ctypes.c_void_p * 2),
        ("count", ctypes.c_int32),
        ("hidden", ctypes.c_int32),
        ("inner", ctypes.c_int32),
        ("heads", ctypes.c_int32),
        ("kv_heads", ctypes.c_int32),
        ("head_dim", ctypes.c_int32),
        ("gelu", ctypes.c_int32),
        ("half_kv", ctypes.c_int32),
        ("eps", ctypes.c_float),
        ("attention_scale", ctypes.c_float),
    )


class _Span(ctypes.Structure):
    """`plait::Span` of decoder.cpp."""

    _fields_ = (
        ("kv", ctypes.c_void_p),
        ("room", ctypes.c_int64),
        ("start", ctypes.c_int64),
        ("count", ctypes.c_int64),
    )


class NativeBlocks:
    """`LeanBlocks` until compiled code is built, and that from then on."""

    def __init__(self, lean: LeanBlocks, *, threads: int) -> None:
        self._lean = lean
        self.threads = threads
        self._library: ctypes.CDLL | None = None
        self._model, self._held = _described(lean.weights, half=lean.kv.dtype == torch.bfloat16)
        self.kv = lean.kv
        self._builder = threading.Thread(target=self._build, name="build kernels", daemon=True)
        self._builder.start()

    @property
    def weights(self) -> DecoderWeights:
        """Return the weights that both ways read."""
        return self._lean.weights

    @property
    def ready(self) -> bool:
        """Tell whether compiled code runs by now."""
        return self._library is not None

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the build to end, at most `timeout` seconds; return whether compiled code runs."""
        self._builder.join(timeout)
        return self.ready

    @contextmanager
    def by_torch(self) -> Generator[None]:
        """Leave compiled code aside for as long as the block lasts: what it is compared with."""
        library, self._library = self._library, None
        try:
            yield
        finally:
            self._library = library

    def forward(self, given: torch.Tensor, spans: Sequence[Span]) -> torch.Tensor:
        """Return fp32 rows; see `Blocks`."""
        rows = self._lean.embed(given)
        library = self._library
        if library is None:
            return self._lean.run(rows, spans)
        out = rows.contiguous() if rows is not given else rows.clone()
        listed = (_Span * len(spans))(
            *(_Span(span.cache.rows.data_ptr(), span.cache.room, span.start, span.count) for span in spans)
        )
        model, place = ctypes.byref(self._model), ctypes.c_void_p(out.data_ptr())
        if library.plait_forward(model, listed, len(spans), place, self.threads):
            raise MemoryError(f"there is no memory for {len(rows)} rows; give fewer at once")
        return out

    def logits(self, rows: torch.Tensor) -> torch.Tensor:
        """Return fp32 logits; see `Blocks`."""
        weights, library = self._lean.weights, self._library
        if library is None or weights.head is None or weights.norm is None:
            return self._lean.logits(rows)
        rows = rows.contiguous()
        out = torch.empty(len(rows), weights.head.rows)
        failed = library.plait_head(
            ctypes.byref(_native(weights.head)),
            ctypes.c_void_p(weights.norm.data_ptr()),
            ctypes.c_float(weights.shape.norm_eps),
            ctypes.c_void_p(rows.data_ptr()),
            len(rows),
            ctypes.c_void_p(out.data_ptr()),
            self.threads,
        )
        if failed:
            raise MemoryError(f"there is no memory for the heads of {len(rows)} rows; give fewer at once")
        return out

    def _build(self) -> None:
        try:
            self._library = load_library()
        except CompilerError as error:
            _log.warning("compiled decoding is off reason=%s", error)


def _described(weights: DecoderWeights, *, half: bool) -> tuple[_Model, object]:
    """Return the model as compiled code sees it, and what must live as long."""
    shape = weights.shape
    blocks = (_Block * len(weights.blocks))(*(_block(block) for block in weights.blocks))
    pointers = [frequencies.data_ptr() for frequencies in weights.frequencies]
    model = _Model(
        blocks=blocks,
        frequencies=(ctypes.c_void_p * 2)(*pointers),
        count=len(weights.blocks),
        hidden=shape.hidden,
        inner=shape.inner,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        gelu=int(shape.activation == "gelu_tanh"),
        half_kv=int(half),
        eps=shape.norm_eps,
        attention_scale=shape.attention_scale,
    )
    return model, blocks


def _block(block: BlockWeights) -> _Block:
    norms = {name: getattr(block, name) for name in _POINTERS}
    return _Block(
        qkv=_native(block.qkv),
        out=_native(block.out),
        gate_up=_native(block.gate_up),
        down=_native(block.down),
        window=block.window,
        rope=block.rope,
        **{name: None if norm is None else norm.data_ptr() for name, norm in norms.items()},
    )


def _native(matrix: Matrix) -> NativeMatrix:
    if not isinstance(matrix, Plain | Int8 | Int4):
        raise TypeError("compiled code reads rows as they lie; load the weights unpacked")
    return matrix.native()
