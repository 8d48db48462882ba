"""An operator's gateways as one client sees them: it turns to the one that has the channel, and to no stranger."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
from tests.sdk.client.conftest import ANSWER
from tests.sdk.client.fakes import World, fault_response
from tests.sdk.client.test_ask import CHAT
from tests.sdk.swarm import DOMAIN

from plait.client.catalogue import Catalogue
from plait.client.errors import GatewayDownError
from plait.client.gateway import GatewayClient
from plait.protocol.errors import Fault, StaleVoucherError
from plait.protocol.ids import Address
from plait.protocol.messages import Resume
from plait.protocol.pb import gateway_pb2
from plait.protocol.typed import Key, random_hash

A, B, C = "http://a.test", "http://b.test:7000/face", "http://c.test"
Handler = Callable[[httpx.Request], httpx.Response]


class Line:
    """What each URL answers, in order; the last answer again and again."""

    def __init__(self, **answers: list[Handler]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def client(self, *faces: str) -> GatewayClient:
        http = httpx.AsyncClient(transport=httpx.MockTransport(self.handle))
        return GatewayClient(Address(bytes(20)), faces[0], http, faces[1:])

    def handle(self, request: httpx.Request) -> httpx.Response:
        name = request.url.host.split(".")[0]
        self.asked.append(name)
        plan = self.answers[name]
        return (plan.pop(0) if len(plan) > 1 else plan[0])(request)


def gone(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused", request=request)


def fine(_: httpx.Request) -> httpx.Response:
    return httpx.Response(200, content=gateway_pb2.ModelListing().SerializeToString())


def elsewhere(url: str) -> Handler:
    text = f"this channel is served by {url} now; send the same call there"
    return lambda _: fault_response(Fault(code="other_gateway", text=text, retry=True))


def stale(_: httpx.Request) -> httpx.Response:
    return fault_response(Fault(code="stale_voucher", text="not the next one"))


async def test_call_goes_to_the_gateway_that_a_refusal_names_and_stays_there() -> None:
    line = Line(a=[elsewhere(C)], b=[fine], c=[fine])
    client = line.client(A, B, C)
    await client.models()
    await client.models()
    assert line.asked == ["a", "c", "c"]
    assert client.url == C


async def test_call_never_goes_to_a_url_that_the_chain_does_not_list() -> None:
    line = Line(a=[elsewhere("http://evil.test")], b=[fine])
    client = line.client(A, B)
    await client.models()
    assert line.asked == ["a", "b"]


async def test_call_turns_from_a_gateway_that_is_gone_and_back_again() -> None:
    line = Line(a=[gone, fine], b=[elsewhere(A)])
    client = line.client(A, B)
    with pytest.raises(GatewayDownError, match="is served by"):
        await client.models()
    await client.models()
    assert line.asked == ["a", "b", "a"]


async def test_call_that_every_gateway_fails_is_made_once_at_each() -> None:
    line = Line(a=[gone], b=[gone], c=[gone])
    with pytest.raises(GatewayDownError, match=r"c\.test does not answer"):
        await line.client(A, B, C).models()
    assert line.asked == ["a", "b", "c"]


async def test_refusal_on_its_merits_is_not_carried_elsewhere() -> None:
    line = Line(a=[stale], b=[fine])
    with pytest.raises(StaleVoucherError):
        await line.client(A, B).models()
    assert line.asked == ["a"]


async def test_calls_that_fail_together_turn_once() -> None:
    line = Line(a=[gone], b=[fine], c=[fine])
    client = line.client(A, B, C)
    await asyncio.gather(*(client.models() for _ in range(8)))
    assert client.url == B
    assert "c" not in line.asked


async def test_stream_that_breaks_is_resumed_at_the_next_gateway() -> None:
    class Broken(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b": plait\n\n"
            raise httpx.ReadError("the line broke")

    line = Line(
        a=[lambda _: httpx.Response(200, stream=Broken())], b=[lambda _: httpx.Response(200, content=b": plait\n\n")]
    )
    client = line.client(A, B)
    resume = Key.generate().signed(DOMAIN, Resume(request=random_hash(), after=0, expires=1))
    with pytest.raises(GatewayDownError):
        _ = [each async for each in client.events(resume)]
    assert [each async for each in client.events(resume)] == []
    assert line.asked == ["a", "b"]


async def test_stream_is_opened_where_a_refusal_says() -> None:
    line = Line(a=[gone], b=[elsewhere(C)], c=[lambda _: httpx.Response(200, content=b": plait\n\n")])
    client = line.client(A, B, C)
    resume = Key.generate().signed(DOMAIN, Resume(request=random_hash(), after=0, expires=1))
    assert [each async for each in client.events(resume)] == []
    assert line.asked == ["a", "b", "c"]


async def test_catalogue_keeps_one_client_for_an_operator_and_all_its_urls(world: World, tmp_path: Path) -> None:
    world.edge.endpoint = f"{A} dht://a.test:6881 {B} {A}/ {C}"
    catalogue = Catalogue(world.edge, httpx.AsyncClient(), tmp_path, None)
    (client,) = await catalogue.gateways()
    assert sorted(client._faces) == [A, B, C]
    assert await catalogue.gateway(world.swarm.gateway.owner) is client
    world.edge.endpoint = B
    (other,) = await catalogue.gateways()
    assert (other.url, other._faces) == (B, (B,))


async def test_answer_is_whole_when_each_call_may_meet_the_wrong_gateway_first(world: World) -> None:
    world.edge.endpoint = "http://gateway.test http://other.test"

    async def handle(request: httpx.Request) -> httpx.Response:
        if request.url.host == "other.test":
            return elsewhere("http://gateway.test")(request)
        return await world.gateway.handle(request)

    for _ in range(4):
        async with world.client(transport=httpx.MockTransport(handle)) as client:
            answer = await client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=200)
            assert answer.choices[0].message.content == ANSWER
            assert answer.acknowledged
