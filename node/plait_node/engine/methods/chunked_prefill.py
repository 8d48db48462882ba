"""Chunked prefill: a long prompt goes in pieces, so that running streams get their next token in between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from plait.protocol.windows import WINDOW_STEPS
from plait_node.engine.methods.base import Amount, Facts, Method

__all__ = ["ChunkedPrefill", "chunk", "chunks"]


class ChunkedPrefill(Method):
    """Pieces end where windows do, so that every piece but the last can be signed and cached whole."""

    name = "chunked-prefill"
    title = "compute long prompts in pieces between other jobs' tokens"
    scope = "lane"
    amount = Amount(unit="prompt rows in one pass", least=WINDOW_STEPS, most=8_192, default=128)

    def refusal(self, amount: int, facts: Facts, chosen: Mapping[str, int]) -> str | None:
        """Return why not; see `Method`."""
        del facts, chosen
        return f"the budget is a multiple of {WINDOW_STEPS} rows, not {amount}" if amount % WINDOW_STEPS else None


def chunk(start: int, end: int, budget: int) -> int:
    """Return how many of the rows start to end - 1 to compute now: all that fit, cut at a window's end; maybe none."""
    if end - start <= budget:
        return end - start
    return max(0, (start + budget) // WINDOW_STEPS * WINDOW_STEPS - start)


def chunks(pending: Sequence[tuple[int, int]], budget: int) -> list[int]:
    """Return how many rows of each pending (start, end) one pass takes, first come first served."""
    counts: list[int] = []
    for start, end in pending:
        counts.append(chunk(start, end, budget))
        budget -= counts[-1]
    return counts
