"""Run plait from a shell; other packages add commands by entry point."""

from __future__ import annotations

__all__: list[str] = []
