"""Ask a question of a swarm of staked nodes, check the answer, and pay for it."""

from __future__ import annotations

from plait import _recursion as _recursion  # before anything that imports web3

__all__: list[str] = []
