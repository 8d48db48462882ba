"""Read, sign and send over JSON-RPC: the only place where the SDK meets a chain."""

from __future__ import annotations

__all__: list[str] = []
