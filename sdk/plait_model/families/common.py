"""What the families share: their GGUF keys, the tensors of a block, rotary scaling, windows and the common shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from plait_model.errors import MalformedGgufError, UnsupportedModelError
from plait_model.families.base import Config, DecoderShape, Rope

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from plait_model.gguf import GgufFile

__all__ = ["KEYS", "TENSORS", "decoder_shape", "gguf_head_dim", "gguf_number", "gguf_rope", "rope_of", "unpermuted"]

KEYS: Final[Mapping[str, str]] = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
}
TENSORS: Final[Mapping[str, str]] = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}
_SCALINGS: Final = ("default", "linear", "llama3")


def unpermuted(name: str, tensor: NDArray[np.float32], config: Config) -> NDArray[np.float32]:
    """Undo llama.cpp's interleaving of the two rotary halves in query and key rows."""
    heads = {"attn_q.weight": "num_attention_heads", "attn_k.weight": "num_key_value_heads"}.get(name)
    if heads is None:
        return tensor
    count = int(config[heads])
    if tensor.ndim != 2 or tensor.shape[0] % (2 * count):
        raise MalformedGgufError(f"{name} of shape {tensor.shape} is not {count} heads of even width")
    split = tensor.reshape(count, -1, 2, tensor.shape[1])
    return np.ascontiguousarray(split.swapaxes(1, 2)).reshape(tensor.shape)


def gguf_number(file: GgufFile, key: str) -> int | float:
    """Return a positive number of a GGUF header; raise `MalformedGgufError`."""
    value = file.scalar(key)
    if isinstance(value, float):
        # GGUF keeps 32 bits; the shortest decimal that gives the same 32 bits is what the publisher wrote.
        value = float(str(np.float32(value)))
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 2**31:
        raise MalformedGgufError(f"{key} is {value!r}; a positive number is needed, convert the model anew")
    return value


def gguf_head_dim(file: GgufFile, config: dict[str, bool | int | float | str]) -> None:
    """Add `head_dim`: what the file says, or hidden size over heads."""
    for key in ("attention.key_length", "rope.dimension_count"):
        full = f"{file.scalar('general.architecture')}.{key}"
        if file.scalar(full) is not None:
            config["head_dim"] = gguf_number(file, full)
            return
    config["head_dim"] = int(config["hidden_size"]) // int(config["num_attention_heads"])


def gguf_rope(file: GgufFile, config: dict[str, bool | int | float | str]) -> None:
    """Add the words of linear rotary scaling; raise `UnsupportedModelError` for another kind."""
    architecture = file.scalar("general.architecture")
    kind = file.scalar(f"{architecture}.rope.scaling.type")
    if kind in (None, "none"):
        return
    if kind != "linear":
        raise UnsupportedModelError(f"rotary scaling {kind!r} is not supported in GGUF; this version knows: linear")
    config["rope_type"] = "linear"
    config["rope_factor"] = gguf_number(file, f"{architecture}.rope.scaling.factor")


def rope_of(config: Config) -> Rope:
    """Return the rotary embedding that a configuration's words describe; raise `UnsupportedModelError`."""
    kind, theta = config.get("rope_type", "default"), float(config["rope_theta"])
    if kind not in _SCALINGS:
        raise UnsupportedModelError(
            f"rotary scaling {kind!r} is not supported; this version runs: default, {_SCALINGS[1:]}"
        )
    try:
        factor = 1.0 if kind == "default" else float(config["rope_factor"])
        if kind != "llama3":
            return Rope(theta=theta, factor=factor)
        return Rope(
            theta=theta,
            factor=factor,
            low_freq_factor=float(config["rope_low_freq_factor"]),
            high_freq_factor=float(config["rope_high_freq_factor"]),
            original_context=int(config["rope_original_context"]),
        )
    except KeyError as error:
        raise UnsupportedModelError(f"rotary scaling {kind!r} needs {error}; publish the model anew") from error


def decoder_shape(config: Config, **own: Any) -> DecoderShape:
    """Return the shape that the common words describe; `own` replaces fields by those of the family."""
    blocks, head_dim = int(config["num_hidden_layers"]), int(config["head_dim"])
    fields: dict[str, Any] = {
        "blocks": blocks,
        "hidden": int(config["hidden_size"]),
        "inner": int(config["intermediate_size"]),
        "heads": int(config["num_attention_heads"]),
        "kv_heads": int(config["num_key_value_heads"]),
        "head_dim": head_dim,
        "vocabulary": int(config["vocab_size"]),
        "context": int(config["max_position_embeddings"]),
        "norm_eps": float(config["rms_norm_eps"]),
        "norm_offset": 0.0,
        "activation": "silu",
        "qkv_bias": False,
        "qk_norm": False,
        "sandwich": False,
        "embed_scale": 1.0,
        "attention_scale": head_dim**-0.5,
        "windows": _windows(config, blocks),
        "rope": (rope_of(config),) * blocks,
        "tied": bool(config["tie_word_embeddings"]),
    }
    return DecoderShape(**{**fields, **own})


def _windows(config: Config, blocks: int) -> tuple[int, ...]:
    """Return one window per block: all blocks have it unless `layer_types` says which."""
    window = int(config.get("sliding_window", 0))
    letters = str(config.get("layer_types", ("s" if window else "f") * blocks))
    if len(letters) != blocks or set(letters) - {"s", "f"} or ("s" in letters and window < 1):
        raise UnsupportedModelError(f"layer_types {letters!r} and window {window} do not fit {blocks} blocks")
    return tuple(window if letter == "s" else 0 for letter in letters)
