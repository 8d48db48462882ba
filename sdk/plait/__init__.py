"""Ask a question of a swarm of staked nodes, check the answer, and pay for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plait import _recursion as _recursion  # first: see the module

if TYPE_CHECKING:
    from plait.client import AsyncPlait, Plait

__all__ = ["AsyncPlait", "Plait"]


def __getattr__(name: str) -> object:
    """Load the client when it is asked for: who imports `plait.protocol` alone pays for nothing more."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from plait import client  # noqa: PLC0415 see above

    return getattr(client, name)
