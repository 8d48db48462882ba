"""Write a small random model of each family as transformers saves it, every feature of the family showing.

All have grouped queries; heads whose width is not hidden / heads where the family allows it; windows shorter than
`PROMPT` steps; non-zero biases; norms far from one. Tied head: qwen2, gemma3.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import torch
from tests.model.tiny import SPECIAL, TEMPLATE, VOCABULARY
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

FAMILIES: Final = ("llama", "qwen2", "qwen3", "gemma3", "mistral")
# Architectures that run by transformers' own layers only.
OTHERS: Final = ("olmo2", "phi3", "granite")
CONTEXT: Final = 128
# Steps after which every window has moved.
PROMPT: Final = 12

logging.disable_progress_bar()

_COMMON: Final[dict[str, Any]] = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_LLAMA3: Final = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
_DEFAULT: Final = {"rope_type": "default", "rope_theta": 10_000.0}
_GEMMA_ROPE: Final = {
    "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1_000_000.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
}
_OWN: Final[dict[str, dict[str, Any]]] = {
    "llama": {"head_dim": 24, "rope_parameters": _LLAMA3},
    "qwen2": {
        "rope_parameters": _DEFAULT,
        "tie_word_embeddings": True,
        "use_sliding_window": True,
        "sliding_window": 5,
        "max_window_layers": 2,
    },
    "qwen3": {"head_dim": 24, "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1_000_000.0}},
    "gemma3": {
        "head_dim": 24,
        "num_hidden_layers": 7,
        "num_key_value_heads": 1,
        "query_pre_attn_scalar": 48,
        "sliding_window": 5,
        "rope_parameters": _GEMMA_ROPE,
        "tie_word_embeddings": True,
    },
    "mistral": {"head_dim": 24, "sliding_window": 6, "rope_parameters": _DEFAULT},
    "olmo2": {"rope_parameters": _DEFAULT},
    "phi3": {"rope_parameters": _DEFAULT, "sliding_window": 7},
    "granite": {"rope_parameters": _DEFAULT},
}


def tiny_config(family: str, **changed: Any) -> Any:  # noqa: ANN401 -- transformers has no types
    """Return transformers' configuration of a tiny model; `changed` replaces words of it."""
    words = {**_COMMON, **_OWN[family], **changed}
    return AutoConfig.for_model("gemma3_text" if family == "gemma3" else family, **words)


def write_family(
    folder: Path,
    family: str,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    shard: str = "5GB",
    changed: dict[str, Any] | None = None,
) -> Path:
    """Write config, weights, tokenizer and template into the folder and return it."""
    config = tiny_config(family, **(changed or {}))
    model = AutoModelForCausalLM.from_config(config).to(dtype)
    draw = torch.Generator().manual_seed(seed)
    centre = 0.0 if family == "gemma3" else 1.0
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=draw)
            if weight.ndim == 2:
                # Embeddings of unit length keep tied logits apart without making them huge.
                weight.copy_(noise * (1.5 if "layers" in name else 1.0) / weight.shape[1] ** 0.5)
            else:
                weight.copy_(noise * 0.3 + (0.0 if name.endswith("bias") else centre))
    model.save_pretrained(folder, max_shard_size=shard)
    tokenizer().save(str(folder / "tokenizer.json"))
    described = {"bos_token": SPECIAL[1], "eos_token": SPECIAL[2], "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(described))
    return folder


def tokenizer() -> Tokenizer:
    """Return byte-level BPE over the vocabulary of `tiny`, its special tokens whole."""
    ids = {token: index for index, token in enumerate(VOCABULARY)}
    made = Tokenizer(models.BPE(vocab=ids, merges=[("Ġ", "a"), ("h", "e"), ("l", "l")]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL])
    return made
