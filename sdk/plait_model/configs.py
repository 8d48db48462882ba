"""Turn a model's configuration from config.json into a manifest's flat words, and from those into transformers'."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, Protocol, cast

import rfc8785
from transformers import AutoConfig

from plait.protocol.manifest import Manifest
from plait_model.errors import UnsupportedModelError
from plait_model.families import FAMILIES, Family, check_config, checked_config, family_of_type, find_family

__all__ = ["LayerConfig", "flat_config", "transformers_config"]

# The word under which a manifest keeps the whole config.json of an architecture that has no family here.
WHOLE: Final = "config_json"

_ROPE_WORDS: Final = {
    "rope_type": "rope_type",
    "rope_theta": "rope_theta",
    "factor": "rope_factor",
    "low_freq_factor": "rope_low_freq_factor",
    "high_freq_factor": "rope_high_freq_factor",
    "original_max_position_embeddings": "rope_original_context",
}
_LETTERS: Final = {"sliding_attention": "s", "full_attention": "f"}
_FOLDED: Final = frozenset({*_ROPE_WORDS.values(), "rope_local_base_freq", "layer_types", "tie_word_embeddings"})
_STATED: Final = ("num_hidden_layers", "hidden_size", "vocab_size", "max_position_embeddings", "tie_word_embeddings")
# Settings that change what a model computes and that no family here has.
_MUST_BE_UNSET: Final = ("final_logit_softcapping", "attn_logit_softcapping", "use_bidirectional_attention")
# Facts of a checkpoint that change nothing of what its model computes.
_NOTES: Final = frozenset(
    {"_name_or_path", "architectures", "auto_map", "dtype", "torch_dtype", "transformers_version"}
)


class LayerConfig(Protocol):
    """The face of transformers' configurations, which are untyped."""

    model_type: str
    num_hidden_layers: int
    hidden_size: int
    vocab_size: int
    max_position_embeddings: int
    tie_word_embeddings: bool
    rope_parameters: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return all words."""
        ...


def flat_config(found: Mapping[str, Any]) -> tuple[str, dict[str, bool | int | float | str]]:
    """Return a manifest's architecture and configuration for the content of a config.json.

    Raises:
        UnsupportedModelError: transformers does not know the architecture, or its words ask for what cannot be run.
    """
    made = _made(found)
    family = family_of_type(made.model_type)
    if family is None and made.model_type in FAMILIES:
        text = FAMILIES[made.model_type].model_type
        raise UnsupportedModelError(f"a {made.model_type!r} model reads more than text; give its text model, {text!r}")
    if family is None:
        words: dict[str, bool | int | float | str] = {word: _stated(made, word) for word in _STATED}
        kept = {word: value for word, value in found.items() if word not in _NOTES}
        try:
            words[WHOLE] = rfc8785.dumps(kept).decode()
        except (rfc8785.CanonicalizationError, RecursionError) as error:
            raise UnsupportedModelError(
                f"config.json has no canonical form: {error}; convert the model anew"
            ) from error
        return made.model_type, words
    for word in _MUST_BE_UNSET:
        if getattr(made, word, None):
            raise UnsupportedModelError(f"{word} is {getattr(made, word)!r}; {family.name} with it is not supported")
    words = {word: _stated(made, word) for word in family.words - _FOLDED}
    words["tie_word_embeddings"] = bool(made.tie_word_embeddings)
    words |= _rope_words(made, family)
    words |= _window_words(made, family)
    check_config(family, words)
    return family.name, words


def transformers_config(manifest: Manifest) -> LayerConfig:
    """Return transformers' configuration for a manifest's; raise `UnsupportedModelError`."""
    family = find_family(manifest.architecture)
    if family is None:
        return _whole_config(manifest)
    config = checked_config(manifest)
    words: dict[str, Any] = {word: value for word, value in config.items() if word not in _FOLDED}
    words["tie_word_embeddings"] = config["tie_word_embeddings"]
    rope = {key: config[word] for key, word in _ROPE_WORDS.items() if word in config}
    rope = {"rope_type": "default", **rope, "rope_theta": float(config["rope_theta"])}
    if "rope_local_base_freq" in config:
        local = {"rope_type": "default", "rope_theta": float(config["rope_local_base_freq"])}
        words["rope_parameters"] = {"full_attention": rope, "sliding_attention": local}
    else:
        words["rope_parameters"] = rope
    if "layer_types" in config:
        kinds = {letter: kind for kind, letter in _LETTERS.items()}
        words["layer_types"] = [kinds[letter] for letter in str(config["layer_types"])]
        # Where only some models of a family have windows, its configuration wants to be told twice.
        words |= {} if "layer_types" in family.words else {"use_sliding_window": True}
    # Absent means none; transformers' default is a window.
    words.setdefault("sliding_window", None)
    return _made({**words, "model_type": family.model_type})


def _whole_config(manifest: Manifest) -> LayerConfig:
    """Return the configuration of an architecture without a family, after comparing it with the manifest."""
    whole = manifest.config.get(WHOLE)
    if not isinstance(whole, str):
        known = ", ".join(sorted(FAMILIES))
        raise UnsupportedModelError(
            f"architecture {manifest.architecture!r} is not supported; this version runs: {known}, and what "
            "transformers has as a plain decoder, from a folder with config.json"
        )
    try:
        found: object = json.loads(whole)
    except (ValueError, RecursionError) as error:
        raise UnsupportedModelError(f"the manifest's {WHOLE} is no JSON: {error}; publish the model anew") from error
    if not isinstance(found, dict):
        raise UnsupportedModelError(f"the manifest's {WHOLE} is no JSON object; publish the model anew")
    made = _made(cast("dict[str, Any]", found))
    stated: dict[str, object] = {word: manifest.config.get(word) for word in _STATED}
    stated |= {"num_hidden_layers": manifest.blocks, "hidden_size": manifest.hidden}
    stated |= {"vocab_size": manifest.vocabulary, "max_position_embeddings": manifest.context}
    wrong = sorted(word for word, value in stated.items() if getattr(made, word, None) != value)
    if made.model_type != manifest.architecture:
        wrong.append("architecture")
    if wrong:
        raise UnsupportedModelError(
            f"the manifest contradicts its config in {', '.join(wrong)}; publish the model anew"
        )
    return made


def _made(words: Mapping[str, Any]) -> LayerConfig:
    kind = words.get("model_type")
    if not isinstance(kind, str):
        raise UnsupportedModelError("config.json names no model_type; give a model's folder as transformers saves it")
    if words.get("quantization_config"):
        raise UnsupportedModelError(
            "the weights are quantised in a way of their own; give them as F32, F16, BF16 or GGUF"
        )
    # A kernel may be named that transformers would fetch and run.
    rest = {
        word: value
        for word, value in words.items()
        if word != "model_type" and "implementation" not in word and not word.startswith("_")
    }
    try:
        made = cast("Any", AutoConfig).for_model(kind, **rest, attn_implementation="sdpa")
    # Transformers checks words by many means, each with its own exception.
    except Exception as error:
        raise UnsupportedModelError(f"transformers does not take this config of a {kind!r} model: {error}") from error
    return cast("LayerConfig", made)


def _stated(made: LayerConfig, word: str) -> bool | int | float | str:
    value = getattr(made, word, None)
    if word == "head_dim" and value is None:
        value = made.hidden_size // int(_stated(made, "num_attention_heads"))
    if not isinstance(value, bool | int | float | str):
        raise UnsupportedModelError(f"config.json says {value!r} for {word}; a {made.model_type} model needs a value")
    return value


def _rope_words(made: LayerConfig, family: Family) -> dict[str, bool | int | float | str]:
    rope = made.rope_parameters
    words: dict[str, bool | int | float | str] = {}
    if "rope_local_base_freq" in family.words:
        local = rope["sliding_attention"]
        if set(local) - {"rope_type", "rope_theta"} or local["rope_type"] != "default":
            raise UnsupportedModelError(f"rotary scaling {local} of sliding blocks is not supported; only default is")
        words["rope_local_base_freq"] = float(local["rope_theta"])
        rope = rope["full_attention"]
    # Older files say the kind twice, by its old name too; a factor of one rotates all of a head.
    rope = {
        key: value for key, value in rope.items() if key != "type" and (key, value) != ("partial_rotary_factor", 1.0)
    }
    unknown = sorted(set(rope) - set(_ROPE_WORDS))
    if unknown:
        raise UnsupportedModelError(f"rotary scaling with {', '.join(unknown)} is not supported for {family.name}")
    words |= {_ROPE_WORDS[key]: value for key, value in rope.items()}
    if words["rope_type"] == "default":
        del words["rope_type"]
    words["rope_theta"] = float(words["rope_theta"])
    return words


def _window_words(made: LayerConfig, family: Family) -> dict[str, bool | int | float | str]:
    window: int | None = getattr(made, "sliding_window", None)
    kinds: list[str] = getattr(made, "layer_types", None) or []
    unknown = sorted(set(kinds) - set(_LETTERS))
    if unknown:
        raise UnsupportedModelError(f"blocks of kind {', '.join(unknown)} are not supported for {family.name}")
    letters = "".join(_LETTERS[kind] for kind in kinds)
    if window is None or (kinds and "s" not in letters and "layer_types" not in family.words):
        return {}
    return {"sliding_window": window, "layer_types": letters} if kinds else {"sliding_window": window}
