"""Rows that may be taken back: where the next ones may begin, and which hashes wait until it is known.

A frame of rows begins with one that is certain; those after it are guesses. The next frame, or the end, tells how many
of them were right. Only the last stage knows that by itself: it drew the tokens.
"""

from __future__ import annotations

from plait.protocol.windows import WINDOW_STEPS
from plait_node.commit import RowHashes, RowOrderError
from plait_node.stage.compute import StepDone
from plait_node.stage.errors import SpeculationError

__all__ = ["MOST_SPECULATIVE", "Speculation"]

MOST_SPECULATIVE = WINDOW_STEPS - 1  # rows in a frame beside the certain one

Hashes = tuple[RowHashes, RowHashes]  # of rows in and out


class Speculation:
    """Where one job stands on one stage, in steps."""

    def __init__(self, *, is_tail: bool) -> None:
        """Begin at step 0 with nothing computed."""
        self._is_tail = is_tail
        self._certain = 0  # the first step that may be taken back
        self._accepted = 0  # the tail: where the next rows begin, whatever anybody says
        self._held: Hashes | None = None
        self.computed = 0  # the first step that was not computed

    def begin(self, row: int) -> None:
        """Begin at `row`: the steps before it come from the cache."""
        self._certain = self._accepted = self.computed = row

    def check(self, step: int) -> None:
        """Raise `RowOrderError` where the sender must know better, `SpeculationError` where only the worker can."""
        if not self._certain <= step <= self.computed:
            raise RowOrderError(asked=step, expected=self._accepted if self._is_tail else self.computed)
        if self._is_tail and step != self._accepted:
            raise SpeculationError(
                f"rows of step {step} came, but the rows accepted here end at step {self._accepted}; "
                "open a new attempt over other stages"
            )

    def accept(self, step: int) -> Hashes | None:
        """Accept the rows below `step` and forget the others; return the hashes that waited for it."""
        held, self._held = self._held, None
        self.computed = min(self.computed, step)
        if held is None:
            return None
        inputs, outputs = held
        return inputs.below(step), outputs.below(step)

    def take(self, done: StepDone) -> Hashes:
        """Take what was computed; return the hashes of rows that cannot be taken back."""
        self.computed = done.end
        if not done.speculative:
            self._certain = self._accepted = done.end
            return done.inputs, done.outputs
        self._certain = done.step + 1
        self._accepted = done.outputs.end
        self._held = done.inputs.since(self._certain), done.outputs.since(self._certain)
        return done.inputs.below(self._certain), done.outputs.below(self._certain)
