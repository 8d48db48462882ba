"""Build a manifest, and the files it names, out of a GGUF file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from plait.protocol.ids import keccak
from plait.protocol.manifest import FP32_STRICT, Manifest, Tensor, weights_root
from plait_model.errors import MalformedGgufError
from plait_model.families import EMBEDDING, read_config
from plait_model.gguf import GgufFile
from plait_model.tokenizer_build import build_tokenizer

__all__ = ["BuiltModel", "build_manifest"]

_END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltModel:
    """A manifest with the contents of the files that it names by hash."""

    manifest: Manifest
    tokenizer_json: bytes
    chat_template: str
    tensors: tuple[Tensor, ...]


def build_manifest(path: Path, *, name: str | None = None) -> BuiltModel:
    """Build the manifest of a GGUF file; `name` is the file's own by default.

    Raises:
        ModelError: the file is missing, damaged, or of a kind that this version does not know.
    """
    with GgufFile.open(path) as file:
        config = read_config(file)
        tensors = file.list_tensors()
        template = _text(file, "tokenizer.chat_template")
        vocabulary = file.array("tokenizer.ggml.tokens") or []
        tokenizer = build_tokenizer(path)
        manifest = Manifest(
            name=name or _slug(_text(file, "general.name")),
            architecture=_text(file, "general.architecture"),
            config=config,
            blocks=int(config["num_hidden_layers"]),
            hidden=int(config["hidden_size"]),
            vocabulary=file.tensors[EMBEDDING].shape[0],
            context=int(config["max_position_embeddings"]),
            tokenizer=keccak(tokenizer),
            chat_template=keccak(template.encode()),
            bos_token=_token(file, vocabulary, "bos_token_id"),
            eos_token=_token(file, vocabulary, "eos_token_id"),
            end_tokens=_end_tokens(file, len(vocabulary)),
            weights=weights_root(tensors),
            licence=str(file.scalar("general.license") or "unknown"),
            profiles=(FP32_STRICT,),
        )
    return BuiltModel(manifest=manifest, tokenizer_json=tokenizer, chat_template=template, tensors=tensors)


def _text(file: GgufFile, key: str) -> str:
    value = file.scalar(key)
    if not isinstance(value, str) or not value:
        raise MalformedGgufError(f"{file.path.name} has no {key}; convert the model anew")
    return value


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")


def _token(file: GgufFile, vocabulary: list[bool | int | float | str], key: str) -> str:
    value = file.scalar(f"tokenizer.ggml.{key}")
    if not isinstance(value, int):
        return ""
    if not 0 <= value < len(vocabulary):
        raise MalformedGgufError(f"{key} is {value}, outside the vocabulary; convert the model anew")
    return str(vocabulary[value])


def _end_tokens(file: GgufFile, size: int) -> tuple[int, ...]:
    """Return the ids that end an answer: the file's, without repeats, lowest first."""
    found = {file.scalar(f"tokenizer.ggml.{key}") for key in _END_KEYS}
    ends = sorted(value for value in found if isinstance(value, int) and 0 <= value < size)
    if not ends:
        raise MalformedGgufError(f"{file.path.name} names no end token; convert the model anew")
    return tuple(ends)
