"""Serve HTTP to strangers: who sends slowly, reads nothing, or comes a thousandfold holds up nobody."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from plait_node.errors import PortTakenError

__all__ = ["Limits", "serve_app"]

_GRACE_S: Final = 1
_BACKLOG: Final = 128
_CONNECTIONS: Final = 2_000
_IPV6_HOST: Final = 64  # bits that one stranger is given

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Seconds that a peer may take, and how many connections."""

    head_s: float = 10.0  # from the connection, or the answer before, to the end of a request's headers
    idle_s: float = 30.0  # between an answer and the next request's first byte
    read_s: float = 30.0  # without taking anything of an answer that waits for it
    per_host: int = 256  # connections at once from one address, an IPv6 /64; this machine's own are not counted


async def serve_app(
    app: ASGIApp,
    *,
    host: str,
    port: int,
    ready: Callable[[int], None] = lambda _: None,
    limits: Limits | None = None,
) -> None:
    """Serve until cancelled; call `ready` with the port once it listens; raise `PortTakenError` if it is taken."""
    limits = limits or Limits()
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    with contextlib.closing(listener):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            text = f"cannot listen on {host}:{port} ({error.strerror}); free it or name another"
            raise PortTakenError(text) from error
        listener.listen(_BACKLOG)
        ready(int(listener.getsockname()[1]))
        config = uvicorn.Config(
            app,
            http=_guarded(limits),
            ws="none",
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=_GRACE_S,
            timeout_keep_alive=int(limits.idle_s),
            limit_concurrency=_CONNECTIONS,
        )
        await _until_cancelled(_Server(config), listener)


async def _until_cancelled(server: uvicorn.Server, listener: socket.socket) -> None:
    """Serve; when cancelled let uvicorn close its connections first."""
    task = asyncio.get_running_loop().create_task(server.serve(sockets=[listener]))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        server.should_exit = True
        await asyncio.wait({task}, timeout=2 * _GRACE_S + 1)
        raise


class _Server(uvicorn.Server):
    """Leaves the process's signals to whoever runs the roles."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Capture none."""
        yield


class _Guarded(H11Protocol):
    """uvicorn's protocol with limits that it lacks: for headers, for a peer that reads nothing, for places."""

    limits: Limits
    hosts: Counter[str]
    _host: str = ""
    _head: asyncio.TimerHandle | None = None
    _read: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self._host = _stranger(transport.get_extra_info("peername"))
        self.hosts[self._host] += 1
        if self._host and self.hosts[self._host] > self.limits.per_host:
            _log.info("connection refused host=%s reason=%d are open", self._host, self.limits.per_host)
            transport.abort()
            return
        self._head = self.loop.call_later(self.limits.head_s, self._too_late)

    def connection_lost(self, exc: Exception | None) -> None:
        _cancel(self._head)
        _cancel(self._read)
        self.hosts[self._host] -= 1
        if self.hosts[self._host] <= 0:
            del self.hosts[self._host]
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        _cancel(self._head)
        self._head = self.loop.call_later(self.limits.idle_s + self.limits.head_s, self._too_late)
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._read = self.loop.call_later(self.limits.read_s, self.transport.abort)

    def resume_writing(self) -> None:
        _cancel(self._read)
        super().resume_writing()

    def _too_late(self) -> None:
        # None before the first request, whatever uvicorn's annotation says.
        if not self.cycle or self.cycle.response_complete:
            self.transport.abort()


def _guarded(limits: Limits) -> type[H11Protocol]:
    return type("Guarded", (_Guarded,), {"limits": limits, "hosts": Counter[str]()})


def _stranger(peer: tuple[str, int] | None) -> str:
    """Return what names a peer's host, nothing for one of this machine: a proxy there speaks for many."""
    if peer is None:
        return ""
    address = ipaddress.ip_address(peer[0].partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address
    if address.is_loopback:
        return ""
    bits = _IPV6_HOST if address.version == 6 else address.max_prefixlen
    return str(ipaddress.ip_network((address, bits), strict=False).network_address)


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
