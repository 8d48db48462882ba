"""Say how each known family lies in GGUF: config keys, tensor names, and what was reordered on the way in.

One entry per family; all else in this package is common to them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from plait.protocol.manifest import Manifest
from plait_model.errors import MalformedGgufError, UnsupportedModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from plait_model.gguf import GgufFile

__all__ = ["EMBEDDING", "FAMILIES", "HEAD", "NORM", "Config", "Family", "checked_config", "family_of", "read_config"]

Config = Mapping[str, bool | int | float | str]

EMBEDDING: Final = "token_embd.weight"
NORM: Final = "output_norm.weight"
HEAD: Final = "output.weight"


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One model family; tensor names are those of a block, without their `blk.N.` and layer prefixes."""

    config: Mapping[str, str]
    constants: Config
    tensors: Mapping[str, str]
    restore: Callable[[str, NDArray[np.float32], Config], NDArray[np.float32]]


def _restore_llama(name: str, tensor: NDArray[np.float32], config: Config) -> NDArray[np.float32]:
    """Undo llama.cpp's interleaving of the two rotary halves in query and key rows."""
    heads = {"attn_q.weight": "num_attention_heads", "attn_k.weight": "num_key_value_heads"}.get(name)
    if heads is None:
        return tensor
    count = int(config[heads])
    if tensor.ndim != 2 or tensor.shape[0] % (2 * count):
        raise MalformedGgufError(f"{name} of shape {tensor.shape} is not {count} heads of even width")
    split = tensor.reshape(count, -1, 2, tensor.shape[1])
    return np.ascontiguousarray(split.swapaxes(1, 2)).reshape(tensor.shape)


FAMILIES: Final[Mapping[str, Family]] = {
    "llama": Family(
        config={
            "block_count": "num_hidden_layers",
            "context_length": "max_position_embeddings",
            "embedding_length": "hidden_size",
            "feed_forward_length": "intermediate_size",
            "attention.head_count": "num_attention_heads",
            "attention.head_count_kv": "num_key_value_heads",
            "attention.layer_norm_rms_epsilon": "rms_norm_eps",
            "rope.dimension_count": "head_dim",
            "rope.freq_base": "rope_theta",
            "vocab_size": "vocab_size",
        },
        constants={"attention_bias": False, "hidden_act": "silu", "mlp_bias": False},
        tensors={
            "attn_norm.weight": "input_layernorm.weight",
            "attn_q.weight": "self_attn.q_proj.weight",
            "attn_k.weight": "self_attn.k_proj.weight",
            "attn_v.weight": "self_attn.v_proj.weight",
            "attn_output.weight": "self_attn.o_proj.weight",
            "ffn_norm.weight": "post_attention_layernorm.weight",
            "ffn_gate.weight": "mlp.gate_proj.weight",
            "ffn_up.weight": "mlp.up_proj.weight",
            "ffn_down.weight": "mlp.down_proj.weight",
        },
        restore=_restore_llama,
    ),
}


def family_of(architecture: str) -> Family:
    """Return a family by GGUF's name for it; raise `UnsupportedModelError`."""
    family = FAMILIES.get(architecture)
    if family is None:
        known = ", ".join(sorted(FAMILIES))
        raise UnsupportedModelError(f"architecture {architecture!r} is not supported; this version runs: {known}")
    return family


def read_config(file: GgufFile) -> dict[str, bool | int | float | str]:
    """Return the configuration of the whole model, in transformers' words.

    Raises:
        UnsupportedModelError: a family or a kind of rotary scaling that is not known.
        MalformedGgufError: a value is missing or absurd.
    """
    architecture = str(file.scalar("general.architecture"))
    family = family_of(architecture)
    if file.scalar(f"{architecture}.rope.scaling.type") not in (None, "none"):
        raise UnsupportedModelError("rotary scaling is not supported yet; give a model without it")
    config: dict[str, bool | int | float | str] = dict(family.constants)
    for key, word in family.config.items():
        config[word] = _number(file, f"{architecture}.{key}")
    config["tie_word_embeddings"] = HEAD not in file.tensors
    return config


def checked_config(manifest: Manifest) -> Config:
    """Return a manifest's configuration; raise `UnsupportedModelError` if it lacks a word or contradicts itself."""
    family = family_of(manifest.architecture)
    found = {word: value for word, value in manifest.config.items() if value is not None}
    missing = sorted({*family.config.values(), "tie_word_embeddings"} - set(found))
    if missing:
        raise UnsupportedModelError(f"the manifest's config lacks {', '.join(missing)}; publish the model anew")
    stated = {
        "num_hidden_layers": manifest.blocks,
        "hidden_size": manifest.hidden,
        "vocab_size": manifest.vocabulary,
        "max_position_embeddings": manifest.context,
    }
    wrong = sorted(word for word, value in stated.items() if found[word] != value)
    if wrong:
        raise UnsupportedModelError(
            f"the manifest contradicts its config in {', '.join(wrong)}; publish the model anew"
        )
    heads, groups = int(found["num_attention_heads"]), int(found["num_key_value_heads"])
    if heads < 1 or groups < 1 or manifest.hidden % heads or heads % groups:
        raise UnsupportedModelError(f"{heads} heads in {groups} groups do not divide {manifest.hidden} columns")
    return found


def _number(file: GgufFile, key: str) -> int | float:
    value = file.scalar(key)
    if isinstance(value, float):
        # GGUF keeps 32 bits; the shortest decimal that gives the same 32 bits is what the publisher wrote.
        value = float(str(np.float32(value)))
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 2**31:
        raise MalformedGgufError(f"{key} is {value!r}; a positive number is needed, convert the model anew")
    return value
