"""Run one stage's block range."""

from __future__ import annotations

__all__: list[str] = []
