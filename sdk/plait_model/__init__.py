"""Hold weights against their manifest and run the reference layers of a block range."""

from __future__ import annotations

__all__: list[str] = []
