"""Qwen 3, dense: each head of queries and keys is normed before the rotation."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from plait_model.families.base import Family, keep
from plait_model.families.common import KEYS, TENSORS, decoder_shape, gguf_head_dim, gguf_rope

if TYPE_CHECKING:
    from plait_model.gguf import GgufFile

__all__ = ["QWEN3"]

_NORMS: Final = {f"attn_{letter}_norm.weight": f"self_attn.{letter}_norm.weight" for letter in "qk"}


def _more_config(file: GgufFile, config: dict[str, bool | int | float | str]) -> None:
    gguf_rope(file, config)
    gguf_head_dim(file, config)


QWEN3: Final = Family(
    name="qwen3",
    model_type="qwen3",
    config={**KEYS, "vocab_size": "vocab_size"},
    constants={"attention_bias": False, "hidden_act": "silu"},
    more_words=("head_dim",),
    more_config=_more_config,
    tensors={**TENSORS, **_NORMS},
    restore=keep,
    shape=partial(decoder_shape, qk_norm=True),
)
