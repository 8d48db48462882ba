"""What a manifest says of a model besides its weights, read from the header of a GGUF file."""

from __future__ import annotations

import re
from dataclasses import dataclass

from plait_model.errors import MalformedGgufError
from plait_model.families import Config, read_config
from plait_model.gguf import GgufFile
from plait_model.tokenizer_build import build_tokenizer

__all__ = ["Facts", "gguf_facts", "slug"]

_END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a file or folder says of its model; end tokens are without repeats, lowest first."""

    name: str
    architecture: str
    config: Config
    tokenizer_json: bytes
    chat_template: str
    bos_token: str
    eos_token: str
    end_tokens: tuple[int, ...]
    licence: str


def gguf_facts(file: GgufFile, *, chat_template: str | None) -> Facts:
    """Return the facts; `chat_template` stands in where the file has none.

    Raises:
        MalformedGgufError: a fact is missing, or a number is absurd.
        UnsupportedModelError: a family, a kind of rotary scaling or a tokenizer that is not known.
    """
    config = read_config(file)
    vocabulary = file.array("tokenizer.ggml.tokens") or []
    found = file.scalar("tokenizer.chat_template")
    return Facts(
        name=slug(str(file.scalar("general.name") or file.path.stem)),
        architecture=_text(file, "general.architecture"),
        config=config,
        tokenizer_json=build_tokenizer(file.path),
        chat_template=chat_template if chat_template and not found else _text(file, "tokenizer.chat_template"),
        bos_token=_token(file, vocabulary, "bos_token_id"),
        eos_token=_token(file, vocabulary, "eos_token_id"),
        end_tokens=_end_tokens(file, len(vocabulary)),
        licence=str(file.scalar("general.license") or "unknown"),
    )


def slug(name: str) -> str:
    """Return a name in lower case, of letters, digits, dots and dashes."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")


def _text(file: GgufFile, key: str) -> str:
    value = file.scalar(key)
    if not isinstance(value, str) or not value:
        raise MalformedGgufError(f"{file.path.name} has no {key}; convert the model anew")
    return value


def _token(file: GgufFile, vocabulary: list[bool | int | float | str], key: str) -> str:
    value = file.scalar(f"tokenizer.ggml.{key}")
    if not isinstance(value, int):
        return ""
    if not 0 <= value < len(vocabulary):
        raise MalformedGgufError(f"{key} is {value}, outside the vocabulary; convert the model anew")
    return str(vocabulary[value])


def _end_tokens(file: GgufFile, size: int) -> tuple[int, ...]:
    found = {file.scalar(f"tokenizer.ggml.{key}") for key in _END_KEYS}
    ends = sorted(value for value in found if isinstance(value, int) and 0 <= value < size)
    if not ends:
        raise MalformedGgufError(f"{file.path.name} names no end token; convert the model anew")
    return tuple(ends)
