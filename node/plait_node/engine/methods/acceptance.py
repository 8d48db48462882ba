"""Decide how many proposed tokens are worth checking, from how many were right so far."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Acceptance"]

_MEMORY = 0.92  # what is left of an older token's weight after each new one
_PROBE_EVERY = 16  # proposals that do not pay are tried this seldom: 1 % of a pass at the cost below
_WORTH = 1.03  # the least gain that pays for proposing at all


@dataclass(slots=True, kw_only=True)
class Acceptance:
    """A running estimate of the probability that the next proposed token is right, given that those before it were.

    `row_cost` is what one more row in a pass costs, in parts of a pass with one row.
    """

    row_cost: float
    right: float = 1.0  # begins as one right of two
    tried: float = 2.0
    skipped: int = 0

    def add(self, proposed: int, accepted: int) -> None:
        """Count a proposal: its accepted tokens, and the first wrong one if there was one."""
        tried = min(proposed, accepted + 1)
        kept = _MEMORY**tried
        self.right = kept * self.right + accepted
        self.tried = kept * self.tried + tried

    def depth(self, most: int) -> int:
        """Return how many tokens to propose now, at most `most`: the number with the most tokens per time."""
        rate = self.right / self.tried
        best, found = _WORTH, 0
        expected = chain = 1.0
        for count in range(1, most + 1):
            chain *= rate
            expected += chain
            gain = expected / (1 + self.row_cost * count)
            if gain > best:
                best, found = gain, count
        if found:
            self.skipped = 0
            return found
        self.skipped += 1
        return min(most, int(self.skipped % _PROBE_EVERY == 0))
