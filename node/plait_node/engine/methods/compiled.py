"""Compiled decode: the pass over few rows runs as machine code made for this model and machine."""

from __future__ import annotations

from collections.abc import Mapping

from plait_node.engine.methods.base import Facts, Method
from plait_node.engine.native.build import find_compiler

__all__ = ["Compiled", "find_compiler", "wants_compiled"]


class Compiled(Method):
    """`Lane.compiled`."""

    name = "compiled"
    title = "decode with code compiled for this model and machine"
    scope = "lane"

    def refusal(self, amount: int, facts: Facts, chosen: Mapping[str, int]) -> str | None:
        """Return why not; see `Method`."""
        del amount, chosen
        return None if facts.compiler else "no C++ compiler was found; install g++ or clang++, or set CXX"


def wants_compiled(chosen: Mapping[str, int]) -> bool:
    """Return what `Lane.compiled` has to be."""
    return Compiled.name in chosen
