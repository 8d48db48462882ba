"""The exception tree of the worker role.

WorkerError
|- StageFailure            a stage failed a job; `.owner` is blamed, `.reason` says why
|- UnpaidError             the payer stopped paying beyond the credit line
|- PrekeyError             the prekey file cannot be used, or nobody knows the prekey
`- TakenOverError          other workers go on with the answer
"""

from __future__ import annotations

from plait.protocol.errors import PlaitError
from plait.protocol.ids import Address, to_hex


class WorkerError(PlaitError):
    """The root of what the worker role raises."""

    code = "worker"


class StageFailure(WorkerError):  # noqa: N818  a failure of a peer, answered with an error event, not a fault of ours
    """A stage failed a job: another route may serve the next one."""

    code = "stage_failed"
    retry = True

    def __init__(
        self, owner: Address, blocks: str, reason: str, *, accuser: Address | None = None, unheard: bool = False
    ) -> None:
        """Keep who is blamed, by whom, and why; `unheard`: a link to it was lost, which may be nobody's fault."""
        super().__init__(f"stage {to_hex(owner)} (blocks {blocks}) failed: {reason}; ask again, another route is taken")
        self.owner = owner
        self.reason = reason
        self.accuser = accuser
        self.unheard = unheard


class UnpaidError(WorkerError):
    """The payer stopped paying."""

    code = "unpaid"


class PrekeyError(WorkerError):
    """The prekey file cannot be used, or nobody knows the prekey."""

    code = "bad_request"


class TakenOverError(WorkerError):
    """Another worker goes on with an answer that this one took over."""

    code = "internal"
    retry = True
