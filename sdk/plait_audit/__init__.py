"""Replay the logs of a deployment and report what does not add up."""

from __future__ import annotations

__all__: list[str] = []
