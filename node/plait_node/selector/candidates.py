"""The candidates: combinations of the engine's methods that are measured, predicted and chosen between."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from plait_node.selector.facts import Candidate, HardwareFacts

__all__ = ["ALWAYS_ON", "CANDIDATES", "CHUNK", "NONE", "SMALL_CHUNK", "feasible", "obstacle"]

CHUNK: Final = 128
SMALL_CHUNK: Final = 32
_MOST_ROWS: Final = 256
_ON: Final[Mapping[str, int]] = {"continuous-batching": _MOST_ROWS, "prefix-cache": 1, "chunked-prefill": CHUNK}
_FAST: Final[Mapping[str, int]] = {**_ON, "compiled": 1}


def _made() -> tuple[Candidate, ...]:
    return (
        # The paper's five, without compiled code.
        Candidate(name="none", weights="fp32", methods={}),
        Candidate(name="batching", weights="fp32", methods={"continuous-batching": _MOST_ROWS}),
        Candidate(name="prefix-cache", weights="fp32", methods={"prefix-cache": 1}),
        Candidate(name="chunked-prefill", weights="fp32", methods={"chunked-prefill": CHUNK}),
        Candidate(name="combined", weights="fp32", methods=_ON),
        # What engines do anyway, and the amounts and methods that are left to choose within exact numerics.
        Candidate(name="always-on", weights="fp32", methods=_FAST),
        Candidate(name="small-chunks", weights="fp32", methods={**_FAST, "chunked-prefill": SMALL_CHUNK}),
        Candidate(name="lookup-10", weights="fp32", methods={**_FAST, "prompt-lookup": 10}),
        Candidate(name="lookup-3", weights="fp32", methods={**_FAST, "prompt-lookup": 3}),
        Candidate(name="draft-4", weights="fp32", methods={**_FAST, "draft-model": 4}),
        # Rounded numerics, where the payer allows them.
        Candidate(name="bf16", weights="bf16", methods=_FAST),
        Candidate(name="int8", weights="int8", methods={**_FAST, "int8": 1}),
        Candidate(name="int4", weights="int4", methods={**_FAST, "int4": 1}),
        Candidate(name="bf16-lookup-10", weights="bf16", methods={**_FAST, "prompt-lookup": 10}),
        Candidate(name="int4-lookup-10", weights="int4", methods={**_FAST, "int4": 1, "prompt-lookup": 10}),
        Candidate(name="codec-bf16", weights="fp32", methods={**_FAST, "codec-bf16": 1}),
        Candidate(name="codec-int8", weights="fp32", methods={**_FAST, "codec-int8": 1}),
        Candidate(name="int4-codec-int8", weights="int4", methods={**_FAST, "int4": 1, "codec-int8": 1}),
    )


CANDIDATES: Final[Mapping[str, Candidate]] = {candidate.name: candidate for candidate in _made()}
NONE: Final = CANDIDATES["none"]
ALWAYS_ON: Final = CANDIDATES["always-on"]
_SPECULATIVE: Final = frozenset({"prompt-lookup", "draft-model"})


def feasible(candidate: Candidate, hardware: HardwareFacts, *, real_weights: bool) -> bool:
    """Return whether it can run here; speculation counts on real weights only, whose text means something."""
    return not obstacle(candidate, hardware, real_weights=real_weights)


def obstacle(candidate: Candidate, hardware: HardwareFacts, *, real_weights: bool) -> str:
    """Return why it cannot run here; empty where it can."""
    methods = set(candidate.methods)
    if not real_weights and methods & _SPECULATIVE:
        return "the model's weights are random: nothing to guess from"
    if not hardware.compiler and ("compiled" in methods or candidate.weights in {"int8", "int4"}):
        return "the machine has no compiler"
    if hardware.stages == 1 and any(name.startswith("codec-") for name in methods):
        return "one stage sends nothing to another"
    return ""
