"""The gateway over HTTP (docs/protocol.md section 8): protobuf bodies, faults with a status, answers as SSE."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

from google.protobuf.message import Message
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from plait.protocol import codec
from plait.protocol.errors import (
    BadRequestError,
    BadSignatureError,
    InternalError,
    MalformedMessageError,
    PlaitError,
    TooLargeError,
)
from plait.protocol.ids import hash32
from plait_node.gateway.answer import Event
from plait_node.gateway.errors import status_of
from plait_node.gateway.limits import (
    BODY_BYTES,
    PROMPT_BODY_BYTES,
    PROMPTS_BURST,
    PROMPTS_PER_S,
    CallLimiter,
    retry_after_s,
)
from plait_node.gateway.offers import Needs
from plait_node.gateway.openapi import PROTOBUF, with_document
from plait_node.gateway.service import Gateway
from plait_node.listener import Limits, serve_app

_LOG = logging.getLogger(__name__)
_MOST_INDEX = 1 << 32
_BODY_S = 30.0

Endpoint = Callable[[Request], Awaitable[Response]]


def make_app(gateway: Gateway, *, limiter: CallLimiter | None = None, prompts: CallLimiter | None = None) -> Starlette:
    """Return the ASGI application of a gateway that runs; `prompts` limits deliveries of prompts besides."""
    face = _Face(gateway, limiter or CallLimiter(gateway.clock))
    prompts = prompts or CallLimiter(gateway.clock, per_s=PROMPTS_PER_S, burst=PROMPTS_BURST)
    post, get = ["POST"], ["GET"]
    routes = [
        Route("/v1/quotes", face.unsigned(face.quotes), methods=post),
        Route("/v1/jobs", face.signed(face.jobs), methods=post),
        Route("/v1/jobs/{request}/events", face.signed(face.events), methods=post),
        Route("/v1/jobs/{request}/cancel", face.signed(face.cancel), methods=post),
        Route("/v1/vouchers", face.signed(face.vouchers), methods=post),
        Route("/v1/requests/{number}/prompt", face.unsigned(face.prompt, prompts), methods=post),
        Route("/v1/channels/state", face.unsigned(face.channel_state), methods=post),
        Route("/v1/models", face.unsigned(face.models), methods=get),
        Route("/v1/manifests/{id}", face.unsigned(face.manifest), methods=get),
        Route("/v1/files/{id}", face.unsigned(face.file), methods=get),
        Route("/v1/receipts/{channel}/{index}", face.unsigned(face.receipts), methods=get),
        Route("/health", face.health, methods=get),
        Route("/metrics", face.metrics, methods=get),
    ]
    app = Starlette(routes=with_document(routes), exception_handlers={HTTPException: face.not_found})
    app.router.redirect_slashes = False  # a path with a slash too many is none of ours, not another one's name
    return app


async def serve(
    gateway: Gateway,
    *,
    host: str,
    port: int,
    ready: Callable[[int], None] = lambda _: None,
    per_host: int = Limits.per_host,
) -> None:
    """Serve until cancelled, `per_host` connections at once to a host.

    Call `ready` with the port once it listens; raise `PortTakenError`.
    """
    await serve_app(make_app(gateway), host=host, port=port, ready=ready, limits=Limits(per_host=per_host))


class _Face:
    """One method per route; `signed` and `unsigned` wrap them with limits and errors."""

    def __init__(self, gateway: Gateway, limiter: CallLimiter) -> None:
        self._gateway = gateway
        self._limiter = limiter

    def unsigned(self, endpoint: Endpoint, *limiters: CallLimiter) -> Endpoint:
        """Limit calls by address."""

        async def call(request: Request) -> Response:
            for limiter in (self._limiter, *limiters):
                limiter.check(_address(request))
                limiter.charge(_address(request))
            return await endpoint(request)

        return self._answered(call)

    def signed(self, endpoint: Endpoint) -> Endpoint:
        """Limit only what proves to be badly signed or unreadable."""

        async def call(request: Request) -> Response:
            self._limiter.check(_address(request))
            try:
                return await endpoint(request)
            except (BadSignatureError, MalformedMessageError, TooLargeError):
                self._limiter.charge(_address(request))
                raise

        return self._answered(call)

    async def quotes(self, request: Request) -> Response:
        """POST /v1/quotes?input=N&output=N, both optional; a header says how many jobs its group takes."""
        needs = Needs(input_tokens=_asked(request, "input"), output_tokens=_asked(request, "output"))
        reply = await self._gateway.quote(await _body(request), needs)
        limit = self._gateway.offers.queue_limit(reply.quote.message.group)
        return _proto(reply, {"Plait-Queue-Limit": str(limit)})

    async def jobs(self, request: Request) -> Response:
        """POST /v1/jobs."""
        return _proto(await self._gateway.take_job(await _body(request)))

    async def vouchers(self, request: Request) -> Response:
        """POST /v1/vouchers."""
        return _proto(await self._gateway.take_voucher(await _body(request)))

    async def prompt(self, request: Request) -> Response:
        """POST /v1/requests/{number}/prompt."""
        number = _number(request.path_params["number"], "the request's number is a whole number, counted from 1")
        await self._gateway.prompts.take(number, await _body(request, PROMPT_BODY_BYTES))
        return Response(status_code=202)

    async def channel_state(self, request: Request) -> Response:
        """POST /v1/channels/state."""
        return _proto(await self._gateway.channel_state(await _body(request)))

    async def cancel(self, request: Request) -> Response:
        """POST /v1/jobs/{request}/cancel."""
        await self._gateway.cancel(hash32(request.path_params["request"]), await _body(request))
        return Response(status_code=202)

    async def events(self, request: Request) -> Response:
        """POST /v1/jobs/{request}/events."""
        name = hash32(request.path_params["request"])
        events = await self._gateway.events(name, await _body(request))
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(_sse(events), media_type="text/event-stream", headers=headers)

    async def models(self, _: Request) -> Response:
        """GET /v1/models."""
        return _proto(await self._gateway.offers.listing())

    async def manifest(self, request: Request) -> Response:
        """GET /v1/manifests/{id}."""
        data = self._gateway.manifest(hash32(request.path_params["id"]))
        return Response(data, media_type="application/json", headers=_FOREVER)

    async def file(self, request: Request) -> Response:
        """GET /v1/files/{keccak256}."""
        data = self._gateway.shelf.file(hash32(request.path_params["id"]))
        return Response(data, media_type="application/octet-stream", headers=_FOREVER)

    async def receipts(self, request: Request) -> Response:
        """GET /v1/receipts/{channel}/{index}."""
        index = _number(request.path_params["index"], "the index is a whole number, counted from 0")
        return _proto(await self._gateway.receipts(hash32(request.path_params["channel"]), index))

    async def health(self, _: Request) -> Response:
        """GET /health."""
        healthy = await self._gateway.healthy()
        body = {"status": "ok" if healthy else "broker away", "time": int(self._gateway.clock())}
        return JSONResponse(body, status_code=200 if healthy else 503)

    async def metrics(self, _: Request) -> Response:
        """GET /metrics."""
        return Response(self._gateway.metrics.page(), media_type="text/plain; version=0.0.4")

    async def not_found(self, _: Request, error: Exception) -> Response:
        """Answer a path or method that is not ours with a fault, too."""
        status = error.status_code if isinstance(error, HTTPException) else 404
        return _fault(BadRequestError("no such call here; docs/protocol.md section 8 lists them"), status)

    def _answered(self, endpoint: Endpoint) -> Endpoint:
        """Turn every error into a fault with a status."""

        async def call(request: Request) -> Response:
            try:
                return await endpoint(request)
            except ClientDisconnect:
                return Response(status_code=400)
            except PlaitError as error:
                self._gateway.metrics.refused.labels(code=error.code).inc()
                return _fault(error, status_of(error))
            except Exception:  # noqa: BLE001 - one bad call must not end the others
                _LOG.exception("call failed path=%s", request.url.path)
                return _fault(InternalError("the gateway failed; its operator finds why in its log"), 500)

        return call


_FOREVER = {"Cache-Control": "public, max-age=31536000, immutable"}


def _number(text: str, otherwise: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 10 or int(text) >= _MOST_INDEX:
        raise BadRequestError(otherwise)
    return int(text)


def _asked(request: Request, name: str) -> int:
    """Read a number of tokens from the query, 0 for none."""
    return _number(request.query_params.get(name, "0"), f"{name} is a whole number of tokens")


async def _body(request: Request, most: int = BODY_BYTES) -> bytes:
    """Read a body of bounded size in bounded time."""
    text = request.headers.get("content-length", "0")
    size = int(text) if text.isascii() and text.isdigit() and len(text) < 12 else most + 1
    try:
        async with asyncio.timeout(_BODY_S):
            data = await _read(request, most) if size <= most else None
    except TimeoutError:
        raise BadRequestError(f"the body did not come within {_BODY_S:.0f} s; send it again") from None
    if data is None:
        raise TooLargeError(f"a body has at most {most} bytes here; shorten the prompt")
    return data


async def _read(request: Request, most: int) -> bytes | None:
    """Return the body; none of one that is larger."""
    parts, size = list[bytes](), 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            return None
        parts.append(part)
    return b"".join(parts)


async def _sse(events: AsyncGenerator[Event | None]) -> AsyncIterator[bytes]:
    async with contextlib.aclosing(events):
        yield b": plait\n\n"
        async for event in events:
            if event is None:
                yield b": alive\n\n"
            else:
                data = base64.b64encode(event.data)
                yield b"id: %d\nevent: %s\ndata: %s\n\n" % (event.sequence, event.kind.encode(), data)


def _proto(message: Message, headers: dict[str, str] | None = None) -> Response:
    return Response(message.SerializeToString(), media_type=PROTOBUF, headers=headers)


def _fault(error: PlaitError, status: int) -> Response:
    wait = retry_after_s(error)
    headers = {"Retry-After": str(wait)} if wait else None
    body = codec.fault_to_pb(error.fault()).SerializeToString()
    return Response(body, status_code=status, media_type=PROTOBUF, headers=headers)


def _address(request: Request) -> str:
    return request.client.host if request.client else "unknown"
