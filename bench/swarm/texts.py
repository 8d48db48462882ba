"""Prompts: made-up ids, since what a step costs does not depend on them, and texts where guessing does."""

from __future__ import annotations

import random
from typing import Final

from tokenizers import Tokenizer

__all__ = ["PROSE", "REPETITIVE", "ids_of", "made_up"]

REPETITIVE: Final = "status=ok retries=0 queue=empty; " * 16
PROSE: Final = (
    "The lighthouse had stood on its rock for longer than anyone in the village could remember. In winter the waves "
    "climbed halfway up its walls, and the keeper, who had lost most of his hearing, slept through them all the same. "
)


def ids_of(model: str, text: str) -> list[int]:
    """Return the ids of a text for an embedded model."""
    from bench.models import built  # noqa: PLC0415 - brings transformers, which made-up ids need not

    ids: list[int] = Tokenizer.from_str(built(model).tokenizer_json.decode()).encode(text).ids
    return ids


def made_up(length: int, *, seed: str, vocabulary: int) -> list[int]:
    """Return `length` ids, the same for one seed; low ids are mostly control tokens, and none of them comes."""
    draw = random.Random(seed)  # noqa: S311 - test data needs seeds, not entropy
    least = min(1_000, vocabulary // 4)
    return draw.choices(range(least, min(vocabulary - 1, 40_000)), k=length)
