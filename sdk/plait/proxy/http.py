"""OpenAI's API over HTTP: bodies read within limits, errors in its envelope, answers whole or as server-sent events."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from uuid import uuid4

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from plait.protocol.errors import PlaitError
from plait.proxy import shapes
from plait.proxy.access import Access, Guard
from plait.proxy.answer import Answer, Begun, Ended, Piece
from plait.proxy.asked import Asked, read_chat, read_completion
from plait.proxy.desk import Desk
from plait.proxy.errors import BodyError, FailedError, LeftError, NoSuchCallError, refusal
from plait.proxy.fields import read_json

_LOG = logging.getLogger(__name__)
BODY_BYTES = 2 * 1_024 * 1_024
BODY_PATIENCE_S = 30.0
SEND_PATIENCE_S = 60.0  # a listener that reads nothing for so long counts as gone
ALIVE_S = 10.0

Endpoint = Callable[[Request], Awaitable[Response]]


def make_app(desk: Desk, access: Access, *, alive_s: float = ALIVE_S) -> Starlette:
    """Return the ASGI application of a desk that is open; a silent stream gets a comment every `alive_s` seconds."""
    face = _Face(desk, alive_s)
    app = Starlette(
        routes=[
            Route("/v1/chat/completions", _answered(face.chat), methods=["POST"]),
            Route("/v1/completions", _answered(face.completions), methods=["POST"]),
            Route("/v1/models", _answered(face.models), methods=["GET"]),
            Route("/v1/models/{model:path}", _answered(face.model), methods=["GET"]),
            Route("/spending", _answered(face.spending), methods=["GET"]),
            Route("/health", _answered(face.health), methods=["GET"]),
        ],
        exception_handlers={HTTPException: _not_found},
        middleware=[Middleware(Guard, access=access, refuse=_refuse)],
    )
    app.router.redirect_slashes = False
    return app


class _Face:
    """One method per route."""

    def __init__(self, desk: Desk, alive_s: float) -> None:
        self._desk, self._alive_s = desk, alive_s

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        return await self._answer(request, read_chat(await _body(request)))

    async def completions(self, request: Request) -> Response:
        """POST /v1/completions."""
        return await self._answer(request, read_completion(await _body(request)))

    async def models(self, _: Request) -> Response:
        """GET /v1/models."""
        return JSONResponse({"object": "list", "data": [shapes.model(each) for each in await self._desk.models()]})

    async def model(self, request: Request) -> Response:
        """GET /v1/models/{model}."""
        return JSONResponse(shapes.model(await self._desk.model(request.path_params["model"])))

    async def spending(self, _: Request) -> Response:
        """GET /spending."""
        return JSONResponse(self._desk.spending.to_dict())

    async def health(self, _: Request) -> Response:
        """GET /health."""
        return JSONResponse({"status": "ok"})

    async def _answer(self, request: Request, asked: Asked) -> Response:
        answer = self._desk.ask(asked)
        async with _leaving(request.receive, answer):
            begun = await self._first(answer)
            if asked.stream:
                chunks = shapes.Chunks(begun, chat=asked.chat, include_usage=asked.include_usage)
                return EventStream(answer, chunks, job=begun.id, alive_s=self._alive_s)
            while not isinstance(event := await answer.next(patience_s=self._alive_s), Ended):
                pass
        return JSONResponse(shapes.whole(begun, event, chat=asked.chat), headers={"x-request-id": begun.id})

    async def _first(self, answer: Answer) -> Begun:
        while not isinstance(event := await answer.next(patience_s=self._alive_s), Begun):
            pass
        return event


class EventStream(Response):
    """An answer as server-sent events; it is stopped when its listener goes."""

    media_type = "text/event-stream"

    def __init__(self, answer: Answer, chunks: shapes.Chunks, *, job: str, alive_s: float) -> None:
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no", "x-request-id": job})
        del self.headers["content-length"]
        self._answer, self._chunks, self._alive_s = answer, chunks, alive_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's face
        """Send the answer as it comes."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        with suppress(TimeoutError):
            async with _leaving(receive, self._answer), aclosing(self._events()) as events:
                async for data in events:
                    await _sent(send, data, more=True)
                await _sent(send, b"", more=False)

    async def _events(self) -> AsyncGenerator[bytes]:
        yield shapes.ALIVE
        try:
            while not isinstance(event := await self._answer.next(patience_s=self._alive_s), Ended):
                yield self._chunks.piece(event) if isinstance(event, Piece) else shapes.ALIVE
            for data in self._chunks.ended(event):
                yield data
        except LeftError:
            return
        except PlaitError as error:
            yield self._chunks.failed(refusal(error))


@asynccontextmanager
async def _leaving(receive: Receive, answer: Answer) -> AsyncGenerator[None]:
    """Stop the answer when its client disconnects, or when the block fails."""
    watch = asyncio.get_running_loop().create_task(_gone(receive))
    watch.add_done_callback(lambda task: None if task.cancelled() else answer.leave(LeftError("the client is gone")))
    try:
        yield
    except BaseException:
        answer.leave(LeftError("the call failed"))
        raise
    finally:
        watch.cancel()


async def _gone(receive: Receive) -> None:
    """Return once the client is gone; no deadline: it ends with the call that it watches."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _sent(send: Send, data: bytes, *, more: bool) -> None:
    async with asyncio.timeout(SEND_PATIENCE_S):
        await send({"type": "http.response.body", "body": data, "more_body": more})


async def _body(request: Request) -> object:
    """Read a JSON body of bounded size in bounded time; raise `BodyError`."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().casefold()
    if kind != "application/json":
        raise BodyError("a body is JSON: send the header Content-Type: application/json", status=415)
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_PATIENCE_S):
            async for part in request.stream():
                size += len(part)
                if size > BODY_BYTES:
                    raise BodyError(f"a body has at most {BODY_BYTES} bytes; shorten it", status=413)
                parts.append(part)
    except TimeoutError as error:
        raise BodyError(f"the body did not come within {BODY_PATIENCE_S:.0f} s", status=408) from error
    return read_json(b"".join(parts))


def _answered(endpoint: Endpoint) -> Endpoint:
    """Turn every error into the envelope with a status."""

    async def call(request: Request) -> Response:
        try:
            return await endpoint(request)
        except (ClientDisconnect, LeftError):
            return Response(status_code=400)
        except PlaitError as error:
            return _told(error)
        except Exception:  # noqa: BLE001 - one bad call must not end the others
            _LOG.exception("call failed path=%s", request.url.path)
            return _told(FailedError("the proxy failed; its log says why"))

    return call


def _told(error: PlaitError) -> Response:
    told = refusal(error)
    _LOG.info("call refused status=%d code=%s param=%r text=%r", told.status, told.code, told.param, told.text[:200])
    headers = told.headers | {"x-request-id": f"req_{uuid4().hex}"}
    return JSONResponse(told.envelope(), status_code=told.status, headers=headers)


async def _refuse(error: PlaitError, scope: Scope, receive: Receive, send: Send) -> None:
    await _told(error)(scope, receive, send)


async def _not_found(_: Request, error: Exception) -> Response:
    return _told(NoSuchCallError(status=error.status_code if isinstance(error, HTTPException) else 404))
