"""Know who serves which block: signed records in a DHT, routes."""

from __future__ import annotations

__all__: list[str] = []
