"""Fix every byte that two parties must agree on: pure code, no I/O."""

from __future__ import annotations

__all__: list[str] = []
