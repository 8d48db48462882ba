"""What can go wrong for a dApp, beside what protocol, chain and ledger raise.

PlaitError
`- ClientError
   |- SettingsError           something to connect or pay with is missing or malformed
   |- InvalidArgumentError    an argument of a call is out of range
   |- NoGatewayError          no staked gateway answers, or none serves the model
   |- GatewayDownError        the gateway stopped answering
   |- GatewayAnswerError      the gateway's answer is malformed, oversized or not signed as it must be
   |- AmbiguousModelError     a name that several models carry
   |- UnknownRequestError     a job that this wallet never made, a node or on-chain request that nobody made
   |- PromptNotDeliveredError an on-chain request stands, but its prompt did not reach its node
   `- RequestEndedError       an on-chain request ended without an answer; `.how` says how, the fee is back
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

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
    """No such job of this wallet, node or on-chain request."""

    code = "unknown_request"


class PromptNotDeliveredError(ClientError):
    """The on-chain request `request` stands, but its prompt did not reach its node in time, so no answer comes."""

    code = "prompt_not_delivered"
    moved = True

    def __init__(self, request: int, why: str) -> None:
        super().__init__(
            f"request {request} stands on chain, but its prompt did not reach the node ({why}); after its exclusive "
            f"period `requests.cancel({request})` takes the fee back"
        )
        self.request = request


class RequestEndedError(ClientError):
    """An on-chain request was cancelled or refunded; its `fee`, in base units, is with its payer again."""

    code = "request_ended"

    def __init__(self, request: int, how: Literal["cancelled", "refunded"], *, fee: int, transaction: str) -> None:
        super().__init__(f"request {request} was {how} in transaction {transaction}: no answer comes, ask again")
        self.request = request
        self.how = how
        self.fee = fee
        self.transaction = transaction
