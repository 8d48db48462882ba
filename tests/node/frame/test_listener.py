"""An HTTP face for strangers: who sends slowly or reads nothing is cut off, and everybody else is served meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from plait_node import listener
from plait_node.errors import PortTakenError
from plait_node.listener import Limits, serve_app

HASTY = Limits(head_s=0.3, idle_s=1.0, read_s=0.3)


async def _hello(_: Request) -> Response:
    return PlainTextResponse("hello")


async def _much(_: Request) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(2_000):
            yield bytes(64 << 10)

    return StreamingResponse(pieces())


@asynccontextmanager
async def face(limits: Limits = HASTY) -> AsyncGenerator[int]:
    app = Starlette(routes=[Route("/hello", _hello), Route("/much", _much)])
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve_app(app, host="127.0.0.1", port=0, ready=port.set_result, limits=limits))
    try:
        yield await port
    finally:
        serving.cancel()
        await asyncio.wait({serving})


async def cut_off(reader: asyncio.StreamReader) -> bool:
    """Tell whether the other side ends the connection without a word."""
    async with asyncio.timeout(5):
        try:
            return await reader.read() == b""
        except ConnectionError:
            return True


@pytest.mark.parametrize("begun", [b"", b"GET /hello HTTP/1.1\r\nHost: here\r\nX-Slow: "])
async def test_listener_cuts_off_who_does_not_finish_a_head_and_serves_the_others(begun: bytes) -> None:
    async with face() as port, httpx.AsyncClient() as client:
        slow = [await asyncio.open_connection("127.0.0.1", port) for _ in range(100)]
        for _, writer in slow:
            writer.write(begun)
        assert (await client.get(f"http://127.0.0.1:{port}/hello")).text == "hello"
        assert all(await asyncio.gather(*(cut_off(reader) for reader, _ in slow)))
        for _, writer in slow:
            writer.close()


async def test_listener_cuts_off_who_drips_a_second_head_letter_by_letter() -> None:
    async with face() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /hello HTTP/1.1\r\nHost: here\r\n\r\n")
        assert b"hello" in await reader.readuntil(b"hello")
        dripping = asyncio.create_task(_drip(writer))
        assert await cut_off(reader)
        async with asyncio.timeout(5):
            await dripping


async def _drip(writer: asyncio.StreamWriter) -> None:
    try:
        writer.write(b"GET /hello HTTP/1.1\r\nX-Slow: ")
        while not writer.is_closing():
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.05)
    except ConnectionError:
        pass


async def test_listener_cuts_off_who_reads_nothing_of_a_long_answer() -> None:
    async with face() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 10)
        writer.write(b"GET /much HTTP/1.1\r\nHost: here\r\n\r\n")
        await asyncio.sleep(1.0)  # far above what it may take, with a window that fills at once
        got = 0
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            while True:
                got += len(await reader.readexactly(1 << 10))
        assert got < 2_000 * (64 << 10)
        writer.close()


async def test_listener_lets_who_reads_slowly_have_the_whole_answer() -> None:
    async with face(Limits(read_s=2.0)) as port, httpx.AsyncClient(timeout=30) as client:
        got = 0
        async with client.stream("GET", f"http://127.0.0.1:{port}/much") as answer:
            async for piece in answer.aiter_raw(16 << 20):
                got += len(piece)
                await asyncio.sleep(0.05)
        assert got == 2_000 * (64 << 10)


async def test_listener_on_a_port_that_is_taken_says_so() -> None:
    async with face() as port:
        with pytest.raises(PortTakenError, match=f"cannot listen on 127.0.0.1:{port}"):
            await serve_app(Starlette(), host="127.0.0.1", port=port)


async def test_listener_gives_one_host_so_many_places_and_takes_it_again_once_some_are_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listener, "_stranger", lambda _: "192.0.2.7")
    async with face(Limits(per_host=3)) as port:
        places = [await asyncio.open_connection("127.0.0.1", port) for _ in range(5)]
        for reader, _ in places[3:]:
            assert await cut_off(reader)
        monkeypatch.setattr(listener, "_stranger", lambda _: "192.0.2.8")
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"http://127.0.0.1:{port}/hello")).text == "hello"
        monkeypatch.setattr(listener, "_stranger", lambda _: "192.0.2.7")
        for _, writer in places:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(retries=3)) as client:
            assert (await client.get(f"http://127.0.0.1:{port}/hello")).text == "hello"


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("127.0.0.1", ""),
        ("::1", ""),
    ],
)
def test_listener_counts_a_host_by_what_one_stranger_is_given(peer: str, host: str) -> None:
    assert listener._stranger((peer, 1)) == host
