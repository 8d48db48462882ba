"""Guess how an answer goes on, send guesses behind guesses, and hold the tail to what was guessed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from plait.protocol.errors import MalformedMessageError
from plait.protocol.windows import WINDOW_STEPS
from plait_node.selector import PROMPT_LOOKUP

if TYPE_CHECKING:
    from plait_node.worker.plan import Decision

__all__ = ["MOST_AHEAD", "Ahead", "Proposer", "Proposers", "Sent"]

MOST_AHEAD = WINDOW_STEPS - 1  # guessed ids behind a certain one in a frame (docs/protocol.md, section 8)
_MOST_WAITING = 4  # frames on their way
_SURE = 2  # guesses on their way, beyond those of a first frame, for each that was right since the last wrong one
_FAR = 2 / 3  # stages compute for no more of a step than this: it pays to have several frames on their way
_REHEARSED = 128  # of the known ids, the last ones: guessed one by one, so that it is known how right guesses are


class Proposer(Protocol):
    """Guesses how one job's text goes on; a guess costs time, never a token."""

    def propose(self, ids: Sequence[int], depth: int) -> list[int]:
        """Return at most `depth` ids that may follow `ids`, which only ever grow."""
        ...


# Makes what guesses for one job by the method of this name; None where the method does not guess. The number is the
# share of a step in which stages compute: the farther they are apart, the less a wrong guess costs.
Proposers = Callable[[str, float], Proposer | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A frame on its way: the ids of its rows, of which those from step `certain` on are guesses."""

    step: int
    ids: tuple[int, ...]
    certain: int

    @property
    def end(self) -> int:
        """Return the first step after its rows."""
        return self.step + len(self.ids)

    @property
    def guessed(self) -> tuple[int, ...]:
        """Return the ids that are guesses: all but the first one, or all."""
        return self.ids[max(0, self.certain - self.step) :]


class Ahead:
    """What one attempt has sent and not heard of yet; without a proposer it guesses nothing.

    A token's step is its place among all ids, those of the prompt first.
    """

    def __init__(
        self, proposer: Proposer | None, *, depth: int, vocabulary: int, ids: Sequence[int], far: bool = False
    ) -> None:
        """Begin with the known ids; guess at most `depth` ids in a frame, and over several frames where it is `far`."""
        self._proposer = proposer
        self._depth = min(depth, MOST_AHEAD)
        self._vocabulary = vocabulary
        self._most_waiting = _MOST_WAITING if far else 1
        self._ids = list(ids)
        self._waiting: deque[Sent] = deque()
        self._told = self._tried = 0  # how many ids were known when frames were sent last, and looked for
        self._streak = 0  # guesses that were right, one after the other
        self._proposed = self._right = 0
        self._rehearse()

    @classmethod
    def of(cls, decision: Decision, proposers: Proposers, *, vocabulary: int, ids: Sequence[int]) -> Ahead:
        """Guess as the decision says."""
        proposer = proposers(PROMPT_LOOKUP, decision.busy) if decision.depth else None
        far = decision.busy <= _FAR
        return cls(proposer, depth=decision.depth, vocabulary=vocabulary, ids=ids, far=far)

    @property
    def accepted(self) -> float:
        """Return the share of guessed ids that were right, of those that were judged; -1 where none were."""
        return self._right / self._proposed if self._proposed else -1.0

    @property
    def begun(self) -> bool:
        """Tell whether anything was sent."""
        return self._told > 0

    @property
    def waits(self) -> bool:
        """Tell whether a frame is on its way."""
        return bool(self._waiting)

    @property
    def news(self) -> bool:
        """Tell whether tokens came since frames were sent last: all rows that were called certain have theirs."""
        return self.begun and len(self._ids) > self._told

    @property
    def step(self) -> int:
        """Return the step whose row is the next to be sent."""
        return self._waiting[-1].end if self._waiting else len(self._ids) - 1

    def begin(self) -> None:
        """Note that the rows of all known ids are on their way."""
        self._told = len(self._ids)
        self._waiting.append(Sent(step=self._told - 1, ids=(self._ids[-1],), certain=self._told))

    def frames(self, end: int) -> list[Sent]:
        """Return what to send now: the newest id's row if nothing is on its way, and guesses of steps below `end`."""
        known, room = len(self._ids), self._most_now() - len(self._waiting)
        if room <= 0 or (self._waiting and self._tried == known):
            return []
        self._tried = known
        at = self.step
        ids = [*self._ids[at:], *self._guesses(at, min(end, at + room * (self._depth + 1)))]
        made = [
            Sent(step=at + first, ids=tuple(ids[first : first + self._depth + 1]), certain=known)
            for first in range(0, len(ids), self._depth + 1)
        ]
        if made:
            self._waiting += made
            self._told = known
        return made

    def check(self, step: int, ids: Sequence[int]) -> None:
        """Take the tail's answer to the oldest frame; raise `MalformedMessageError` unless it may be that."""
        sent = self._waiting[0] if self._waiting else None
        if sent is None or step != sent.step:
            raise MalformedMessageError(f"a token came for step {step}, which is not next")
        if not 0 < len(ids) <= len(sent.ids) or tuple(ids[:-1]) != sent.ids[1 : len(ids)]:
            raise MalformedMessageError(f"{len(ids)} tokens came that do not follow the draft of {len(sent.guessed)}")
        if max(ids) >= self._vocabulary:
            raise MalformedMessageError(f"token {max(ids)} lies outside the vocabulary")
        self._waiting.popleft()
        self._judge(sent, ids)

    def take(self, token: int) -> None:
        """Take an id of the answer."""
        self._ids.append(token)

    def _judge(self, sent: Sent, ids: Sequence[int]) -> None:
        """Count what was guessed; behind a wrong guess nothing that is on its way counts any more."""
        judged = right = len(ids) - 1
        whole = len(ids) == len(sent.ids)
        if not whole:
            judged = len(sent.ids) - 1
        elif self._waiting:
            judged += 1
            whole = self._waiting[0].ids[0] == ids[-1]
            right += whole
        self._proposed += judged
        self._right += right
        if not whole:
            self._waiting.clear()
            self._streak = 0
        else:
            self._streak += right

    def _rehearse(self) -> None:
        """Have the proposer learn from the text that is there, as it does from an answer."""
        if self._proposer is not None and self._depth > 0:
            for end in range(max(1, len(self._ids) - _REHEARSED), len(self._ids)):
                self._proposer.propose(self._ids[:end], 1)

    def _most_now(self) -> int:
        return min(self._most_waiting, 1 + _SURE * self._streak // MOST_AHEAD)

    def _guesses(self, at: int, end: int) -> list[int]:
        """Return guessed ids of steps from `at`, or behind the known ids, up to `end`."""
        known = len(self._ids)
        if self._proposer is None or end <= max(at, known):
            return []
        found = self._proposer.propose(self._ids, end - known)[: end - known]
        sent = [token for each in self._waiting for token in each.ids[max(0, known - each.step) :]]
        if found[: len(sent)] != sent or not all(0 <= token < self._vocabulary for token in found):
            return []  # it would go on otherwise now than it did when those before were sent
        return found[len(sent) :]
