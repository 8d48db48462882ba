"""Errors of the gateway role: what a payer is told, and with which HTTP status.

RefusedError (plait.protocol.errors)
├── WithheldError          the answer failed a check of ours: its end is withheld
├── ConflictingJobError    a second job under the same request, with other content
├── BrokerAwayError        the broker does not answer: the same call may be made again
├── OtherGatewayError      another gateway of this operator owns the channel: the same call is made there
└── StoppedError           the gateway is shutting down: resume there again
GatewayError               the gateway itself cannot run (unreadable file)
"""

from __future__ import annotations

from plait.protocol.errors import PlaitError, RefusedError

_STATUS = {
    "bad_signature": 401,
    "deposit_too_small": 402,
    "unknown_model": 404,
    "other_gateway": 421,
    "unknown_job": 404,
    "unknown_file": 404,
    "channel_unknown": 404,
    "channel_exiting": 409,
    "conflict": 409,
    "conflicting_job": 409,
    "stale_voucher": 409,
    "quote_expired": 410,
    "too_large": 413,
    "too_many_calls": 429,
    "internal": 503,
    "busy": 503,
    "journal_full": 503,
    "no_route": 503,
    "broker_away": 503,
    "stopped": 503,
    "clock": 503,
}
_CHAIN_AWAY = ("rpc", "chain", "reorg")


class WithheldError(RefusedError):
    """An answer failed a check of the gateway; what it held back is never sent."""

    code = "answer_withheld"
    retry = True


class ConflictingJobError(RefusedError):
    """The request is known with other content."""

    code = "conflicting_job"


class UnknownFileError(RefusedError):
    """No such manifest, file or channel here."""

    code = "unknown_file"


class BrokerAwayError(RefusedError):
    """The broker does not answer."""

    code = "broker_away"
    retry = True

    def __init__(self, text: str, *, moved: bool = False) -> None:
        super().__init__(text)
        self.moved = moved


class OtherGatewayError(RefusedError):
    """Another gateway of this operator owns the channel; `url` is its own, empty while it has not said it."""

    code = "other_gateway"
    retry = True

    def __init__(self, url: str) -> None:
        where = url or "another gateway of this operator"
        super().__init__(f"this channel is served by {where} now; send the same call there")
        self.url = url


class StoppedError(RefusedError):
    """The gateway is shutting down."""

    code = "stopped"
    retry = True


class GatewayError(PlaitError):
    """The gateway cannot run; the text says what to do."""

    code = "gateway"


def status_of(error: PlaitError) -> int:
    """Return the HTTP status of an error that a payer gets."""
    if error.code in _STATUS:
        return _STATUS[error.code]
    return 503 if error.code.startswith(_CHAIN_AWAY) else 400
