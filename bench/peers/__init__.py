"""Peers to be measured beside plait: each is started, given the same workloads, and ended by its process id.

Modules: `vllm.VllmPeer`, `llama_server.LlamaServerPeer`, `transformers_generate.TransformersPeer`. A peer that is not
installed raises `PeerMissingError`, whose message is the command that installs it.
"""

from __future__ import annotations

from .face import WORKLOADS, Peer, PeerError, PeerMissingError, Result, Workload, interleaved, measure

__all__ = ["WORKLOADS", "Peer", "PeerError", "PeerMissingError", "Result", "Workload", "interleaved", "measure"]
