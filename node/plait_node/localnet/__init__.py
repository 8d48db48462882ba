"""Run a whole network on one machine for the demo, make up, and live tests."""

from __future__ import annotations

__all__: list[str] = []
