"""Few rows replay a captured graph; many run the same kernels one by one, with torch's attention for each job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from plait_node.engine.cuda import kernels as _untyped
from plait_node.engine.decoder_weights import BlockWeights
from plait_node.engine.faces import Span
from plait_node.engine.lean import LeanBlocks
from plait_node.engine.matrix import Matrix, Plain
from plait_node.engine.room import KvShape

__all__ = ["CudaBlocks"]

kernels: Any = _untyped  # a kernel's launch, `kernel[grid](...)`, has no type that a checker knows

# Rows that a graph is captured for; fewer are filled up with rows that nobody reads.
_SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128)
_STEP: Final = 64  # keys that one pass of the attention's loop reads
_SMALL: Final = 8_192  # rows
_PROGRAMS: Final = 264  # parts of an attention that fill a large device's multiprocessors twice


@dataclass(frozen=True, slots=True, kw_only=True)
class _Captured:
    """A graph and the memory that it is bound to."""

    graph: torch.cuda.CUDAGraph
    rows: torch.Tensor  # fp32 (size, hidden): in and out
    facts: torch.Tensor  # int64 (4, size): position, address of the job's keys and values, its room, token id
    host: torch.Tensor  # the same in pinned memory
    spare: torch.Tensor  # keys and values of rows that only fill a batch up
    step: Step  # the graph writes into its buffers, whoever owns their memory


class CudaBlocks:
    """`LeanBlocks` on a CUDA device, with a captured graph for each batch size once it is first met."""

    def __init__(self, lean: LeanBlocks) -> None:
        self._lean = lean
        self.kv: KvShape = lean.kv
        self._graphs: dict[int, _Captured] = {}
        self._pool: Any = None

    def forward(self, given: torch.Tensor, spans: Sequence[Span]) -> torch.Tensor:
        """Return fp32 rows; see `Blocks`."""
        count = len(given)
        if count > _SIZES[-1]:
            return self._by_kernels(given, spans)
        size = next(size for size in _SIZES if size >= count)
        if size not in self._graphs:
            self._graphs[size] = self._capture(size)
        step = self._graphs[size]
        # The last pass has read these by now: its results were waited for.
        step.host[:3, :count] = _facts(spans)
        step.host[:3, count:] = torch.tensor([[0], [step.spare.data_ptr()], [1]])
        if given.ndim == 1:
            step.host[3, :count] = given
        else:
            step.rows[:count] = given.to(self.kv.device)
        step.facts.copy_(step.host, non_blocking=True)
        step.graph.replay()
        return step.rows[:count].clone()

    def _by_kernels(self, given: torch.Tensor, spans: Sequence[Span]) -> torch.Tensor:
        rows = self._lean.embed(given)
        rows = rows.clone() if rows is given else rows.contiguous()
        Step(self._lean, rows, _facts(spans).to(self.kv.device)).run(spans)
        return rows

    def logits(self, rows: torch.Tensor) -> torch.Tensor:
        """Return fp32 logits; see `Blocks`."""
        return self._lean.logits(rows)

    def _capture(self, size: int) -> _Captured:
        weights, kv = self._lean.weights, self.kv
        shape = weights.shape
        rows = torch.zeros(size, shape.hidden, device=kv.device)
        spare = torch.zeros(kv.layers, 2, shape.kv_heads, 1, shape.head_dim, dtype=kv.dtype, device=kv.device)
        host = torch.zeros(4, size, dtype=torch.int64).pin_memory()
        host[1], host[2] = spare.data_ptr(), 1
        facts = host.to(kv.device)
        step = Step(self._lean, rows, facts)

        def run() -> None:
            if weights.embedding is not None:
                rows.copy_(self._lean.embed(facts[3]))
            step.run()

        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):  # kernels are compiled and libraries set up outside of the graph
                run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            run()
        self._pool = graph.pool()
        return _Captured(graph=graph, rows=rows, facts=facts, host=host, spare=spare, step=step)


def _facts(spans: Sequence[Span]) -> torch.Tensor:
    """Return each row's position, and the address and room of its job's keys and values, int64 (3, n)."""
    counts = torch.tensor([span.count for span in spans])
    jobs = torch.tensor([[span.start, span.cache.rows.data_ptr(), span.cache.room] for span in spans]).T
    facts = jobs.repeat_interleave(counts, dim=1)
    facts[0] += torch.cat([torch.arange(span.count) for span in spans])
    return facts


class Step:
    """One pass over fp32 rows (size, hidden), in place; `facts` is int64 (3 or more, size), see `_facts`."""

    def __init__(self, lean: LeanBlocks, rows: torch.Tensor, facts: torch.Tensor) -> None:
        shape, kv = lean.weights.shape, lean.kv
        self._lean, self._weights, self._shape = lean, lean.weights, shape
        self._rows, self._facts = rows, tuple(facts[:3])
        size = len(rows)
        self._normed = torch.empty(size, shape.hidden, dtype=kv.dtype, device=rows.device)
        self._active = torch.empty(size, shape.inner, dtype=kv.dtype, device=rows.device)
        self._type = {torch.bfloat16: kernels.tl.bfloat16, torch.float32: kernels.tl.float32}[kv.dtype]

    def run(self, spans: Sequence[Span] | None = None) -> None:
        """Move the rows through all blocks; with `spans`, attention is torch's, for passes of many rows."""
        made: torch.Tensor | None = None
        after: torch.Tensor | None = None
        for layer, block in enumerate(self._weights.blocks):
            self._add_norm(made, after, block.attention_norm)
            qkv = self._product(block.qkv, self._normed)
            self._keep(qkv, block, layer)
            mixed = self._attend(qkv, block, layer) if spans is None else self._mix(qkv, block, layer, spans)
            self._add_norm(self._product(block.out, mixed), block.after_attention_norm, block.mlp_norm)
            made = self._product(block.down, self._gate(block.gate_up.linear(self._normed)))
            after = block.after_mlp_norm
        self._add_norm(made, after, self._weights.blocks[-1].mlp_norm)

    def _add_norm(self, made: torch.Tensor | None, after: torch.Tensor | None, scale: torch.Tensor) -> None:
        width = self._shape.hidden
        kernels.add_norm[(len(self._rows),)](
            self._rows,
            self._rows if made is None else made,
            scale if after is None else after,
            scale,
            self._normed,
            self._shape.norm_eps,
            width,
            HAS_MADE=made is not None,
            HAS_AFTER=after is not None,
            WIDE=_power(width),
            num_warps=8 if width > 1024 else 4,
        )

    def _product(self, matrix: Matrix, given: torch.Tensor) -> torch.Tensor:
        """Multiply; for one row and a small matrix our own kernel wins, as the library splits those in two."""
        if len(given) > 1 or not isinstance(matrix, Plain) or matrix.bias is not None or matrix.rows > _SMALL:
            return matrix.linear(given)
        out = torch.empty(1, matrix.rows, dtype=given.dtype, device=given.device)
        grid = (-(-matrix.rows // 8),)
        cols = matrix.weight.shape[1]
        kernels.multiply[grid](given, matrix.weight, out, matrix.rows, cols, ROWS=8, STEP=512, num_warps=4)
        return out

    def _keep(self, qkv: torch.Tensor, block: BlockWeights, layer: int) -> None:
        shape = self._shape
        norms = (block.query_norm, block.key_norm)
        query_norm, key_norm = (block.attention_norm if norm is None else norm for norm in norms)
        kernels.keep[(len(qkv), shape.heads + shape.kv_heads)](
            qkv,
            *self._facts,
            self._weights.frequencies[block.rope],
            query_norm,
            key_norm,
            layer,
            shape.norm_eps,
            HALF=_power(shape.head_dim // 2),
            HAS_NORM=block.query_norm is not None,
            num_warps=1,
            **self._common(),
        )

    def _attend(self, qkv: torch.Tensor, block: BlockWeights, layer: int) -> torch.Tensor:
        """Attend in parts of the keys that run side by side, every row by itself."""
        shape, size = self._shape, len(qkv)
        splits = _floor_power(max(1, min(64, _PROGRAMS // (size * shape.kv_heads))))
        partial = torch.empty(size, shape.heads, splits, shape.head_dim, device=qkv.device)
        best, total = torch.empty(2, size, shape.heads, splits, device=qkv.device)
        mixed = torch.empty(size, shape.heads * shape.head_dim, dtype=qkv.dtype, device=qkv.device)
        each = shape.heads // shape.kv_heads
        kernels.attend[(size, shape.kv_heads, splits)](
            qkv,
            *self._facts,
            partial,
            best,
            total,
            layer,
            block.window,
            shape.attention_scale,
            WIDE=_power(shape.head_dim),
            EACH=each,
            PAD=max(16, _power(each)),
            SPLITS=splits,
            STEP=_STEP,
            num_warps=4,
            **self._common(),
        )
        kernels.combine[(size * shape.heads,)](
            partial,
            best,
            total,
            mixed,
            WIDTH=shape.head_dim,
            WIDE=_power(shape.head_dim),
            SPLITS=splits,
            num_warps=1,
        )
        return mixed

    def _mix(self, qkv: torch.Tensor, block: BlockWeights, layer: int, spans: Sequence[Span]) -> torch.Tensor:
        """Attend job by job; keys and values lie in their places already."""
        shape = self._shape
        queries = qkv[:, : shape.heads * shape.head_dim].view(-1, shape.heads, shape.head_dim)
        mixed = torch.empty(queries.shape, dtype=qkv.dtype, device=qkv.device)
        at = 0
        for span in spans:
            piece = slice(at, at + span.count)
            at += span.count
            keys, values = span.cache.rows[layer, :, 0]
            mixed[piece] = self._lean.mixed(queries[piece], keys, values, block.window, span)
        return mixed.flatten(1)

    def _common(self) -> dict[str, Any]:
        shape = self._shape
        return {"HEADS": shape.heads, "GROUPS": shape.kv_heads, "WIDTH": shape.head_dim, "KV": self._type}

    def _gate(self, both: torch.Tensor) -> torch.Tensor:
        inner = self._shape.inner
        kernels.gate[(len(self._rows), -(-inner // 1024))](
            both, self._active, inner, GELU=self._shape.activation == "gelu_tanh", STEP=1024, num_warps=4
        )
        return self._active


def _floor_power(count: int) -> int:
    """Return the greatest power of two that is not above."""
    return 1 << (count.bit_length() - 1)


def _power(count: int) -> int:
    """Return the least power of two that is not below."""
    return 1 << (count - 1).bit_length()
