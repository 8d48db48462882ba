"""The exception tree of the stage role; each is answered to the worker as the Fault of its code.

StageError
|- NotInRouteError        the job's route does not hold this stage as it serves
|- JobOpenError           the job is open already, or a later attempt is
|- NoRoomError            the steps do not fit; the text says how many would
|- StageBusyError         too many jobs
|- PrefixGoneError        the cached windows asked for are not there
|- NextStageError         the next stage cannot be reached; blame it
|- UpstreamError          what the stage before sent cannot be right; blame it
|- SpeculationError       rows and what the worker said of them do not fit; it or the stage before is at fault
|- UnpaidError            work is ahead of payment by more than the credit line
|- BadPaymentError        a payment that does not belong to a job of this link
`- IdleError              nothing came for the job for too long
"""

from __future__ import annotations

from plait.protocol.errors import PlaitError


class StageError(PlaitError):
    """The root of what the stage role refuses."""

    code = "stage"


class NotInRouteError(StageError):
    """The route is not one this stage agreed to."""

    code = "not_in_route"


class JobOpenError(StageError):
    """This job, or a later attempt of its request, is open here."""

    code = "job_open"


class NoRoomError(StageError):
    """Prompt and answer do not fit into the KV room."""

    code = "prompt_too_long"


class StageBusyError(StageError):
    """The stage holds as many jobs as it may."""

    code = "busy"
    retry = True


class PrefixGoneError(StageError):
    """The cached windows that `Start` counts on are not there."""

    code = "prefix_gone"
    retry = True


class NextStageError(StageError):
    """The next stage is not reachable, or its record is not to be believed."""

    code = "next_stage"
    retry = True


class UpstreamError(StageError):
    """The stage before sent what cannot be right."""

    code = "upstream"
    retry = True


class SpeculationError(StageError):
    """Speculative rows, their draft and the accepted end contradict each other."""

    code = "speculation"
    retry = True


class UnpaidError(StageError):
    """More windows are unpaid than the credit line allows."""

    code = "unpaid"


class BadPaymentError(StageError):
    """A payment that belongs to no job of this link."""

    code = "bad_payment"


class IdleError(StageError):
    """Nothing came for the job for too long."""

    code = "idle"
    retry = True
