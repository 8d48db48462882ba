"""Gemma 3, text only: windows in five of six blocks, norms on both sides of attention and MLP, scaled embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from plait_model.families.base import Config, DecoderShape, Family, Rope
from plait_model.families.common import KEYS, TENSORS, decoder_shape, gguf_head_dim, gguf_number, gguf_rope, rope_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from plait_model.gguf import GgufFile

__all__ = ["GEMMA3"]

_TENSORS: Final = {
    **TENSORS,
    "attn_q_norm.weight": "self_attn.q_norm.weight",
    "attn_k_norm.weight": "self_attn.k_norm.weight",
    "post_attention_norm.weight": "post_attention_layernorm.weight",
    "ffn_norm.weight": "pre_feedforward_layernorm.weight",
    "post_ffw_norm.weight": "post_feedforward_layernorm.weight",
}
# What llama.cpp has in its code rather than in the file: which blocks see everything, the base of the others, and the
# one size whose scores are scaled by its hidden size.
_FULL_EVERY: Final = 6
_LOCAL_THETA: Final = 10_000.0
_BLOCKS_OF_27B: Final = 62


def _more_config(file: GgufFile, config: dict[str, bool | int | float | str]) -> None:
    gguf_rope(file, config)
    gguf_head_dim(file, config)
    config["sliding_window"] = gguf_number(file, "gemma3.attention.sliding_window")
    blocks = int(config["num_hidden_layers"])
    config["layer_types"] = "".join("s" if (block + 1) % _FULL_EVERY else "f" for block in range(blocks))
    config["rope_local_base_freq"] = _LOCAL_THETA
    by_hidden = int(config["hidden_size"]) // int(config["num_attention_heads"])
    config["query_pre_attn_scalar"] = by_hidden if blocks == _BLOCKS_OF_27B else config["head_dim"]


def _restore(name: str, tensor: NDArray[np.float32], _config: Config) -> NDArray[np.float32]:
    """Take away the one that GGUF adds to every norm's weight."""
    return tensor - np.float32(1) if name.endswith("norm.weight") else tensor


def _shape(config: Config) -> DecoderShape:
    everywhere, local = rope_of(config), Rope(theta=float(config["rope_local_base_freq"]))
    return decoder_shape(
        config,
        norm_offset=1.0,
        activation="gelu_tanh",
        qk_norm=True,
        sandwich=True,
        embed_scale=float(np.float32(int(config["hidden_size"]) ** 0.5)),
        attention_scale=float(config["query_pre_attn_scalar"]) ** -0.5,
        rope=tuple(everywhere if letter == "f" else local for letter in str(config["layer_types"])),
    )


GEMMA3: Final = Family(
    name="gemma3",
    model_type="gemma3_text",
    config={**KEYS, "vocab_size": "vocab_size"},
    constants={"attention_bias": False, "hidden_activation": "gelu_pytorch_tanh"},
    more_words=("head_dim", "layer_types", "query_pre_attn_scalar", "rope_local_base_freq", "sliding_window"),
    more_config=_more_config,
    tensors=_TENSORS,
    restore=_restore,
    shape=_shape,
)
