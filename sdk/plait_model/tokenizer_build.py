"""Rebuild tokenizer.json from the vocabulary in a GGUF file, by transformers' own conversion."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, cast

from tokenizers import Tokenizer, pre_tokenizers
from transformers.integrations.gguf import gguf_tokenizer_mapping

from plait_model.errors import UnsupportedModelError

__all__ = ["build_tokenizer"]

# Splits that transformers 5.23 takes for GPT-2's: these vocabularies split off every single digit first
# (llama.cpp applies \p{N} before GPT-2's pattern for the same names).
_SINGLE_DIGITS = frozenset({"codeshell", "command-r", "exaone", "minerva-7b", "refact", "smollm", "starcoder"})


class _Conversion(Protocol):
    """The face of transformers' untyped module."""

    def get_gguf_tokenizer(self, gguf_path: str) -> tuple[str, dict[str, Any], dict[str, Any]]: ...

    def convert_gguf_tokenizer(
        self, architecture: str, tokenizer_dict: dict[str, Any]
    ) -> tuple[Tokenizer, dict[str, Any]]: ...


def build_tokenizer(path: Path) -> bytes:
    """Return tokenizer.json for a GGUF file; raise `UnsupportedModelError` for an unknown kind of vocabulary."""
    conversion = cast("_Conversion", gguf_tokenizer_mapping)
    try:
        architecture, described, _ = conversion.get_gguf_tokenizer(str(path))
        backend, _ = conversion.convert_gguf_tokenizer(architecture, described)
    except (KeyError, ValueError) as error:
        raise UnsupportedModelError(f"no tokenizer can be built from {path.name}: {error}") from error
    if described.get("pre_tokenizer_type") in _SINGLE_DIGITS:
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    return backend.to_str().encode()
