"""The slow road: transformers' own layers behind the face of `Blocks`, one job after the other."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from plait_model.layers import BlockRange
from plait_node.engine.faces import Span
from plait_node.engine.room import KvShape

__all__ = ["ReferenceBlocks"]


class ReferenceBlocks:
    """Runs every architecture that transformers' layers run, in fp32."""

    def __init__(self, blocks: BlockRange) -> None:
        self._blocks = blocks
        self.kv = KvShape(layers=len(blocks.layers), heads=blocks.kv_heads, head_dim=blocks.head_dim)

    def forward(self, given: torch.Tensor, spans: Sequence[Span]) -> torch.Tensor:
        """Return fp32 rows; see `Blocks`."""
        rows = self._blocks.embed(given) if self._blocks.is_first else given
        made: list[torch.Tensor] = []
        at = 0
        for span in spans:
            piece = rows[at : at + span.count]
            made.append(self._blocks.forward(piece, start=span.start, cache=span.cache))
            at += span.count
        return torch.cat(made)

    def logits(self, rows: torch.Tensor) -> torch.Tensor:
        """Return fp32 logits; see `Blocks`."""
        return self._blocks.logits(rows)
