"""Run a range of blocks by transformers' own layers: the reference, and the engine until a leaner one exists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

import torch
from torch.nn import functional
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm, LlamaRotaryEmbedding

from plait.protocol.manifest import Manifest
from plait_model import weights
from plait_model.errors import WeightsMismatchError
from plait_model.families import Config, checked_config, family_of

if TYPE_CHECKING:
    from plait_model.gguf import GgufFile

__all__ = ["BlockRange", "KeyValues", "llama_config"]

Filled = TypeVar("Filled", bound=torch.nn.Module)

# Lives inside rope_parameters in transformers 5.
_ROPE_THETA = "rope_theta"


class KeyValues(Protocol):
    """What a layer needs of a cache: add the new rows, give back all rows so far."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store the rows of one layer and return all of its rows."""
        ...


def llama_config(config: Config) -> LlamaConfig:
    """Return transformers' configuration for a manifest's."""
    words = {word: value for word, value in config.items() if word != _ROPE_THETA}
    rope = {"rope_type": "default", "rope_theta": float(config[_ROPE_THETA])}
    return LlamaConfig(**words, rope_parameters=rope, attn_implementation="sdpa")  # pyright: ignore[reportArgumentType, reportCallIssue] words come from the manifest


class BlockRange:
    """Blocks [first, last) in fp32, with embedding on the first and norm and head on the last."""

    def __init__(self, file: GgufFile, manifest: Manifest, *, first: int, last: int) -> None:
        family = family_of(manifest.architecture)
        config = checked_config(manifest)
        made = llama_config(config)
        self.layers = [
            _layer(made, index, weights.block_tensors(file, family, config, first + index))
            for index in range(last - first)
        ]
        rotary = LlamaRotaryEmbedding(made)
        positions = torch.arange(made.max_position_embeddings)[None]
        self._cos, self._sin = cast("tuple[torch.Tensor, torch.Tensor]", rotary(torch.zeros(1), positions))
        self.kv_heads = int(config["num_key_value_heads"])
        self.head_dim = int(config["head_dim"])
        self.is_first = first == 0
        self.is_last = last == made.num_hidden_layers
        self._embedding = weights.embedding(file) if self.is_first else None
        self._head: torch.Tensor | None = None
        self._norm: LlamaRMSNorm | None = None
        if self.is_last:
            shared = self._embedding if made.tie_word_embeddings else None
            self._head = weights.head(file) if shared is None else shared
            norm = LlamaRMSNorm(made.hidden_size, eps=made.rms_norm_eps)
            self._norm = _filled(norm, {"weight": weights.final_norm(file)})
        for matrix in (self._embedding, self._head):
            if matrix is not None and matrix.shape != (manifest.vocabulary, manifest.hidden):
                raise WeightsMismatchError(f"embedding or head has shape {tuple(matrix.shape)}, not the manifest's")

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Return one row per id."""
        if self._embedding is None:
            raise TypeError("only the first range embeds ids")
        return functional.embedding(ids, self._embedding)

    def forward(self, rows: torch.Tensor, *, start: int, cache: KeyValues) -> torch.Tensor:
        """Run rows of shape (n, hidden) at positions start to start + n - 1 through all blocks."""
        count = rows.shape[0]
        hidden = rows[None]
        position = self._cos[:, start : start + count], self._sin[:, start : start + count]
        # Nothing is masked for one row; rows from position 0 on take the kernel's own causal mask.
        mask = causal_mask(start, count) if start and count > 1 else None
        for layer in self.layers:
            hidden = layer(hidden, attention_mask=mask, past_key_values=cache, position_embeddings=position)
        return hidden[0]

    def logits(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the logits of rows of the last block."""
        if self._norm is None or self._head is None:
            raise TypeError("only the last range has a head")
        return functional.linear(self._norm(rows), self._head)


def causal_mask(start: int, count: int) -> torch.Tensor:
    """Return which of the start + count keys each of count queries may see."""
    return torch.ones(count, start + count, dtype=torch.bool).tril(start)[None, None]


def _layer(config: LlamaConfig, index: int, tensors: Mapping[str, torch.Tensor]) -> LlamaDecoderLayer:
    with torch.device("meta"):
        layer = LlamaDecoderLayer(config, index)
    return _filled(layer, tensors)


def _filled(module: Filled, tensors: Mapping[str, torch.Tensor]) -> Filled:
    try:
        module.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        raise WeightsMismatchError(f"the file's tensors do not fit the manifest's config: {error}") from error
    module.requires_grad_(requires_grad=False)
    return module.eval()
