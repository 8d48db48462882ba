"""Who may call: the wallet behind the proxy pays for every request, so web pages and strangers must not reach it."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ipaddress import ip_address

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from plait.proxy.errors import AccessError

Refuse = Callable[[AccessError, Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The names that a Host header may carry beside `localhost`, and the key that calls must bring."""

    hosts: frozenset[str] = frozenset()
    key: str | None = None

    def check(self, headers: Headers) -> None:
        """Raise `AccessError` unless the caller may call.

        A page whose name was made to resolve to this machine still sends that name as Host, and an address cannot be
        made to resolve. A page of another origin sends it as Origin, or says so in Sec-Fetch-Site.
        """
        host = headers.get("host", "").casefold()
        name = hostname(host)
        if name != "localhost" and name not in self.hosts and not is_address(name):
            raise AccessError(
                f"Host {host[:100]!r} is no name of this machine; call 127.0.0.1, or allow the name with --allow-host"
            )
        foreign = headers.get("origin", f"http://{host}").casefold() != f"http://{host}"
        if foreign or headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise AccessError("a web page of another origin may not spend from this wallet; call from a program")
        self._check_key(headers.get("authorization", ""))

    def _check_key(self, authorization: str) -> None:
        if self.key is None:
            return
        scheme, _, given = authorization.partition(" ")
        if scheme.casefold() != "bearer" or not hmac.compare_digest(given.strip().encode("latin-1"), self.key.encode()):
            raise AccessError(
                "a wrong API key: send the proxy's --api-key as bearer", status=401, reason="invalid_api_key"
            )


class Guard:
    """Stands before the application and lets nobody pass who may not call."""

    def __init__(self, app: ASGIApp, *, access: Access, refuse: Refuse) -> None:
        self._app, self._access, self._refuse = app, access, refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check the headers of a call and pass it on."""
        if scope["type"] == "http":
            try:
                self._access.check(Headers(scope=scope))
            except AccessError as error:
                await self._refuse(error, scope, receive, send)
                return
        await self._app(scope, receive, send)


def hostname(host: str) -> str:
    """Return the name or address in a Host header, without its port."""
    if host.startswith("["):
        name, bracket, _ = host[1:].partition("]")
        return name if bracket else ""
    return host.partition(":")[0].casefold().removesuffix(".")


def is_address(host: str) -> bool:
    """Say whether this is an IP address."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Say whether an address to listen on is reached from this machine alone."""
    return ip_address(host).is_loopback if is_address(host) else host == "localhost"
