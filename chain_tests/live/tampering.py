"""An HTTP transport that does to a gateway's traffic what an attacker, or bad luck, would."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable

import httpx

from plait.protocol.pb import gateway_pb2

Change = Callable[[gateway_pb2.ResultEvent], None]


class Watched(httpx.AsyncHTTPTransport):
    """Passes calls on, remembers their paths, and changes the events of answers on their way."""

    def __init__(self, change: Change = lambda _: None) -> None:
        super().__init__()
        self.change = change
        self.paths: list[str] = []
        self.changed_at: int | None = None  # how many calls had been made when an event was changed
        self.before: Callable[[httpx.Request], None] = lambda _: None
        self.after: Callable[[httpx.Request], None] = lambda _: None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.paths.append(request.url.path)
        self.before(request)
        response = await super().handle_async_request(request)
        if request.url.path.endswith("/events"):
            stream = response.stream
            assert isinstance(stream, httpx.AsyncByteStream)
            response.stream = _Changed(stream, self._line)
            return response
        if request.method == "POST":
            await response.aread()
        self.after(request)
        return response

    def calls_since_change(self) -> list[str]:
        """Return the paths called after the first changed event."""
        return [] if self.changed_at is None else self.paths[self.changed_at :]

    def _line(self, line: bytes) -> bytes:
        if not line.startswith(b"data: "):
            return line
        event = gateway_pb2.ResultEvent.FromString(base64.b64decode(line[6:]))
        as_sent = event.SerializeToString()
        self.change(event)
        if event.SerializeToString() == as_sent:
            return line
        self.changed_at = len(self.paths) if self.changed_at is None else self.changed_at
        return b"data: " + base64.b64encode(event.SerializeToString())


class _Changed(httpx.AsyncByteStream):
    """A stream of server-sent events, line by line through a function."""

    def __init__(self, inner: httpx.AsyncByteStream, line: Callable[[bytes], bytes]) -> None:
        self._inner, self._line = inner, line

    async def __aiter__(self) -> AsyncIterator[bytes]:
        rest = b""
        async for piece in self._inner:
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                yield self._line(line) + b"\n"
        yield rest

    async def aclose(self) -> None:
        await self._inner.aclose()
