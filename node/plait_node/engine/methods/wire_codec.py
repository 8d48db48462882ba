"""Wire codecs: hidden rows travel between stages in fewer bytes than fp32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from plait_node.engine.methods.base import STRICT, Facts, Method

__all__ = ["CodecBf16", "CodecInt8", "CodecPair", "codec_pair"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecPair:
    """A profile's codecs of the wire, by name."""

    prefill: str
    decode: str


class _Codec(Method):
    """Part of a profile, because the rows that are hashed are the bytes on the wire."""

    scope = "profile"
    codecs: ClassVar[CodecPair]

    def refusal(self, amount: int, facts: Facts, chosen: Mapping[str, int]) -> str | None:
        """Return why not; see `Method`."""
        del amount
        if facts.profile == STRICT:
            return f"profile {STRICT} sends rows in fp32"
        if facts.whole_model:
            return "the whole model is in this process, no rows travel"
        if CodecBf16.name in chosen and CodecInt8.name in chosen:
            return "a profile has one codec"
        return None


class CodecBf16(_Codec):
    """Half the bytes, 8 significant bits."""

    name = "codec-bf16"
    title = "send rows between stages in half the bytes"
    codecs = CodecPair(prefill="bf16", decode="bf16")


class CodecInt8(_Codec):
    """Somewhat more than a quarter of the bytes, one scale per 64 values."""

    name = "codec-int8"
    title = "send rows between stages in about a quarter of the bytes"
    codecs = CodecPair(prefill="int8", decode="int8")


def codec_pair(chosen: Mapping[str, int]) -> CodecPair:
    """Return the codecs of a checked choice."""
    pairs = (kind.codecs for kind in (CodecBf16, CodecInt8) if kind.name in chosen)
    return next(pairs, CodecPair(prefill="fp32", decode="fp32"))
