"""Say how each known family lies in its files, and what its decoder looks like.

One file per family; `base` says what a family is, `common` holds what they share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from plait.protocol.manifest import Manifest
from plait_model.errors import UnsupportedModelError
from plait_model.families.base import EMBEDDING, HEAD, NORM, Config, DecoderShape, Family, Rope
from plait_model.families.common import gguf_number
from plait_model.families.gemma3 import GEMMA3
from plait_model.families.llama import DIVISORS, LLAMA
from plait_model.families.mistral import MISTRAL
from plait_model.families.qwen2 import QWEN2
from plait_model.families.qwen3 import QWEN3

if TYPE_CHECKING:
    from collections.abc import Mapping

    from plait_model.gguf import GgufFile

__all__ = [
    "EMBEDDING",
    "FAMILIES",
    "HEAD",
    "NORM",
    "Config",
    "DecoderShape",
    "Family",
    "Rope",
    "check_config",
    "checked_config",
    "family_of",
    "family_of_type",
    "find_family",
    "read_config",
    "shape_of",
]

FAMILIES: Final[Mapping[str, Family]] = {family.name: family for family in (GEMMA3, LLAMA, MISTRAL, QWEN2, QWEN3)}


def find_family(architecture: str) -> Family | None:
    """Return a family by the manifest's name for it; none for an architecture that only transformers' layers run."""
    return FAMILIES.get(architecture)


def family_of(architecture: str) -> Family:
    """Return a family by the manifest's name for it; raise `UnsupportedModelError`."""
    family = FAMILIES.get(architecture)
    if family is None:
        known = ", ".join(sorted(FAMILIES))
        raise UnsupportedModelError(f"architecture {architecture!r} is not supported; this version runs: {known}")
    return family


def family_of_type(model_type: str) -> Family | None:
    """Return a family by transformers' name for it; none for any other architecture."""
    return next((family for family in FAMILIES.values() if family.model_type == model_type), None)


def read_config(file: GgufFile) -> dict[str, bool | int | float | str]:
    """Return the configuration of the whole model, in transformers' words.

    Raises:
        UnsupportedModelError: a family, a kind of rotary scaling or a tensor that is not known.
        MalformedGgufError: a value is missing or absurd.
    """
    architecture = str(file.scalar("general.architecture"))
    family = family_of(architecture)
    config: dict[str, bool | int | float | str] = dict(family.constants)
    for key, word in family.config.items():
        full = f"{architecture}.{key}"
        if word == "vocab_size" and file.scalar(full) is None and EMBEDDING in file.tensors:
            config[word] = file.tensors[EMBEDDING].shape[0]
        else:
            config[word] = gguf_number(file, full)
    family.more_config(file, config)
    if DIVISORS in file.tensors and config.get("rope_type") != "llama3":
        raise UnsupportedModelError(f"{DIVISORS} is not supported for {architecture}; give the model as safetensors")
    config["tie_word_embeddings"] = HEAD not in file.tensors
    return config


def checked_config(manifest: Manifest) -> Config:
    """Return a manifest's configuration; raise `UnsupportedModelError` if it lacks a word or contradicts itself."""
    found = {word: value for word, value in manifest.config.items() if value is not None}
    check_config(family_of(manifest.architecture), found)
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
    return found


def check_config(family: Family, config: Config) -> None:
    """Check that a family's words are all there and make sense together; raise `UnsupportedModelError`."""
    missing = sorted(family.words - set(config))
    if missing:
        raise UnsupportedModelError(f"the manifest's config lacks {', '.join(missing)}; publish the model anew")
    for word, value in family.constants.items():
        if config[word] != value:
            raise UnsupportedModelError(
                f"{word} is {config[word]!r}; of {family.name}, this version runs {value!r} only"
            )
    try:
        shape = family.shape(config)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise UnsupportedModelError(f"the manifest's config is absurd: {error}; publish the model anew") from error
    heads, groups = shape.heads, shape.kv_heads
    numbers = (shape.blocks, shape.hidden, shape.inner, shape.vocabulary, shape.context, shape.norm_eps)
    if min(*numbers, *(rope.theta for rope in shape.rope), *(rope.factor for rope in shape.rope)) <= 0:
        raise UnsupportedModelError("the manifest's config has a size, base or factor of 0 or less; publish it anew")
    if heads < 1 or groups < 1 or shape.hidden % heads or heads % groups:
        raise UnsupportedModelError(f"{heads} heads in {groups} groups do not divide {shape.hidden} columns")
    if shape.head_dim < 2 or shape.head_dim % 2:
        raise UnsupportedModelError(f"heads of width {shape.head_dim} cannot be rotated; an even width is needed")


def shape_of(manifest: Manifest) -> DecoderShape:
    """Return the shape of a manifest's decoder; raise `UnsupportedModelError`."""
    return family_of(manifest.architecture).shape(checked_config(manifest))
