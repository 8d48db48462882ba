"""Play the role of a stage: accept rows, run them, sign windows."""

from __future__ import annotations

__all__: list[str] = []
