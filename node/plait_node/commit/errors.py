"""The exception tree of commitments.

CommitError
|- DisagreementError   the rows received are not those the upstream leaf commits to: nothing is signed
|- LeafError           an upstream leaf that does not belong here: another job, window or chain
`- RowOrderError       rows that do not follow those before them
"""

from __future__ import annotations

from plait.protocol.errors import PlaitError


class CommitError(PlaitError):
    """The root of what committing raises."""

    code = "commit"


class DisagreementError(CommitError):
    """Received rows and upstream leaf differ in `window`; without agreement neither stage is paid from here on."""

    code = "disagreement"

    def __init__(self, *, stage: int, window: int) -> None:
        super().__init__(
            f"window {window}: the rows stage {stage} received are not those stage {stage - 1} signed; "
            "open a new attempt over another pair"
        )
        self.stage = stage
        self.window = window


class LeafError(CommitError):
    """An upstream leaf is not the next one of this job's upstream stage."""

    code = "bad_leaf"


class RowOrderError(CommitError):
    """Rows do not follow those before them."""

    code = "row_order"

    def __init__(self, *, asked: int, expected: int) -> None:
        super().__init__(f"rows of step {asked} came where step {expected} follows")
        self.asked = asked
        self.expected = expected
