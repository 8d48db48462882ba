"""What the proxy may spend: it refuses before anything is signed, and books what a request did cost."""

from __future__ import annotations

import asyncio

import httpx
from tests.sdk.client.conftest import ANSWER
from tests.sdk.client.fakes import World, fault_response
from tests.sdk.client.test_ask import TOKENS, price
from tests.sdk.proxy.stand import BODY, Paced, proxied, told

from plait.protocol.errors import Fault
from plait.proxy import Limits


async def test_limit_per_request_refuses_and_names_itself(world: World) -> None:
    limits = Limits(per_request=price(200) - 1, total=10**6)
    async with world.client() as client, proxied(client, limits=limits) as there:
        response = await there.http.post("/v1/chat/completions", json=BODY)
        assert told(response) == (402, "max_per_request", None)
        assert f"can cost {price(200)} base units" in response.json()["error"]["message"]
        assert response.headers["x-should-retry"] == "false"
        assert (await there.http.post("/v1/chat/completions", json={**BODY, "max_tokens": 199})).status_code == 200
    assert world.gateway.payments[-1] == (price(TOKENS), TOKENS)


async def test_limit_in_total_refuses_once_it_is_spent(world: World) -> None:
    limits = Limits(per_request=10**6, total=price(200) + price(TOKENS))
    async with world.client() as client, proxied(client, limits=limits) as there:
        for _ in range(2):
            assert (await there.http.post("/v1/chat/completions", json=BODY)).status_code == 200
        payments = len(world.gateway.payments)
        response = await there.http.post("/v1/chat/completions", json=BODY)
        assert told(response) == (402, "max_total", None)
        assert len(world.gateway.payments) == payments
        said = (await there.http.get("/spending")).json()
        assert said == {
            "unit": "base units of the token",
            "max_per_request": str(10**6),
            "max_total": str(limits.total),
            "spent": str(2 * price(TOKENS)),
            "held": "0",
            "left": str(limits.total - 2 * price(TOKENS)),
            "requests": 2,
        }


async def test_limit_in_total_held_by_running_requests_may_be_tried_again(world: World) -> None:
    paced = Paced(world, after=20)
    limits = Limits(per_request=10**6, total=price(200) + price(TOKENS))
    async with world.client(transport=paced.transport()) as client, proxied(client, limits=limits) as there:
        first = asyncio.create_task(there.http.post("/v1/chat/completions", json=BODY))
        async with asyncio.timeout(30):
            await paced.halted.wait()
        response = await there.http.post("/v1/chat/completions", json=BODY)
        assert told(response) == (429, "max_total", None)
        assert response.headers["retry-after"] == "1"
        assert response.headers["x-should-retry"] == "true"
        paced.go.set()
        assert (await first).status_code == 200
        assert (await there.http.post("/v1/chat/completions", json=BODY)).status_code == 200


async def test_request_that_a_gateway_refused_costs_nothing(world: World) -> None:
    world.gateway.refuse["/v1/jobs"] = [Fault(code="busy", text="all lanes are full", retry=True)] * 3
    async with world.client() as client, proxied(client) as there:
        for _ in range(3):
            response = await there.http.post("/v1/chat/completions", json=BODY)
            assert told(response) == (503, "busy", None)
            assert response.headers["retry-after"] == "1"
        assert (there.spending.spent, there.spending.held) == (0, 0)


async def test_gateway_that_says_when_to_come_back_is_passed_on(world: World) -> None:
    fault = fault_response(Fault(code="no_route", text="no worker now", retry=True)).content
    world.gateway.refuse["/v1/quotes"] = [httpx.Response(503, headers={"retry-after": "40"}, content=fault)]
    async with world.client() as client, proxied(client) as there:
        response = await there.http.post("/v1/chat/completions", json=BODY)
    assert told(response) == (503, "no_route", None)
    assert response.headers["retry-after"] == "40"


async def test_requests_beyond_the_most_at_once_are_refused(world: World) -> None:
    paced = Paced(world, after=20)
    async with world.client(transport=paced.transport()) as client, proxied(client, most_running=1) as there:
        first = asyncio.create_task(there.http.post("/v1/chat/completions", json=BODY))
        async with asyncio.timeout(30):
            await paced.halted.wait()
        response = await there.http.post("/v1/chat/completions", json=BODY)
        assert told(response) == (429, "too_many_requests", None)
        paced.go.set()
        assert (await first).status_code == 200


async def test_requests_at_once_share_the_channel_and_the_books(world: World) -> None:
    async with world.client() as client, proxied(client) as there:
        answers = await asyncio.gather(*(there.http.post("/v1/chat/completions", json=BODY) for _ in range(8)))
        assert {answer.json()["choices"][0]["message"]["content"] for answer in answers} == {ANSWER}
        assert there.spending.spent == 8 * price(TOKENS)
        assert there.spending.held == 0
    assert world.edge.transactions == ["open"]


async def test_wallet_too_small_is_payment_required(world: World) -> None:
    world.edge.wallet = 100
    async with world.client() as client, proxied(client) as there:
        response = await there.http.post("/v1/chat/completions", json=BODY)
    assert told(response) == (402, "deposit_too_small", None)
    assert response.json()["error"]["type"] == "insufficient_quota"
