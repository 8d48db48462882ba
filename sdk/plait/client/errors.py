"""What can go wrong for a dApp, beside what protocol, chain and ledger raise.

PlaitError
`- ClientError
   |- SettingsError           something to connect or pay with is missing or malformed
   |- InvalidArgumentError    an argument of a call is out of range
   |- NoGatewayError          no staked gateway answers, or none serves the model
   |- GatewayDownError        the gateway stopped answering
   |- GatewayAnswerError      the gateway's answer is malformed, oversized or not signed as it must be
   |- AmbiguousModelError     a name that several models carry
   `- UnknownRequestError     a job or on-chain request that this wallet never made
"""

from __future__ import annotations

from collections.abc import Sequence

from plait.protocol.errors import PlaitError


class ClientError(PlaitError):
    """The SDK cannot go on."""

    code = "client"


class SettingsError(ClientError):
    """Something to connect or pay with is missing or malformed."""

    code = "settings"


class InvalidArgumentError(ClientError, ValueError):
    """An argument of a call is out of range."""

    code = "invalid_argument"


class NoGatewayError(ClientError):
    """No staked gateway can serve the call; `reasons` holds what each one said."""

    code = "no_gateway"
    retry = True

    def __init__(self, text: str, reasons: Sequence[str] = ()) -> None:
        super().__init__(text + "".join(f"; {reason}" for reason in reasons))
        self.reasons = tuple(reasons)


class GatewayDownError(ClientError):
    """The gateway stopped answering; `moved` says whether a payment may have reached it."""

    code = "gateway_down"
    retry = True

    def __init__(self, url: str, why: str) -> None:
        super().__init__(f"gateway {url} does not answer ({why}); try again, or name another gateway")
        self.url = url


class GatewayAnswerError(ClientError):
    """The gateway's answer is not what the protocol says."""

    code = "gateway_answer"

    def __init__(self, url: str, why: str) -> None:
        super().__init__(f"gateway {url} broke the protocol: {why}; nothing more was signed, use another gateway")
        self.url = url


class AmbiguousModelError(ClientError):
    """Several models carry this name; give the id."""

    code = "ambiguous_model"

    def __init__(self, name: str, ids: Sequence[str]) -> None:
        super().__init__(f"{len(ids)} models are called {name!r}; pass one of these ids as model: {', '.join(ids)}")
        self.ids = tuple(ids)


class UnknownRequestError(ClientError):
    """No such job of this wallet."""

    code = "unknown_request"
