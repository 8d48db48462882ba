"""Errors of the broker's edge.

BrokerError
├── BrokerDownError          the server does not answer: every call may be made again
├── BrokerClosedError        this connection was closed by us
├── MessageTooLargeError     above the limit of one message
├── UnreadableMessageError   bytes on a subject that are not what the subject carries
├── StreamsMissingError      this user may not make the streams, and nobody else did
├── NkeyError                a key or a certificate file that cannot be used
└── ServerStartError         the embedded nats-server cannot run here
"""

from __future__ import annotations


class BrokerError(Exception):
    """Anything that went wrong between this node and its broker."""


class BrokerDownError(BrokerError):
    """Report a broker that did not answer in time; the same call is safe to repeat."""

    def __init__(self, what: str, cause: BaseException | None = None) -> None:
        reason = f" ({type(cause).__name__}: {cause})" if cause is not None else ""
        super().__init__(f"the broker did not {what}{reason}; check that nats-server runs and that its URL is right")
        self.what = what


class BrokerClosedError(BrokerError):
    """Report a call after `close`."""

    def __init__(self) -> None:
        super().__init__("this broker connection is closed; connect again")


class MessageTooLargeError(BrokerError):
    """Report a message that no subject carries."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"a message of {size} bytes is above the limit of {limit}; send less at once")
        self.size = size
        self.limit = limit


class UnreadableMessageError(BrokerError):
    """Report bytes that are not the message their subject promises."""

    def __init__(self, subject: str, cause: BaseException) -> None:
        super().__init__(f"cannot read the message on {subject}: {cause}; look who may publish there")
        self.subject = subject


class StreamsMissingError(BrokerError):
    """Report a broker on which the operator has not made the streams yet."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"the broker has no stream {name}, and this node's key may not make it; "
            "`plait node broker streams` makes all of them, with the operator's key"
        )
        self.name = name


class NkeyError(BrokerError):
    """Report a key or certificate file that cannot be used; the text says which and why."""


class ServerStartError(BrokerError):
    """Report an embedded nats-server that cannot run; the text says what to do."""
