"""All methods by name, and whether a choice of them can run."""

from __future__ import annotations

from collections.abc import Mapping

from plait_node.engine.methods.base import Facts, Method
from plait_node.engine.methods.chunked_prefill import ChunkedPrefill
from plait_node.engine.methods.compiled import Compiled
from plait_node.engine.methods.continuous_batching import ContinuousBatching
from plait_node.engine.methods.draft_model import DraftModelMethod
from plait_node.engine.methods.errors import MethodRefusedError
from plait_node.engine.methods.prefix_cache import PrefixCache
from plait_node.engine.methods.prompt_lookup import PromptLookupMethod
from plait_node.engine.methods.weight_only import Int4, Int8
from plait_node.engine.methods.wire_codec import CodecBf16, CodecInt8

__all__ = ["METHODS", "check", "method_of"]

_ALL: tuple[Method, ...] = (
    ContinuousBatching(),
    PrefixCache(),
    ChunkedPrefill(),
    PromptLookupMethod(),
    DraftModelMethod(),
    Int8(),
    Int4(),
    Compiled(),
    CodecBf16(),
    CodecInt8(),
)
METHODS: Mapping[str, Method] = {method.name: method for method in _ALL}


def method_of(name: str) -> Method:
    """Return a method; raise `MethodRefusedError` if there is none of this name."""
    method = METHODS.get(name)
    if method is None:
        raise MethodRefusedError(name[:32], f"there is none of this name, only {', '.join(METHODS)}")
    return method


def check(chosen: Mapping[str, int], facts: Facts) -> None:
    """Raise `MethodRefusedError` unless these methods, name to amount, can run here together."""
    for name, amount in chosen.items():
        method = method_of(name)
        _check_amount(method, amount)
        reason = method.refusal(amount, facts, chosen)
        if reason is not None:
            raise MethodRefusedError(name, reason)


def _check_amount(method: Method, amount: int) -> None:
    bounds = method.amount
    if bounds is None:
        if amount != 1:
            raise MethodRefusedError(method.name, f"it has no amount but 1, which means on, not {amount}")
    elif not bounds.least <= amount <= bounds.most:
        raise MethodRefusedError(
            method.name, f"the amount is {bounds.least} to {bounds.most} {bounds.unit}, not {amount}"
        )
