"""Prompt look-up: what followed the last words when they came before is proposed to follow now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from plait_node.engine.methods.acceptance import Acceptance
from plait_node.engine.methods.base import Amount, Facts, Method

__all__ = ["ROW_COST", "PromptLookup", "PromptLookupMethod"]

ROW_COST = 0.12  # one more row of a decode pass takes 5 to 15 % of it


class PromptLookupMethod(Method):
    """Needs no second model; pays where text repeats itself, and stops where it does not."""

    name = "prompt-lookup"
    title = "check tokens guessed from repetitions in the text"
    scope = "job"
    amount = Amount(unit="proposed tokens", least=1, most=64, default=10)

    def refusal(self, amount: int, facts: Facts, chosen: Mapping[str, int]) -> str | None:
        """Return why not; see `Method`."""
        del amount, facts
        return "draft-model proposes already, one method at a time" if "draft-model" in chosen else None


class PromptLookup:
    """Proposes for one job; each new token costs `longest` dictionary entries.

    How often a proposal was right is learned apart for each length of the repeated words: the longer, the surer.
    """

    def __init__(self, *, longest: int = 4, shortest: int = 2, row_cost: float = ROW_COST) -> None:
        """Look for `longest` to `shortest` tokens; one more row costs `row_cost` passes of one row."""
        self._lengths = range(longest, shortest - 1, -1)
        self._after: dict[tuple[int, ...], int] = {}  # words of any length: where the text went on after them, last
        self._indexed = 0
        self._rates = {length: Acceptance(row_cost=row_cost) for length in self._lengths}
        self._last: tuple[int, int, list[int]] | None = None  # length of the words, where, and what was proposed

    def propose(self, ids: Sequence[int], depth: int) -> list[int]:
        """Return what followed the most recent earlier occurrence of the longest known end of `ids`."""
        self._settle(ids)
        self._index(ids)
        for length in self._lengths:
            at = self._after.get(tuple(ids[-length:])) if len(ids) > length else None
            if at is None:
                continue
            count = self._rates[length].depth(depth)
            if not count:
                return []
            # The words may overlap what they repeat: then the proposal goes round in the same circle.
            span = len(ids) - at
            proposed = [ids[at + index % span] for index in range(count)]
            self._last = (length, len(ids), proposed)
            return proposed
        return []

    def accepted(self, proposed: int, accepted: int) -> None:
        """Learn from a verification; without this call the next `propose` sees for itself."""
        if self._last is not None:
            self._rates[self._last[0]].add(proposed, accepted)
            self._last = None

    def _settle(self, ids: Sequence[int]) -> None:
        if self._last is None:
            return
        _, at, proposed = self._last
        came = ids[at : at + len(proposed)]
        right = 0
        while right < len(came) and came[right] == proposed[right]:
            right += 1
        if came:
            self.accepted(len(came), right)

    def _index(self, ids: Sequence[int]) -> None:
        """Note every end of words before the last token: the last one's continuation is what is asked for."""
        for end in range(self._indexed + 1, len(ids)):
            for length in self._lengths:
                if length <= end:
                    self._after[tuple(ids[end - length : end])] = end
        self._indexed = max(self._indexed, len(ids) - 1)
