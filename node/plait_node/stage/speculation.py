"""Rows that may be taken back: where the next ones may begin, and which hashes wait until it is known.

A frame says how many of the steps before its end are guesses; those below are certain. The frame after a wrong guess,
or the end, begins where the right rows end. Only the last stage knows that by itself: it drew the tokens. Frames that
were sent before the worker knew come to it all the same, and it drops them.
"""

from __future__ import annotations

from plait.protocol.windows import WINDOW_STEPS
from plait_node.commit import RowHashes, RowOrderError
from plait_node.stage.compute import StepDone, StepWork
from plait_node.stage.errors import SpeculationError

__all__ = ["MOST_GUESSED", "MOST_SPECULATIVE", "Speculation"]

MOST_SPECULATIVE = WINDOW_STEPS  # rows in a frame of which some may be taken back
MOST_GUESSED = 4 * WINDOW_STEPS  # steps before a frame's end that may be taken back

Hashes = tuple[RowHashes, RowHashes]  # of rows in and out


class Speculation:
    """Where one job stands on one stage, in steps."""

    def __init__(self, *, is_tail: bool) -> None:
        """Begin at step 0 with nothing computed."""
        self._is_tail = is_tail
        self._certain = 0  # the first step that may be taken back
        self._came = 0  # the first step that did not come
        self._accepted = 0  # the tail: where the next rows begin, whatever anybody says
        self._drawn: int | None = None  # the tail: the id of the row there
        self._held: list[Hashes] = []
        self.computed = 0  # the first step that was not computed

    def begin(self, row: int) -> None:
        """Begin at `row`: the steps before it come from the cache."""
        self._certain = self._came = self._accepted = self.computed = row

    def check(self, work: StepWork) -> None:
        """Raise `RowOrderError` where the sender must know better, `SpeculationError` where only the worker can."""
        follows = work.step == self._came if work.guessed else work.step <= self._came
        if not follows or not self._certain <= min(work.step, work.certain):
            raise RowOrderError(asked=work.step, expected=self._accepted if self._is_tail else self._came)
        wrong = work.certain > self._accepted + 1 if work.guessed else work.step != self._accepted
        if self._is_tail and wrong:
            raise SpeculationError(
                f"rows of step {work.step} came, those below {work.certain} certain, but the rows accepted here end at "
                f"step {self._accepted}; open a new attempt over other stages"
            )

    def drops(self, work: StepWork) -> bool:
        """Tell whether the tail passes rows over that were guessed behind a wrong guess."""
        stale = work.guessed and (work.step, work.draft[:1]) != (self._accepted, (self._drawn,))
        if stale:
            self._came = work.end
        return stale

    def accept(self, step: int, *, certain: int) -> list[Hashes]:
        """Forget the rows from `step` on; return the hashes below `certain` that waited for it."""
        held, self._held = self._held, []
        self.computed = min(self.computed, step)
        released: list[Hashes] = []
        for inputs, outputs in held:
            kept = inputs.below(step), outputs.below(step)
            released += _below(certain, *kept)
            self._held += _since(certain, *kept)
        return released

    def take(self, done: StepDone) -> list[Hashes]:
        """Take what was computed; return the hashes of rows that cannot be taken back."""
        self._certain = done.certain
        self._came = self.computed = done.end
        self._accepted = done.outputs.end
        self._drawn = done.tokens[-1] if done.tokens else None
        self._held += _since(done.certain, done.inputs, done.outputs)
        return _below(done.certain, done.inputs, done.outputs)


def _below(step: int, inputs: RowHashes, outputs: RowHashes) -> list[Hashes]:
    return [(inputs.below(step), outputs.below(step))] if inputs.start < min(step, inputs.end) else []


def _since(step: int, inputs: RowHashes, outputs: RowHashes) -> list[Hashes]:
    return [(inputs.since(step), outputs.since(step))] if step < inputs.end else []
