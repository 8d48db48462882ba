"""Calls that are cancelled at any point leave the endpoint usable."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from plait.chain.rpc import Rpc

_ROUNDS = 40
_AT_ONCE = 12


@asynccontextmanager
async def endpoint() -> AsyncIterator[str]:
    """Yield the URL of a chain whose id is 7, and which takes its time."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                size = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
                asked = json.loads(await reader.readexactly(size))
                await asyncio.sleep(0.002)
                body = json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": "0x7"}).encode()
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
                )
                writer.write(body)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def test_rpc_calls_cancelled_anywhere_leave_later_calls_answered() -> None:
    async with endpoint() as url, Rpc(url, timeout_s=30.0) as rpc:
        for pause in range(_ROUNDS):
            calls = [asyncio.create_task(rpc.chain_id()) for _ in range(_AT_ONCE)]
            await asyncio.sleep(pause * 0.0002)
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)

        assert await rpc.chain_id() == 7
