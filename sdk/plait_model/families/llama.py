"""Llama, SmolLM2, and what else GGUF files call `llama`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from plait_model.errors import UnsupportedModelError
from plait_model.families.base import Family, Rope
from plait_model.families.common import KEYS, TENSORS, decoder_shape, gguf_rope, unpermuted

if TYPE_CHECKING:
    from plait_model.gguf import GgufFile

__all__ = ["DIVISORS", "LLAMA"]

# GGUF keeps Llama 3's scaling as a tensor of divisors, not as the numbers it came from; these are Meta's.
DIVISORS: Final = "rope_freqs.weight"
_LLAMA3_FACTORS: Final = (8.0, 32.0)
_LOW, _HIGH, _CONTEXT = 1.0, 4.0, 8192


def _more_config(file: GgufFile, config: dict[str, bool | int | float | str]) -> None:
    gguf_rope(file, config)
    if DIVISORS not in file.tensors:
        return
    divisors, theta, width = file.read(DIVISORS), float(config["rope_theta"]), int(config["head_dim"])
    plain = Rope(theta=theta).inverse_frequencies(width)
    for factor in _LLAMA3_FACTORS:
        scaled = Rope(
            theta=theta, factor=factor, low_freq_factor=_LOW, high_freq_factor=_HIGH, original_context=_CONTEXT
        ).inverse_frequencies(width)
        if divisors.shape == plain.shape and np.allclose(plain / scaled, divisors, rtol=1e-4, atol=0):
            config["rope_type"] = "llama3"
            config["rope_factor"] = factor
            config["rope_low_freq_factor"] = _LOW
            config["rope_high_freq_factor"] = _HIGH
            config["rope_original_context"] = _CONTEXT
            return
    raise UnsupportedModelError(f"{DIVISORS} is not Llama 3's rotary scaling; give the model as safetensors")


LLAMA: Final = Family(
    name="llama",
    model_type="llama",
    config={**KEYS, "rope.dimension_count": "head_dim", "vocab_size": "vocab_size"},
    constants={"attention_bias": False, "hidden_act": "silu", "mlp_bias": False},
    more_words=(),
    more_config=_more_config,
    tensors=TENSORS,
    restore=unpermuted,
    shape=decoder_shape,
)
