"""Carry jobs and results over NATS JetStream."""

from __future__ import annotations

__all__: list[str] = []
