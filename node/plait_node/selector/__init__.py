"""Choose the acceleration method of a job and say why."""

from __future__ import annotations

__all__: list[str] = []
