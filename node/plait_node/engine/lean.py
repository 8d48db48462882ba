"""The lean decoder: fused projections, one pass over the rows of all jobs, keys and values read where they lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from plait_node.engine.decoder_weights import BlockWeights, DecoderWeights
from plait_node.engine.faces import Span
from plait_node.engine.room import KvShape

__all__ = ["LeanBlocks"]


@dataclass(frozen=True, slots=True)
class _Batch:
    """What all blocks of one pass share."""

    spans: Sequence[Span]
    rotations: Sequence[tuple[torch.Tensor, torch.Tensor]]  # cosine and sine of each kind, (n, 1, head_dim / 2)


class LeanBlocks:
    """Runs the families' common decoder in torch, on CPU and CUDA; residuals and norms are fp32."""

    def __init__(self, weights: DecoderWeights, *, dtype: torch.dtype, device: str) -> None:
        """Compute products and attention in `dtype`, fp32 or bf16."""
        shape = weights.shape
        self.weights = weights
        self._shape, self._dtype, self._device = shape, dtype, device
        self._gelu = shape.activation == "gelu_tanh"
        self.kv = KvShape(
            layers=len(weights.blocks), heads=shape.kv_heads, head_dim=shape.head_dim, dtype=dtype, device=device
        )

    def embed(self, given: torch.Tensor) -> torch.Tensor:
        """Return fp32 rows for ids on the first range; rows pass as they are elsewhere."""
        given = given.to(self._device)
        if self.weights.embedding is None:
            return given
        return self.weights.embedding.take(given) * self._shape.embed_scale

    def forward(self, given: torch.Tensor, spans: Sequence[Span]) -> torch.Tensor:
        """Return fp32 rows; see `Blocks`."""
        return self.run(self.embed(given), spans)

    def run(self, rows: torch.Tensor, spans: Sequence[Span]) -> torch.Tensor:
        """Run embedded rows, fp32 (n, hidden), through the blocks."""
        steps = torch.cat([torch.arange(span.start, span.start + span.count, device=self._device) for span in spans])
        angles = [steps[:, None].float() * frequencies for frequencies in self.weights.frequencies]
        batch = _Batch(spans, [(angle.cos()[:, None], angle.sin()[:, None]) for angle in angles])
        for layer, block in enumerate(self.weights.blocks):
            rows = self._block(rows, block, layer, batch)
        return rows

    def logits(self, rows: torch.Tensor) -> torch.Tensor:
        """Return fp32 logits; see `Blocks`."""
        weights = self.weights
        if weights.norm is None or weights.head is None:
            raise TypeError("only the last range has a head")
        return weights.head.linear(self._normed(rows, weights.norm)).float()

    def _normed(self, rows: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return functional.rms_norm(rows.float(), (rows.shape[-1],), scale, self._shape.norm_eps).to(self._dtype)

    def _block(self, rows: torch.Tensor, block: BlockWeights, layer: int, batch: _Batch) -> torch.Tensor:
        mixed = block.out.linear(self._attention(self._normed(rows, block.attention_norm), block, layer, batch))
        rows = self._added(rows, mixed, block.after_attention_norm)
        gate, up = block.gate_up.linear(self._normed(rows, block.mlp_norm)).chunk(2, dim=-1)
        active = functional.gelu(gate, approximate="tanh") if self._gelu else functional.silu(gate)
        return self._added(rows, block.down.linear(active * up), block.after_mlp_norm)

    def _added(self, rows: torch.Tensor, made: torch.Tensor, scale: torch.Tensor | None) -> torch.Tensor:
        if scale is None:
            return rows + made
        return rows + functional.rms_norm(made.float(), (made.shape[-1],), scale, self._shape.norm_eps)

    def _attention(self, rows: torch.Tensor, block: BlockWeights, layer: int, batch: _Batch) -> torch.Tensor:
        shape = self._shape
        joined = block.qkv.linear(rows).view(-1, shape.heads + 2 * shape.kv_heads, shape.head_dim)
        turning = joined[:, : -shape.kv_heads]
        if block.query_norm is not None and block.key_norm is not None:
            queries, keys = turning[:, : shape.heads], turning[:, shape.heads :]
            turning = torch.cat((self._normed(queries, block.query_norm), self._normed(keys, block.key_norm)), dim=1)
        turned = _rotated(turning, *batch.rotations[block.rope]).to(self._dtype)
        queries, keys, values = turned[:, : shape.heads], turned[:, shape.heads :], joined[:, -shape.kv_heads :]
        kept = torch.stack((keys, values)).transpose(1, 2)
        made: list[torch.Tensor] = []
        at = 0
        for span in batch.spans:
            end = at + span.count
            planes = span.cache.rows[layer, :, 0]
            planes[:, :, span.start : span.start + span.count] = kept[:, :, at:end]
            made.append(self.mixed(queries[at:end], planes[0], planes[1], block.window, span))
            at = end
        return (made[0] if len(made) == 1 else torch.cat(made)).flatten(1)

    def mixed(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, window: int, span: Span
    ) -> torch.Tensor:
        """Attend queries (count, heads, head_dim) over kept keys and values (kv_heads, room, head_dim)."""
        end = span.start + span.count
        first = max(0, span.start + 1 - window) if window else 0
        keys, values = keys[None, :, first:end], values[None, :, first:end]
        scale = self._shape.attention_scale
        if span.count == 1:
            # All query heads of a group see the same keys, so they stand as rows of one head.
            grouped = queries.reshape(1, self._shape.kv_heads, -1, self._shape.head_dim)
            mixed = functional.scaled_dot_product_attention(grouped, keys, values, scale=scale)
            return mixed.reshape(queries.shape)
        causal = first == span.start and (not window or span.count <= window)
        mask = None if causal else self._mask(span, first, window)
        mixed = functional.scaled_dot_product_attention(
            queries.transpose(0, 1)[None],
            keys,
            values,
            attn_mask=mask,
            is_causal=causal,
            scale=scale,
            enable_gqa=self._shape.heads != self._shape.kv_heads,
        )
        return mixed[0].transpose(0, 1)

    def _mask(self, span: Span, first: int, window: int) -> torch.Tensor:
        """Return which keys from `first` on each of the span's queries may see."""
        end = span.start + span.count
        if not window and self._device != "cpu":
            # Imported here: it brings torch's compiler along, 200 MB that a CPU stage has no use for.
            from torch.nn.attention import bias  # noqa: PLC0415 -- see above

            # What flash attention knows without a mask in memory.
            return bias.causal_lower_right(span.count, end)  # pyright: ignore[reportUnknownMemberType] -- torch's gap
        queries = torch.arange(span.start, end, device=self._device)[:, None]
        keys = torch.arange(first, end, device=self._device)[None]
        seen = keys <= queries
        return seen & (keys > queries - window) if window else seen


def _rotated(part: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    low, high = part.chunk(2, dim=-1)
    first = torch.addcmul(low * cosine, high, sine, value=-1)
    return torch.cat((first, torch.addcmul(high * cosine, low, sine)), dim=-1)
