"""Mistral: Llama with a window over the last keys in its older models; GGUF files call it `llama`."""

from __future__ import annotations

from typing import Final

from plait_model.families.base import Family
from plait_model.families.common import KEYS, TENSORS, decoder_shape, gguf_rope, unpermuted

__all__ = ["MISTRAL"]

MISTRAL: Final = Family(
    name="mistral",
    model_type="mistral",
    config={**KEYS, "rope.dimension_count": "head_dim", "vocab_size": "vocab_size"},
    constants={"hidden_act": "silu"},
    more_words=(),
    more_config=gguf_rope,
    tensors=TENSORS,
    restore=unpermuted,
    shape=decoder_shape,
)
