"""Listen to all that passes a gateway over HTTP and a broker over NATS, as its operator could."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import nats
from nats.aio.msg import Msg
from nats.js.errors import NotFoundError


class Overheard(httpx.AsyncHTTPTransport):
    """Passes calls on and keeps their bytes both ways; files that are published by their hash are left out."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[tuple[str, bytearray]] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        sent = str(request.url).encode() + b"".join(b"\n" + b": ".join(each) for each in request.headers.raw)
        self._parts.append((request.url.path, bytearray(sent + b"\n\n" + await request.aread())))
        response = await super().handle_async_request(request)
        if not request.url.path.startswith("/v1/files/"):
            came = bytearray(b"".join(b"\n" + b": ".join(each) for each in response.headers.raw) + b"\n\n")
            self._parts.append((request.url.path, came))
            assert isinstance(response.stream, httpx.AsyncByteStream)
            response.stream = _Kept(response.stream, came)
        return response

    def heard(self) -> dict[Path, bytes]:
        """Return all that passed, the data of events as it came and decoded."""
        found: dict[Path, bytes] = {}
        for number, (path, data) in enumerate(self._parts):
            found[Path(f"http/{number}{path}")] = bytes(data)
            events = [line[6:] for line in bytes(data).split(b"\n") if line.startswith(b"data: ")]
            found[Path(f"http/{number}{path}/decoded")] = b"\n".join(base64.b64decode(each) for each in events)
        return found


class _Kept(httpx.AsyncByteStream):
    def __init__(self, inner: httpx.AsyncByteStream, into: bytearray) -> None:
        self._inner, self._into = inner, into

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._inner:
            self._into.extend(piece)
            yield piece

    async def aclose(self) -> None:
        await self._inner.aclose()


@asynccontextmanager
async def broker_overheard(url: str) -> AsyncIterator[dict[Path, bytes]]:
    """Yield what fills with every message of the broker while this is open, and at its end with what lies there."""
    heard: dict[Path, bytes] = {}

    async def hear(message: Msg) -> None:
        heard[Path(f"nats/{len(heard)}/{message.subject}")] = _bytes_of(message.headers, message.data)

    connection = await nats.connect(url)
    try:
        await connection.subscribe(">", cb=hear)
        await connection.flush()
        yield heard
        await connection.flush()
        streams = connection.jetstream()
        for stream in await streams.streams_info():
            for at in range(max(1, stream.state.first_seq), stream.state.last_seq + 1):
                with suppress(NotFoundError):
                    kept = await streams.get_msg(stream.config.name or "", at)
                    heard[Path(f"nats/{stream.config.name}/{at}")] = _bytes_of(kept.headers, kept.data or b"")
    finally:
        await connection.close()


def _bytes_of(headers: dict[str, str] | None, data: bytes) -> bytes:
    return repr(headers).encode() + b"\n" + data
