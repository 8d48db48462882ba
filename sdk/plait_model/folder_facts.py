"""What a manifest says of a model besides its weights, read from the files beside safetensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

from tokenizers import Tokenizer

from plait_model.configs import flat_config
from plait_model.errors import MalformedFolderError, ModelNotFoundError
from plait_model.gguf_facts import Facts, slug
from plait_model.safetensors_folder import SafetensorsFolder, read_json

__all__ = ["folder_facts"]

_TEMPLATE: Final = "chat_template.jinja"
_LICENCE: Final = re.compile(r"\A---\n(?:(?!---).*\n)*?license: *([\w.+-]+) *\n")
_MAX_TEXT: Final = 1_024 * 1_024


def folder_facts(file: SafetensorsFolder, *, chat_template: str | None) -> Facts:
    """Return the facts; `chat_template` stands in where the folder has none.

    Raises:
        ModelNotFoundError: config.json or tokenizer.json is missing.
        MalformedFolderError: a file is damaged, or there is no chat template or end token.
        UnsupportedModelError: the architecture cannot be run.
    """
    folder = file.path if file.path.is_dir() else file.path.parent
    config_json = read_json(folder / "config.json")
    architecture, config = flat_config(config_json)
    described = _optional(folder / "tokenizer_config.json")
    raw, tokenizer = _tokenizer(folder / "tokenizer.json", int(config["vocab_size"]))
    eos = _token(described.get("eos_token"))
    return Facts(
        name=slug(file.path.resolve().stem if file.path.is_file() else file.path.resolve().name),
        architecture=architecture,
        config=config,
        tokenizer_json=raw,
        chat_template=_template(folder, described) or chat_template or _no_template(folder),
        bos_token=_token(described.get("bos_token")),
        eos_token=eos,
        end_tokens=_end_tokens(folder, (config_json, _optional(folder / "generation_config.json")), tokenizer, eos),
        licence=_licence(folder / "README.md"),
    )


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _read_text(path: Path) -> str:
    """Return a text file; raise `MalformedFolderError` if it is no UTF-8 text of at most 1 MiB."""
    try:
        raw = path.read_bytes() if path.stat().st_size <= _MAX_TEXT else b"\xff"
        return raw.decode()
    except OSError as error:
        raise ModelNotFoundError(f"cannot open {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise MalformedFolderError(f"{path} is no UTF-8 text of at most {_MAX_TEXT} bytes; fetch it again") from error


def _tokenizer(path: Path, vocabulary: int) -> tuple[bytes, Tokenizer]:
    """Return tokenizer.json as it lies there, and what it describes."""
    try:
        raw = path.read_bytes()
        made = Tokenizer.from_str(raw.decode())
    except OSError as error:
        raise ModelNotFoundError(
            f"cannot open {path}: {error.strerror}; save the model with its fast tokenizer"
        ) from error
    # tokenizers raises bare Exception
    except Exception as error:
        raise MalformedFolderError(f"{path} is no tokenizer that `tokenizers` can read; fetch it again") from error
    highest = max(made.get_vocab(with_added_tokens=True).values(), default=-1)
    if not 0 <= highest < vocabulary:
        raise MalformedFolderError(f"{path} knows id {highest}; config.json has {vocabulary} ids; fetch both again")
    return raw, made


def _template(folder: Path, described: Mapping[str, Any]) -> str:
    """Return the chat template, of several the default one; empty where there is none."""
    if (folder / _TEMPLATE).exists():
        return _read_text(folder / _TEMPLATE)
    found: object = described.get("chat_template")
    if isinstance(found, list):
        named = [cast("dict[str, object]", item) for item in cast("list[object]", found) if isinstance(item, dict)]
        found = next((item.get("template") for item in named if item.get("name") == "default"), None)
    return found if isinstance(found, str) else ""


def _no_template(folder: Path) -> str:
    raise MalformedFolderError(
        f"{folder} has no chat template: put {_TEMPLATE} into it; a base model's may be one line"
    )


def _token(found: object) -> str:
    """Return a special token, which may be written as text or as an object; empty for none."""
    text = cast("dict[str, object]", found).get("content") if isinstance(found, dict) else found
    return text if isinstance(text, str) else ""


def _end_tokens(
    folder: Path, configs: tuple[Mapping[str, Any], ...], tokenizer: Tokenizer, eos: str
) -> tuple[int, ...]:
    """Return the ids that end an answer: those of both configs and the tokenizer's, without repeats, lowest first."""
    found = {tokenizer.token_to_id(eos)} if eos else set[int | None]()
    for config in configs:
        value: object = config.get("eos_token_id")
        found |= set(cast("list[int | None]", value if isinstance(value, list) else [value]))
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    ends = sorted(value for value in found if type(value) is int and 0 <= value < size)
    if not ends:
        raise MalformedFolderError(f"{folder} names no end token; put eos_token_id into generation_config.json")
    return tuple(ends)


def _licence(path: Path) -> str:
    """Return what the model card's head says; `unknown` without one."""
    found = _LICENCE.match(_read_text(path)) if path.exists() else None
    return found[1] if found else "unknown"
