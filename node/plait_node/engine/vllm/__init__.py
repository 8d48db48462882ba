"""Serve a whole model through an operator's own vLLM, as a route of one stage under the profile `tokens-only`."""

from __future__ import annotations

from plait_node.engine.vllm.engine import TOKENS_ONLY, VllmEngine, VllmServer
from plait_node.engine.vllm.errors import VllmError
from plait_node.engine.vllm.flags import flags

__all__ = ["TOKENS_ONLY", "VllmEngine", "VllmError", "VllmServer", "flags"]
