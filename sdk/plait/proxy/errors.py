"""What the proxy itself refuses, and how every error looks to an OpenAI client.

PlaitError
`- ProxyError
   |- ParameterError      a field of a call is missing, malformed or not supported; `.param` names it
   |- BodyError           a body is too large, too slow, or no JSON object
   |- AccessError         a wrong key, a foreign Host, a browser's page of another origin
   |- NoSuchCallError     a path or method that is not served here
   |- LimitError          the request would pass a limit of the user; `.limit` names it
   |- CrowdedError        too many requests run already
   |- StoppingError       the proxy is going down
   |- FailedError         the proxy itself failed; its log says why
   |- CutShortError       the swarm ended an answer early; what came of it was checked and paid
   `- LeftError           the client is gone; nobody is told
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Literal

from plait.protocol.errors import PlaitError

Kind = Literal["invalid_request_error", "insufficient_quota", "rate_limit_error", "server_error"]
Limit = Literal["max_per_request", "max_total"]


class ProxyError(PlaitError):
    """The proxy refuses; `status` is HTTP's."""

    code = "proxy"
    status: int = 400


class ParameterError(ProxyError):
    """A field of a call cannot be used; `param` is its path in the body."""

    code = "invalid_value"

    def __init__(self, param: str, text: str, *, reason: str = "invalid_value") -> None:
        super().__init__(text)
        self.param = param
        self.reason = reason


class BodyError(ProxyError):
    """A body is too large, too slow, or no JSON object."""

    code = "invalid_body"

    def __init__(self, text: str, *, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


class AccessError(ProxyError):
    """The caller may not call here."""

    code = "forbidden"

    def __init__(self, text: str, *, status: int = 403, reason: str = "forbidden") -> None:
        super().__init__(text)
        self.status = status
        self.reason = reason


class NoSuchCallError(ProxyError):
    """Nothing is served under this path and method."""

    code = "no_such_call"

    def __init__(self, *, status: int = 404) -> None:
        super().__init__(
            "no such call here; served are POST /v1/chat/completions, POST /v1/completions, GET /v1/models, "
            "GET /v1/models/{model}, GET /spending and GET /health"
        )
        self.status = status


class LimitError(ProxyError):
    """A request would pass a limit that the user set; `retry` when requests that still run hold what it lacks."""

    code = "limit"

    def __init__(self, limit: Limit, text: str, *, retry: bool = False) -> None:
        super().__init__(text)
        self.limit: Limit = limit
        self.retry = retry
        self.status = 429 if retry else 402


class CrowdedError(ProxyError):
    """Too many requests run already."""

    code = "too_many_requests"
    status = 429
    retry = True


class StoppingError(ProxyError):
    """The proxy is going down."""

    code = "stopping"
    status = 503
    retry = True


class FailedError(ProxyError):
    """The proxy itself failed; its log says why."""

    code = "internal"
    status = 500


class CutShortError(ProxyError):
    """The swarm ended an answer before it was complete; what came of it was checked and paid."""

    code = "cut_short"
    status = 502


class LeftError(ProxyError):
    """The client is gone; nobody is told."""

    code = "client_left"
    status = 499


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An error as an OpenAI client reads it; `retry`: the same call may be made again, after so many seconds."""

    status: int
    kind: Kind
    code: str
    param: str | None
    text: str
    retry: bool
    retry_after_s: float

    @property
    def headers(self) -> dict[str, str]:
        """Return what tells a client whether to call again: OpenAI's own libraries obey the first."""
        if not self.retry:
            return {"x-should-retry": "false"}
        return {"x-should-retry": "true", "retry-after": str(max(1, ceil(self.retry_after_s)))}

    def envelope(self) -> dict[str, object]:
        """Return the body."""
        return {"error": {"message": self.text, "type": self.kind, "param": self.param, "code": self.code}}


# HTTP status, code and field by the code of what the client raises; all others are 502 under their own code.
_TOLD: dict[str, tuple[int, str, str | None]] = {
    "unknown_model": (404, "model_not_found", "model"),
    "ambiguous_model": (400, "ambiguous_model", "model"),
    "prompt_too_long": (400, "context_length_exceeded", None),
    "invalid_argument": (400, "invalid_value", None),
    "deposit_too_small": (402, "deposit_too_small", None),
    "too_many_calls": (429, "too_many_calls", None),
    "busy": (503, "busy", None),
    "no_route": (503, "no_route", None),
    "no_gateway": (503, "no_gateway", None),
    "gateway_down": (503, "gateway_down", None),
    "quote_expired": (503, "quote_expired", None),
    "rpc_down": (503, "rpc_down", None),
    "deadline": (504, "deadline", None),
}


def refusal(error: PlaitError) -> Refusal:
    """Return how a client is told; where money moved already, it is told not to repeat the call by itself."""
    status, code, param = _TOLD.get(error.code, (502, error.code, None))
    match error:
        case ParameterError():
            status, code, param = error.status, error.reason, error.param
        case AccessError():
            status, code = error.status, error.reason
        case LimitError():
            status, code = error.status, error.limit
        case ProxyError():
            status = error.status
        case _:
            pass
    retry = error.retry and not error.moved
    return Refusal(
        status=status,
        kind=_kind(status),
        code=code,
        param=param,
        text=error.text,
        retry=retry,
        retry_after_s=error.retry_after_s,
    )


def _kind(status: int) -> Kind:
    if status >= 500:
        return "server_error"
    return "insufficient_quota" if status == 402 else "rate_limit_error" if status == 429 else "invalid_request_error"
