"""The two ends of one gRPC stream under one face: bytes in order, an end, an abort."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import grpc
import grpc.aio

from plait_node.wire.certificate import SERVER_NAME, Certificate
from plait_node.wire.errors import ListenError, StreamBrokenError
from plait_node.wire.identity import MAX_FRAME_BYTES

# The published types of gRPC describe its threaded face; this file is the only one that touches it, so it casts once.
_aio: Any = grpc.aio
_grpc: Any = grpc
_BROKEN = (grpc.RpcError, _aio.BaseError, asyncio.InvalidStateError)

SERVICE, LINK, RELAY = "plait.v1.StageLink", "Link", "Relay"
_MAX_CONNECTIONS = 512  # each costs a descriptor; one that does not become a link lives for the handshake's deadline
_IDLE_MS = 30_000  # a connection without a stream is closed then

# gRPC cuts a stream without a word to us at its own limit; a frame above ours but below that one is blamed by name.
OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", 2 * MAX_FRAME_BYTES),
    ("grpc.max_send_message_length", -1),  # frame_bytes has checked it
    ("grpc.enable_retries", 0),
    ("grpc.so_reuseport", 0),  # a port that is taken is an error, not a lottery
    ("grpc.use_local_subchannel_pool", 1),  # a link never shares a connection with another
]


class Transport(Protocol):
    """One bidirectional stream of byte messages."""

    @property
    def where(self) -> str:
        """Return the other end's address, for logs."""
        ...

    async def read(self) -> bytes | None:
        """Return the next message, None at the end of the stream."""
        ...

    async def write(self, data: bytes) -> None:
        """Hand one message to the stream; raise `StreamBrokenError`."""
        ...

    async def finish(self) -> None:
        """Say that nothing more is written."""
        ...

    async def abort(self) -> None:
        """Free everything at once."""
        ...


class DialedTransport:
    """The side that opened the connection."""

    def __init__(self, target: str, pem: bytes, *, method: str = LINK) -> None:
        credentials = _grpc.ssl_channel_credentials(root_certificates=pem)
        options = [*OPTIONS, ("grpc.ssl_target_name_override", SERVER_NAME)]
        self._channel = _aio.secure_channel(target, credentials, options=options)
        self._call = self._channel.stream_stream(f"/{SERVICE}/{method}")()
        self.where = target
        self._aborted = False

    async def read(self) -> bytes | None:
        """See `Transport.read`."""
        try:
            data: Any = await self._call.read()
        except asyncio.CancelledError:
            if self._aborted:  # gRPC reports its own cancelled call like a cancelled task
                raise StreamBrokenError("the link was aborted") from None
            raise
        except _BROKEN as error:
            raise StreamBrokenError(_details(error)) from error
        return data if isinstance(data, bytes) else None

    async def write(self, data: bytes) -> None:
        """See `Transport.write`."""
        try:
            await self._call.write(data)
        except _BROKEN as error:
            raise StreamBrokenError(_details(error)) from error

    async def finish(self) -> None:
        """See `Transport.finish`."""
        if not self._call.done():
            await self._call.done_writing()

    async def abort(self) -> None:
        """See `Transport.abort`."""
        self._aborted = True
        self._call.cancel()
        await self._channel.close(None)


class AcceptedTransport:
    """The side that was dialed; its stream ends when `finished` is set and the handler returns."""

    def __init__(self, context: object) -> None:
        self._context: Any = context
        self.where: str = self._context.peer()
        self.finished = asyncio.Event()

    async def read(self) -> bytes | None:
        """See `Transport.read`."""
        if self.finished.is_set():
            return None
        try:
            data: Any = await self._context.read()
        except _BROKEN as error:
            raise StreamBrokenError(_details(error)) from error
        return data if isinstance(data, bytes) else None

    async def write(self, data: bytes) -> None:
        """See `Transport.write`."""
        if self.finished.is_set():
            raise StreamBrokenError("the stream has ended")
        try:
            await self._context.write(data)
        except _BROKEN as error:
            raise StreamBrokenError(_details(error)) from error

    async def finish(self) -> None:
        """See `Transport.finish`."""
        self.finished.set()

    async def abort(self) -> None:
        """See `Transport.abort`."""
        self.finished.set()


Serve = Callable[[AcceptedTransport], Awaitable[None]]


class Listener:
    """A listening port; each stream on it runs what `serve` has for its method, and ends when that returns."""

    def __init__(self, certificate: Certificate, serve: Mapping[str, Serve], *, handshake_s: float) -> None:
        self._credentials = _grpc.ssl_server_credentials([(certificate.key_pem, certificate.pem)])
        # Before a stream is there only gRPC can act: on TLS handshakes that drag on, on connections that say nothing.
        strangers = [
            ("grpc.server_handshake_timeout_ms", int(handshake_s * 1_000)),
            ("grpc.max_allowed_incoming_connections", _MAX_CONNECTIONS),
            ("grpc.max_connection_idle_ms", _IDLE_MS),
            ("grpc.max_concurrent_streams", 1),
        ]
        self._server = _aio.server(options=OPTIONS + strangers)
        handlers = {method: _grpc.stream_stream_rpc_method_handler(_handler(each)) for method, each in serve.items()}
        self._server.add_generic_rpc_handlers((_grpc.method_handlers_generic_handler(SERVICE, handlers),))

    async def start(self, host: str, port: int) -> int:
        """Listen and return the port; raise `ListenError` when the address cannot be had."""
        try:
            bound: int = self._server.add_secure_port(f"{host}:{port}", self._credentials)
        except RuntimeError as error:
            raise ListenError(f"cannot listen on {host}:{port}; if the port is in use choose another one") from error
        await self._server.start()
        return bound

    async def stop(self, grace_s: float) -> None:
        """Close the port; streams still open are cut after the grace."""
        await self._server.stop(grace_s)


def _handler(serve: Serve) -> Callable[[object, object], Awaitable[None]]:
    async def handle(_: object, context: object) -> None:
        await serve(AcceptedTransport(context))

    return handle


def _details(error: BaseException) -> str:
    details: Any = getattr(error, "details", None)
    text = details() if callable(details) else None
    return str(text or error or type(error).__name__)[:500]
