"""A proxy that listens on loopback; the gateway behind its client is a fake, or whichever the client was given."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
from openai import AsyncOpenAI
from tests.sdk.client.fakes import World, ids_of
from tests.sdk.client.test_ask import CHAT
from tests.sdk.swarm import Answer, Event

from plait import AsyncPlait
from plait.protocol.messages import Finish
from plait.proxy import Access, Desk, Limits, Spending, serve

BODY = {"model": "tiny", "messages": CHAT, "max_tokens": 200}
WIDE = Limits(per_request=100_000, total=5_000_000)


@dataclass(slots=True, kw_only=True)
class Proxied:
    """A proxy that serves, and clients of it."""

    desk: Desk
    spending: Spending
    http: httpx.AsyncClient
    url: str
    serving: asyncio.Task[None]

    def openai(self, **settings: object) -> AsyncOpenAI:
        return AsyncOpenAI(base_url=f"{self.url}/v1", **{"api_key": "any", "max_retries": 0, **settings})

    async def settled(self) -> None:
        """Wait until no answer runs."""
        if self.desk._answers:
            _, late = await asyncio.wait(self.desk._answers, timeout=40)
            assert not late


@asynccontextmanager
async def proxied(
    client: AsyncPlait,
    *,
    limits: Limits = WIDE,
    access: Access | None = None,
    alive_s: float = 10.0,
    most_running: int = 32,
) -> AsyncGenerator[Proxied]:
    spending = Spending(limits)
    desk = Desk(client, spending, most_running=most_running)
    loop = asyncio.get_running_loop()
    port: asyncio.Future[int] = loop.create_future()
    serving = serve(desk, access or Access(), host="127.0.0.1", port=0, ready=port.set_result, alive_s=alive_s)
    task = loop.create_task(serving)
    await asyncio.wait({port, task}, timeout=30, return_when=asyncio.FIRST_COMPLETED)
    url = f"http://127.0.0.1:{port.result()}"
    try:
        async with httpx.AsyncClient(base_url=url, timeout=60) as http:
            yield Proxied(desk=desk, spending=spending, http=http, url=url, serving=task)
    finally:
        task.cancel()
        await asyncio.wait({task}, timeout=30)


class Paced:
    """Lets a gateway's answers come to a halt after some bytes, until `go` is set or the job is cancelled."""

    def __init__(self, world: World, *, after: int) -> None:
        self._world, self._after = world, after
        self.go = asyncio.Event()
        self.halted = asyncio.Event()

    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self.handle)

    async def handle(self, request: httpx.Request) -> httpx.Response:
        response = await self._world.gateway.handle(request)
        if request.url.path.endswith("/cancel"):
            self.go.set()
        if request.url.path.endswith("/events"):
            response.stream = _Halting(self, response.stream, self._after)
        return response


class _Halting(httpx.AsyncByteStream):
    def __init__(self, paced: Paced, inner: httpx.AsyncByteStream, after: int) -> None:
        self._paced, self._inner, self._after = paced, inner, after

    async def __aiter__(self) -> AsyncIterator[bytes]:
        sent = 0
        async for data in self._inner:
            if sent >= self._after and not self._paced.go.is_set():
                self._paced.halted.set()
                await self._paced.go.wait()
            sent += 1
            yield data


def told(response: httpx.Response) -> tuple[int, str, str | None]:
    """Return a refusal's status, code and field; check its envelope."""
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert response.headers["x-request-id"]
    assert response.headers["x-should-retry"] in ("true", "false")
    return response.status_code, error["code"], error["param"]


async def events(response: httpx.Response) -> AsyncIterator[str]:
    """Yield the lines of an event stream, without the empty ones."""
    async for line in response.aiter_lines():
        if line:
            yield line


async def streamed(there: Proxied, **changes: object) -> list[object]:
    """Return the events of a streamed answer, JSON read, comments left out."""
    body = {**BODY, "stream": True, **changes}
    async with there.http.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line async for line in events(response)]
    assert all(line.startswith((":", "data: ")) for line in lines)
    data = [line.removeprefix("data: ") for line in lines if not line.startswith(":")]
    return [each if each == "[DONE]" else json.loads(each) for each in data]


def brief(answer: Answer) -> Iterator[Event]:
    """Answer in letters that no stop string of a test has, as long as the call allows."""
    ids = ids_of("\N{CYRILLIC CAPITAL LETTER BIG YUS}" * 4)
    most = answer.request.max_tokens
    return answer.events(ids) if most >= len(ids) else answer.events(ids[:most], Finish.LENGTH)
