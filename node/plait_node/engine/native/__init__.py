"""Compiled decoding on CPUs: C++ built on the operator's machine for its own processor, where there is a compiler."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plait_node.engine.native.build import find_compiler

if TYPE_CHECKING:
    from plait_node.engine.native.blocks import NativeBlocks

__all__ = ["NativeBlocks", "find_compiler"]


def __getattr__(name: str) -> object:
    """Load the blocks when they are asked for: who only looks for a compiler needs no torch."""
    if name != "NativeBlocks":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from plait_node.engine.native import blocks  # noqa: PLC0415 -- see above

    return blocks.NativeBlocks
