"""Commit to work: row hashes, leaves, progress, job records, receipts."""

from __future__ import annotations

__all__: list[str] = []
