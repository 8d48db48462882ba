"""Publish, serve and fetch model weights."""

from __future__ import annotations

__all__: list[str] = []
