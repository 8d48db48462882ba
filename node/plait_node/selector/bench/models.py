"""The models that are measured: embedded ones with their weights, and small ones of other families drawn at random."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from plait.protocol.tokens import ChatTokenizer
from plait_model.gguf import EMBEDDED_MODELS, find_embedded_model
from plait_model.manifest_build import BuiltModel, build_manifest
from plait_node.selector.errors import UnknownModelError
from plait_node.selector.facts import ModelFacts
from plait_node.selector.observe import model_facts
from plait_node.selector.tasks import word_ids

__all__ = ["MODELS", "SMALL", "BenchModel", "open_model"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchModel:
    """A model's file, its manifest, its shape, and how text becomes ids: as an instruction, or as it stands."""

    path: Path
    built: BuiltModel
    facts: ModelFacts
    instruct: Callable[[str], list[int]] = field(hash=False)
    encode: Callable[[str], list[int]] = field(hash=False)


_COMMON: Final[Mapping[str, Any]] = {
    "vocab_size": 16_384,
    "head_dim": 64,
    "max_position_embeddings": 16_384,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
    "tie_word_embeddings": True,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
_RANDOM: Final[Mapping[str, Mapping[str, Any]]] = {
    "qwen3-24m-random": {
        **_COMMON,
        "model_type": "qwen3",
        "hidden_size": 384,
        "intermediate_size": 1_152,
        "num_hidden_layers": 10,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
    },
    "mistral-65m-random": {
        **_COMMON,
        "model_type": "mistral",
        "hidden_size": 640,
        "intermediate_size": 1_792,
        "num_hidden_layers": 12,
        "num_attention_heads": 10,
        "num_key_value_heads": 2,
        "sliding_window": None,
    },
    "llama-300m-random": {
        **_COMMON,
        "model_type": "llama",
        "hidden_size": 1_024,
        "intermediate_size": 4_096,
        "num_hidden_layers": 16,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
    },
}
MODELS: Final = (*EMBEDDED_MODELS, *_RANDOM)
SMALL: Final = MODELS[:4]  # what a machine without an accelerator runs in reasonable time


def open_model(name: str, folder: Path) -> BenchModel:
    """Return a model; a random one is written into `folder` first. Raise `UnknownModelError`, `ModelError`."""
    if name in EMBEDDED_MODELS:
        path = find_embedded_model(name)
        built = build_manifest(path, name=name, chat_template=EMBEDDED_MODELS[name].chat_template)
        chat = ChatTokenizer.of(
            built.manifest, tokenizer_json=built.tokenizer_json, chat_template=built.chat_template.encode()
        )
        return BenchModel(
            path=path,
            built=built,
            facts=_facts(built, real=True),
            instruct=lambda text: chat.render([{"role": "user", "content": text}]),
            encode=chat.encode,
        )
    if name not in _RANDOM:
        raise UnknownModelError(f"there is no model {name[:64]!r} to measure, only {', '.join(MODELS)}")
    path = _write(name, _RANDOM[name], folder / name)
    built = build_manifest(path, name=name)

    def ids(text: str) -> list[int]:
        return word_ids(text, built.manifest.vocabulary)

    return BenchModel(path=path, built=built, facts=_facts(built, real=False), instruct=ids, encode=ids)


def _facts(built: BuiltModel, *, real: bool) -> ModelFacts:
    found = model_facts(built.manifest, built.tensors, real_weights=real)
    if found is None:
        raise UnknownModelError(f"{built.manifest.architecture} has no family here; measure a model of one that has")
    return found


def _write(name: str, config: Mapping[str, Any], folder: Path) -> Path:
    """Write config, weights and a tokenizer of three words; the same weights each time."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(list(name.encode()))
    files: Any = import_module("safetensors.numpy")  # its types are partly unknown
    files.save_file({key: _drawn(draw, shape) for key, shape in _shapes(config)}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(dict(config)), encoding="utf-8")
    Tokenizer(WordLevel({"<s>": 0, "</s>": 1, "<unk>": 2}, unk_token="<unk>")).save(str(folder / "tokenizer.json"))  # noqa: S106 -- a token of text
    described = {"bos_token": "<s>", "eos_token": "</s>", "chat_template": "{{ messages[0].content }}"}
    (folder / "tokenizer_config.json").write_text(json.dumps(described), encoding="utf-8")
    return folder


def _drawn(draw: np.random.Generator, shape: Sequence[int]) -> np.ndarray[Any, np.dtype[np.float32]]:
    if len(shape) == 1:
        return np.ones(shape, dtype=np.float32)
    return draw.standard_normal(shape, dtype=np.float32) / np.float32(math.sqrt(shape[1]))


def _shapes(config: Mapping[str, Any]) -> list[tuple[str, tuple[int, ...]]]:
    hidden, inner, width = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    wide, narrow = width * config["num_attention_heads"], width * config["num_key_value_heads"]
    block: dict[str, tuple[int, ...]] = {
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
        "self_attn.q_proj": (wide, hidden),
        "self_attn.k_proj": (narrow, hidden),
        "self_attn.v_proj": (narrow, hidden),
        "self_attn.o_proj": (hidden, wide),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    if config["model_type"] == "qwen3":
        block |= {"self_attn.q_norm": (width,), "self_attn.k_norm": (width,)}
    outside = [("model.embed_tokens.weight", (config["vocab_size"], hidden)), ("model.norm.weight", (hidden,))]
    layers = range(config["num_hidden_layers"])
    return [*outside, *((f"model.layers.{at}.{word}.weight", shape) for at in layers for word, shape in block.items())]
