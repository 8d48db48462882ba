"""Play the role of a worker: plan a route, drive generation, sign the receipt."""

from __future__ import annotations

__all__: list[str] = []
