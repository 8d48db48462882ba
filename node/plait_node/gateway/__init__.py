"""Play the role of a gateway: take requests, check payment, deliver in order."""

from __future__ import annotations

__all__: list[str] = []
