"""The exception tree of the package `plait`, as far as parties must agree on it.

PlaitError
|- ProtocolError              bytes or words that are not what docs/protocol.md says
|  |- MalformedMessageError
|  |- BadSignatureError
|  |- BadProofError           a tree proof that does not lead to its root
|  |- SealingError            a capsule, prompt or chunk that does not open
|  |- ManifestError
|  `- TokenizerError          a chat template or tokenizer that fails
|- VerificationError          an answer that fails L0; `.check` names the check
|- RefusedError               a peer said no; the class is chosen by its Fault's code
|  |- UnknownModelError, PromptTooLongError, PriceTooLowError, QuoteExpiredError, DeadlineError,
|  |- ChannelUnknownError, ChannelExitingError, DepositTooSmallError, StaleVoucherError,
|  |- BadRequestError, TooLargeError, TooManyCallsError, BusyError, NoRouteError, StageFailedError,
|  `- UnknownJobError, ClockError, InternalError
|- ChainError                 drawn in plait.chain.errors
|- LedgerError                drawn in plait.ledger.errors
`- ClientError                drawn in plait.client.errors
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What went wrong, as it travels: may the same call be made again, did money move."""

    code: str
    text: str
    retry: bool = False
    moved: bool = False


class PlaitError(Exception):
    """The root of everything that plait raises on purpose; the text says what happened, then what to do."""

    code: ClassVar[str] = "error"
    retry: bool = False
    moved: bool = False
    retry_after_s: float = 0.0  # how long to wait before the same call; 0: nobody said

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def fault(self) -> Fault:
        """Return the error as it travels to a peer."""
        return Fault(code=self.code, text=self.text, retry=self.retry, moved=self.moved)


class ProtocolError(PlaitError):
    """Bytes or words are not what docs/protocol.md says."""

    code = "protocol"


class MalformedMessageError(ProtocolError, ValueError):
    """A message breaks a length, range or limit."""

    code = "malformed"


class BadSignatureError(ProtocolError):
    """A signature is out of range, or not by whom it should be."""

    code = "bad_signature"


class BadProofError(ProtocolError):
    """A tree proof does not lead to its root."""

    code = "bad_proof"


class SealingError(ProtocolError):
    """Sealed bytes do not open, or hold what they must not."""

    code = "sealing"


class ManifestError(ProtocolError):
    """A manifest is malformed or not canonical."""

    code = "manifest"


class TokenizerError(ProtocolError):
    """A tokenizer or chat template fails."""

    code = "tokenizer"


class VerificationError(PlaitError):
    """An answer failed the check `check`; nothing more is signed for it."""

    code = "verification"

    def __init__(self, check: str, text: str) -> None:
        super().__init__(f"{check}: {text}")
        self.check = check


class RefusedError(PlaitError):
    """A peer refused; `fault` is what it sent."""

    code = "refused"

    def __init__(self, text: str, *, fault: Fault | None = None) -> None:
        super().__init__(text)
        if fault is not None:
            self.retry, self.moved = fault.retry, fault.moved
        self.sent = fault


class UnknownModelError(RefusedError):
    """The gateway does not serve this model; the text lists those it serves."""

    code = "unknown_model"


class PromptTooLongError(RefusedError):
    """The prompt exceeds the route's room; the text says the limit."""

    code = "prompt_too_long"


class PriceTooLowError(RefusedError):
    """The request's maximum price is below the quote."""

    code = "price_too_low"


class QuoteExpiredError(RefusedError):
    """The quote is too old."""

    code = "quote_expired"
    retry = True


class DeadlineError(RefusedError):
    """The deadline has passed or lies too far ahead."""

    code = "deadline"


class ChannelUnknownError(RefusedError):
    """There is no such channel on chain."""

    code = "channel_unknown"


class ChannelExitingError(RefusedError):
    """The channel's exit runs."""

    code = "channel_exiting"


class DepositTooSmallError(RefusedError):
    """The deposit does not cover the payment."""

    code = "deposit_too_small"


class StaleVoucherError(RefusedError):
    """The voucher does not extend the last accepted one."""

    code = "stale_voucher"


class BadRequestError(RefusedError):
    """The call contradicts itself, its quote or the chain."""

    code = "bad_request"


class TooLargeError(RefusedError):
    """The body is too large."""

    code = "too_large"


class TooManyCallsError(RefusedError):
    """This address calls too often."""

    code = "too_many_calls"
    retry = True


class BusyError(RefusedError):
    """No capacity now."""

    code = "busy"
    retry = True


class NoRouteError(RefusedError):
    """The model's blocks are not all served now."""

    code = "no_route"
    retry = True


class StageFailedError(RefusedError):
    """A stage failed while it answered."""

    code = "stage_failed"
    retry = True


class UnknownJobError(RefusedError):
    """No such request here."""

    code = "unknown_job"


class ClockError(RefusedError):
    """The clocks differ by more than 30 s."""

    code = "clock"


class InternalError(RefusedError):
    """The peer failed."""

    code = "internal"
    retry = True


def _refusals(kind: type[RefusedError]) -> dict[str, type[RefusedError]]:
    found = {kind.code: kind}
    for child in kind.__subclasses__():
        found |= _refusals(child)
    return found


def error_from_fault(fault: Fault) -> RefusedError:
    """Return the exception for a peer's fault; a code nobody drew gives a plain `RefusedError`."""
    return _refusals(RefusedError).get(fault.code, RefusedError)(fault.text, fault=fault)
