"""Methods of acceleration: one file each, one registry of names, and the check of a choice."""

from __future__ import annotations

from plait_node.engine.methods.base import Amount, Facts, Method, Proposer
from plait_node.engine.methods.errors import MethodRefusedError
from plait_node.engine.methods.registry import METHODS, check, method_of

__all__ = ["METHODS", "Amount", "Facts", "Method", "MethodRefusedError", "Proposer", "check", "method_of"]
