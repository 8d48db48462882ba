"""Start a whole network on loopback: for the demo, for `make up`, for live tests and benchmarks."""

from __future__ import annotations

from plait_node.localnet.network import Network
from plait_node.localnet.processes import Child

__all__ = ["Child", "Network"]
