"""Listening: one socket, one desk; when it ends, running answers are stopped and settled before connections close."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Generator

import uvicorn

from plait.client.errors import SettingsError
from plait.proxy.access import Access
from plait.proxy.desk import Desk
from plait.proxy.http import ALIVE_S, make_app

_GRACE_S = 2
_MOST_CONNECTIONS = 256


async def serve(
    desk: Desk,
    access: Access,
    *,
    host: str,
    port: int,
    ready: Callable[[int], None] = lambda _: None,
    alive_s: float = ALIVE_S,
) -> None:
    """Open the desk and serve until cancelled; call `ready` with the port once it listens.

    Raise `SettingsError` when the port is taken, and what connecting to the chain raises.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    with contextlib.closing(listener):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise SettingsError(f"cannot listen on {host}:{port} ({error.strerror}); name another --port") from error
        await desk.open()
        listener.listen(128)
        ready(int(listener.getsockname()[1]))
        config = uvicorn.Config(
            make_app(desk, access, alive_s=alive_s),
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=_GRACE_S,
            timeout_keep_alive=30,
            limit_concurrency=_MOST_CONNECTIONS,
        )
        await _until_cancelled(_Server(config), listener, desk)


async def _until_cancelled(server: uvicorn.Server, listener: socket.socket, desk: Desk) -> None:
    task = asyncio.get_running_loop().create_task(server.serve(sockets=[listener]))
    try:
        await asyncio.shield(task)
    finally:
        await desk.close()
        server.should_exit = True
        await asyncio.wait({task}, timeout=2 * _GRACE_S)


class _Server(uvicorn.Server):
    """Leaves the process's signals to whoever serves."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Capture none."""
        yield
