"""Qwen 2 and 2.5: biases on queries, keys and values; optional windows from some block on."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from plait_model.families.base import Family, keep
from plait_model.families.common import KEYS, TENSORS, decoder_shape, gguf_head_dim, gguf_rope

if TYPE_CHECKING:
    from plait_model.gguf import GgufFile

__all__ = ["QWEN2"]

_BIASES: Final = {f"attn_{letter}.bias": f"self_attn.{letter}_proj.bias" for letter in "qkv"}


def _more_config(file: GgufFile, config: dict[str, bool | int | float | str]) -> None:
    gguf_rope(file, config)
    gguf_head_dim(file, config)


QWEN2: Final = Family(
    name="qwen2",
    model_type="qwen2",
    config={**KEYS, "vocab_size": "vocab_size"},
    constants={"hidden_act": "silu"},
    more_words=("head_dim",),
    more_config=_more_config,
    tensors={**TENSORS, **_BIASES},
    restore=keep,
    shape=partial(decoder_shape, qkv_bias=True),
)
