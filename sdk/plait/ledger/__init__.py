"""Keep what anyone who signs money needs: journal, guard, keys, channel book."""

from __future__ import annotations

__all__: list[str] = []
