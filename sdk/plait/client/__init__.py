"""Ask, stream, verify and pay: the clients that a dApp holds."""

from __future__ import annotations

__all__: list[str] = []
