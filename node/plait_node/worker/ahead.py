"""Guess how an answer goes on, and hold the tail to what was guessed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from plait.protocol.errors import MalformedMessageError
from plait.protocol.windows import WINDOW_STEPS
from plait_node.selector import PROMPT_LOOKUP

if TYPE_CHECKING:
    from plait_node.worker.plan import Decision

__all__ = ["MOST_AHEAD", "Ahead", "Proposer", "Proposers"]

MOST_AHEAD = WINDOW_STEPS - 1  # ids in a draft (docs/protocol.md, section 8)


class Proposer(Protocol):
    """Guesses how one job's text goes on; a guess costs time, never a token."""

    def propose(self, ids: Sequence[int], depth: int) -> list[int]:
        """Return at most `depth` ids that may follow `ids`, which only ever grow."""
        ...


# Makes what guesses for one job by the method of this name; None where the method does not guess. The number is the
# share of a step in which stages compute: the farther they are apart, the less a wrong guess costs.
Proposers = Callable[[str, float], Proposer | None]


class Ahead:
    """What one attempt has guessed and not heard of yet; without a proposer it guesses nothing."""

    def __init__(self, proposer: Proposer | None, *, depth: int, vocabulary: int, ids: Sequence[int]) -> None:
        """Begin with the prompt's ids; guess at most `depth` ids at a time."""
        self._proposer = proposer
        self._depth = min(depth, MOST_AHEAD)
        self._vocabulary = vocabulary
        self._ids = list(ids)
        self._proposed = self._right = 0
        self.draft: tuple[int, ...] = ()

    @property
    def accepted(self) -> float:
        """Return the share of guessed ids that were right; -1 where none were guessed."""
        return self._right / self._proposed if self._proposed else -1.0

    @classmethod
    def of(cls, decision: Decision, proposers: Proposers, *, vocabulary: int, ids: Sequence[int]) -> Ahead:
        """Guess as the decision says."""
        proposer = proposers(PROMPT_LOOKUP, decision.busy) if decision.depth else None
        return cls(proposer, depth=decision.depth, vocabulary=vocabulary, ids=ids)

    def propose(self, most: int) -> tuple[int, ...]:
        """Return the next draft, at most `most` ids and often none."""
        depth = min(self._depth, most)
        found = self._proposer.propose(self._ids, depth)[:depth] if self._proposer is not None and depth > 0 else []
        self.draft = tuple(found) if all(0 <= token < self._vocabulary for token in found) else ()
        return self.draft

    def check(self, ids: Sequence[int]) -> None:
        """Raise `MalformedMessageError` unless these may be the tail's answer to the draft."""
        if not 0 < len(ids) <= len(self.draft) + 1 or tuple(ids[:-1]) != self.draft[: len(ids) - 1]:
            raise MalformedMessageError(f"{len(ids)} tokens came that do not follow the draft of {len(self.draft)}")
        if max(ids) >= self._vocabulary:
            raise MalformedMessageError(f"token {max(ids)} lies outside the vocabulary")
        self._proposed += len(self.draft)
        self._right += len(ids) - 1

    def take(self, token: int) -> None:
        """Take an id of the answer."""
        self._ids.append(token)
