"""Ask a question of a swarm of staked nodes, check the answer, and pay for it."""

from __future__ import annotations

__all__: list[str] = []
