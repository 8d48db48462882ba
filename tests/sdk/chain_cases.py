"""An endpoint on loopback that answers what a test wants."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

Answer = Callable[[str, list[Any]], Any]


class RawBody(Exception):  # noqa: N818 not an error: what the endpoint sends instead of JSON-RPC
    """Send these bytes, with this HTTP status, as they are."""

    def __init__(self, body: bytes, status: int = 200) -> None:
        super().__init__(body)
        self.body = body
        self.status = status


class Refusal(Exception):  # noqa: N818 as above
    """Answer with a JSON-RPC error."""

    def __init__(self, error: object) -> None:
        super().__init__(error)
        self.error = error


@asynccontextmanager
async def endpoint(answer: Answer) -> AsyncGenerator[str]:
    """Yield the URL of a JSON-RPC endpoint whose results come from `answer(method, params)`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-l"))
        call = json.loads(await reader.readexactly(length))
        status = 200
        try:
            body = json.dumps({"jsonrpc": "2.0", "id": call["id"], "result": answer(call["method"], call["params"])})
            raw = body.encode()
        except Refusal as refusal:
            raw = json.dumps({"jsonrpc": "2.0", "id": call["id"], "error": refusal.error}).encode()
        except RawBody as wanted:
            raw, status = wanted.body, wanted.status
        header = f"HTTP/1.1 {status} X\r\nContent-Length: {len(raw)}\r\nConnection: close\r\n\r\n"
        writer.write(header.encode() + raw)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
