"""Weight-only quantisation: weights lie packed in memory, rows and sums stay in floating point."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from plait_node.engine.lane import WeightType
from plait_node.engine.methods.base import STRICT, Facts, Method

__all__ = ["Int4", "Int8", "lane_weights"]


class _Packed(Method):
    """`Lane.weights`."""

    scope = "lane"
    weights: ClassVar[WeightType]

    def refusal(self, amount: int, facts: Facts, chosen: Mapping[str, int]) -> str | None:
        """Return why not; see `Method`."""
        del amount
        if facts.profile == STRICT:
            return f"profile {STRICT} promises fp32 weights"
        if facts.weights not in (None, self.weights):
            return f"this lane runs with {facts.weights} weights; start one with {self.weights}"
        if Int8.name in chosen and Int4.name in chosen:
            return "a lane has one weight type"
        return None


class Int8(_Packed):
    """8-bit weights, one scale per group."""

    name = "int8"
    title = "weights in 8 bits: a quarter of the memory traffic"
    weights = "int8"


class Int4(_Packed):
    """4-bit weights, one scale per group."""

    name = "int4"
    title = "weights in 4 bits: an eighth of the memory traffic"
    weights = "int4"

    def refusal(self, amount: int, facts: Facts, chosen: Mapping[str, int]) -> str | None:
        """Return why not: unpacked first, 4 bits are slower than 8."""
        if self.weights not in facts.fused:
            return f"there is no fused 4-bit kernel for device {facts.device}"
        return super().refusal(amount, facts, chosen)


def lane_weights(chosen: Mapping[str, int]) -> WeightType:
    """Return what `Lane.weights` has to be for a checked choice."""
    for kind in (Int8, Int4):
        if kind.name in chosen:
            return kind.weights
    return "fp32"
