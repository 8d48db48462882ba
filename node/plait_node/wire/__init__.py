"""Link two peers: frames, tensor codec, TLS, signed hello."""

from __future__ import annotations

__all__: list[str] = []
