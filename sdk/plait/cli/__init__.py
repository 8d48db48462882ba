"""Run plait from a shell; other packages add commands by entry point."""

from __future__ import annotations

from plait.cli.program import main

__all__ = ["main"]
