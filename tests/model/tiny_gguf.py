"""Write tiny models as GGUF files the way llama.cpp's converter does, from what transformers saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from gguf import GGUFWriter
from safetensors.numpy import load_file
from tests.model.tiny import SPECIAL, TEMPLATE, VOCABULARY
from tests.model.tiny_families import tiny_config

FAMILIES: Final = ("llama", "qwen2", "qwen3", "gemma3")
# What GGUF cannot say, or says in one way only.
CHANGED: Final[dict[str, dict[str, Any]]] = {
    "llama": {
        "max_position_embeddings": 16_384,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500_000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
    },
    "qwen2": {"use_sliding_window": False, "sliding_window": None},
    "gemma3": {"query_pre_attn_scalar": 24},
}
_NAMES: Final = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
_OUTSIDE: Final = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


def write_gguf(path: Path, folder: Path, family: str) -> Path:
    """Write the model that `write_family(folder, family, changed=CHANGED.get(family))` saved, all in fp32."""
    config = tiny_config(family, **CHANGED.get(family, {}))
    writer = GGUFWriter(path, family)
    writer.add_name(f"Tiny {family}")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    _add_heads_and_rope(writer, config, family)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2" if family.startswith("qwen") else "gpt-2")
    writer.add_token_list(VOCABULARY)
    writer.add_token_types([3 if token in SPECIAL else 1 for token in VOCABULARY])
    writer.add_token_merges(["Ġ a", "h e", "l l"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)
    for name, tensor in load_file(folder / "model.safetensors").items():
        writer.add_tensor(gguf_name(name, family), _stored(name, tensor, config, family))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def gguf_name(name: str, family: str) -> str:
    """Return llama.cpp's name of transformers' tensor."""
    if name in _OUTSIDE:
        return _OUTSIDE[name]
    _, _, block, *inner, kind = name.split(".")
    part = ".".join(inner)
    if part == "post_attention_layernorm":
        return f"blk.{block}.{'post_attention_norm' if family == 'gemma3' else 'ffn_norm'}.{kind}"
    return f"blk.{block}.{_NAMES[part]}.{kind}"


def _add_heads_and_rope(writer: GGUFWriter, config: Any, family: str) -> None:  # noqa: ANN401 -- transformers has no types
    rope = config.rope_parameters.get("full_attention", config.rope_parameters)
    writer.add_rope_freq_base(rope["rope_theta"])
    if family == "llama":
        writer.add_rope_dimension_count(config.head_dim)
        writer.add_vocab_size(config.vocab_size)
        writer.add_tensor("rope_freqs.weight", llama3_divisors(config.head_dim, rope))
    elif family != "qwen2":
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    if rope["rope_type"] == "linear":
        writer.add_string(f"{family}.rope.scaling.type", "linear")
        writer.add_float32(f"{family}.rope.scaling.factor", rope["factor"])
    if family == "gemma3":
        writer.add_sliding_window(config.sliding_window)


def llama3_divisors(head_dim: int, rope: dict[str, Any]) -> np.ndarray:
    """Return by what llama.cpp divides each frequency, as its converter computes it."""
    low, high, context = rope["low_freq_factor"], rope["high_freq_factor"], rope["original_max_position_embeddings"]
    divisors = []
    for index in range(0, head_dim, 2):
        wavelength = 2 * np.pi * rope["rope_theta"] ** (index / head_dim)
        if wavelength < context / high:
            divisors.append(1.0)
        elif wavelength > context / low:
            divisors.append(rope["factor"])
        else:
            smooth = (context / wavelength - low) / (high - low)
            divisors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(divisors, dtype=np.float32)


def _stored(name: str, tensor: np.ndarray, config: Any, family: str) -> np.ndarray:  # noqa: ANN401 -- as above
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
    if family == "llama" and heads:
        split = tensor.reshape(heads, 2, -1, tensor.shape[1])
        return np.ascontiguousarray(split.swapaxes(1, 2)).reshape(tensor.shape)
    return tensor + np.float32(1) if family == "gemma3" and "norm" in name else tensor
