"""An expert's rule table, fixed before any row was read (2026-11-26), from what engines and their makers publish.

Sources, read that day:
[1] vLLM, docs/configuration/optimization.md: chunked prefill is on by default; a larger token budget favours
    throughput, a small one the time between tokens. Here the time until the last answer counts: keep the large chunk.
[2] vLLM, docs, automatic prefix caching and the V1 guide: on by default, nearly free where nothing is hit.
[3] vLLM, docs/features/speculative_decoding: for medium to low load, bound by memory; a draft model gains more than
    n-grams there; n-grams gain little but cost little.
[4] apoorvumang/prompt-lookup-decoding, README: 2 to 4 times faster where the answer is grounded in the prompt
    (summaries, questions about documents, chat over turns, editing of code), 10 tokens proposed.
[5] NVIDIA Model Optimizer, "Best practices to choose the right quantization methods": weight-only int4 for batches up
    to 4, which are bound by memory; from 16 on, arithmetic counts and lower-precision arithmetic is wanted.
[6] PyTorch and Intel on bf16 for CPUs: products bound by arithmetic gain from bf16's instructions; so do prompts.
[7] Petals (arXiv 2209.01188 and 2312.08361): over the internet, send hidden states in 8 bits; half the traffic, no
    loss of quality seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bench.selector.cells import Cell, Question

__all__ = ["Expert"]

_LOW_BATCH: Final = 4  # [5]
_HIGH_BATCH: Final = 16  # [5]
_SLOW_BYTES_S: Final = 12.5e6  # 100 Mbit/s, the best link of [7]'s experiments over the internet
_GROUNDED: Final = frozenset({"summarise", "shared-context", "extract", "rewrite", "edit-code", "code"})  # [4]
_REPETITIVE: Final = 0.2  # share of the prompt that repeats itself: looked up as well as a grounded answer
_LONG_PROMPT: Final = 16.0  # prompt rows to compute for each token of the answer: then prompts take most of the time
_LAST: Final = ("always-on", "combined", "small-chunks", "batching", "prefix-cache", "chunked-prefill", "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Traits:
    low: bool
    high: bool
    slow_link: bool
    grounded: bool
    long_prompt: bool


class Expert:
    """The first candidate of the table that can run and is allowed."""

    name = "expert rules"

    def fit(self, cells: Sequence[Cell], seed: int) -> None:
        """Learn nothing."""

    def rank(self, question: Question) -> Mapping[str, float]:
        """Return positions in the order that the rules give."""
        traits = _traits(question)
        order = dict.fromkeys((*_rounded(traits), *_exact(traits), *_LAST))
        return {name: float(position) for position, name in enumerate(order)}


def _traits(question: Question) -> _Traits:
    task, hardware = question.task, question.hardware
    computed = max(1.0, task.prompt_tokens - task.warm_tokens)
    return _Traits(
        low=task.batch <= _LOW_BATCH,
        high=task.batch >= _HIGH_BATCH,
        slow_link=hardware.stages > 1 and 0 < hardware.bytes_s < _SLOW_BYTES_S,
        grounded=task.kind in _GROUNDED or task.repetition >= _REPETITIVE,
        long_prompt=computed > _LONG_PROMPT * task.answer_tokens,
    )


def _rounded(traits: _Traits) -> tuple[str, ...]:
    """Return what to prefer where the payer allows rounded numerics."""
    bound_by_memory = traits.low and not traits.long_prompt
    if traits.slow_link:  # [7] first, since links are slower than memory
        return ("int4-codec-int8", "codec-int8") if bound_by_memory else ("codec-int8", "codec-bf16", "bf16")
    if bound_by_memory:  # [5], with [4] where it applies
        return ("int4-lookup-10", "int4", "int8") if traits.grounded else ("int4", "int8", "bf16")
    if traits.high or traits.long_prompt:  # [6]
        return ("bf16", "int8")
    return ("bf16-lookup-10", "int8", "bf16") if traits.grounded else ("int8", "bf16")  # between: [3] medium load


def _exact(traits: _Traits) -> tuple[str, ...]:
    """Return what to prefer where tokens have to be those of fp32."""
    if traits.high:
        return ()  # [3]: no speculation under load
    if traits.grounded:
        return ("lookup-10", "lookup-3") if traits.low else ("lookup-3",)
    return ("draft-4",) if traits.low else ()
