"""Serve blocks of a model: gateway, worker and stage in one program."""

from __future__ import annotations

__all__: list[str] = []
