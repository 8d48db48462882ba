"""What one model family is: its names in each kind of file, and the shape of its decoder as plain data."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from plait_model.gguf import GgufFile

__all__ = ["EMBEDDING", "HEAD", "NORM", "Config", "DecoderShape", "Family", "MoreConfig", "Restore", "Rope", "keep"]

# A model's configuration in transformers' words, flat: a manifest holds numbers, strings and booleans only. Words for
# what transformers nests are `rope_type`, `rope_factor`, `rope_low_freq_factor`, `rope_high_freq_factor`,
# `rope_original_context`, and `layer_types`, one letter per block: "s" sees a window of the last keys, "f" all of them.
Config = Mapping[str, bool | int | float | str]

# Names in GGUF; `weights` knows those of Hugging Face.
EMBEDDING: Final = "token_embd.weight"
NORM: Final = "output_norm.weight"
HEAD: Final = "output.weight"

Restore = Callable[[str, "NDArray[np.float32]", Config], "NDArray[np.float32]"]
MoreConfig = Callable[["GgufFile", dict[str, bool | int | float | str]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rope:
    """Rotary embedding of one block: base, linear scaling, and Llama 3's scaling where `original_context` is given."""

    theta: float
    factor: float = 1.0
    low_freq_factor: float | None = None
    high_freq_factor: float | None = None
    original_context: int | None = None

    def inverse_frequencies(self, head_dim: int) -> NDArray[np.float32]:
        """Return head_dim / 2 radians per step, bit for bit those of transformers on the same machine."""
        import torch  # noqa: PLC0415 -- torch's power differs from numpy's in the last bit; shapes alone need neither

        frequencies = 1.0 / (self.theta ** (torch.arange(0, head_dim, 2, dtype=torch.float) / head_dim))
        low, high, context = self.low_freq_factor, self.high_freq_factor, self.original_context
        if low is None or high is None or context is None:
            return (frequencies / self.factor).numpy()
        wavelengths = 2 * math.pi / frequencies
        slow = wavelengths > context / low
        scaled = torch.where(slow, frequencies / self.factor, frequencies)
        smooth = (context / wavelengths - low) / (high - low)
        blended = (1 - smooth) * scaled / self.factor + smooth * scaled
        between = ~(wavelengths < context / high) * ~slow
        return torch.where(between, blended, scaled).numpy()


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderShape:
    """All that a decoder of this package's families needs to know besides the weights.

    `windows` has one entry per block: 0 sees all keys, w sees the last w keys, its own step included. A norm's scale
    is weight + `norm_offset`. `qk_norm` norms each head of queries and keys before the rotation; `sandwich` norms what
    attention and MLP give, too, before it is added.
    """

    blocks: int
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    context: int
    norm_eps: float
    norm_offset: float
    activation: Literal["silu", "gelu_tanh"]
    qkv_bias: bool
    qk_norm: bool
    sandwich: bool
    embed_scale: float
    attention_scale: float
    windows: tuple[int, ...]
    rope: tuple[Rope, ...]
    tied: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One model family; tensor names are those of a block, without their `blk.N.` and `model.layers.N.` prefixes.

    `name` is GGUF's and the manifest's word for it, `model_type` transformers'. `config` maps GGUF keys, without the
    architecture's prefix, to words; `constants` are words with one value in all models of the family that this version
    runs; `more_config` adds `more_words`, which GGUF says by other means, and may refuse the file. `restore` turns a
    tensor of a GGUF file into transformers'.
    """

    name: str
    model_type: str
    config: Mapping[str, str]
    constants: Config
    more_words: tuple[str, ...]
    more_config: MoreConfig
    tensors: Mapping[str, str]
    restore: Restore
    shape: Callable[[Config], DecoderShape]

    @property
    def words(self) -> frozenset[str]:
        """Return the words that every configuration of the family has."""
        return frozenset({*self.config.values(), *self.constants, *self.more_words, "tie_word_embeddings"})


def keep(_name: str, tensor: NDArray[np.float32], _config: Config) -> NDArray[np.float32]:
    """Return the tensor of a family whose tensors lie in GGUF as transformers has them."""
    return tensor
