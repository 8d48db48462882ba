"""A gateway that says when to come back is asked again then, and never later than the caller's own time allows."""

from __future__ import annotations

import httpx
import pytest
from tests.sdk.client.conftest import ANSWER
from tests.sdk.client.fakes import World
from tests.sdk.client.test_ask import CHAT, TOKENS, price

from plait.client.errors import NoGatewayError
from plait.errors import BusyError, NoRouteError, TooManyCallsError
from plait.protocol.codec import fault_to_pb
from plait.protocol.errors import Fault, RefusedError


def refusal(status: int, code: str, after: str | None) -> httpx.Response:
    fault = Fault(code=code, text=f"{code}: come back", retry=True)
    headers = {} if after is None else {"Retry-After": after}
    return httpx.Response(status, content=fault_to_pb(fault).SerializeToString(), headers=headers)


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return what was waited for, without waiting."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("plait.client.patience.sleep", sleep)
    return waits


async def asked(world: World, **settings: object) -> str:
    async with world.client(**settings) as client:
        answer = await client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=200)
    return answer.choices[0].message.content


@pytest.mark.parametrize(("status", "code"), [(503, "busy"), (429, "too_many_calls")])
async def test_full_queue_is_waited_for_and_the_job_paid_once(
    world: World, slept: list[float], status: int, code: str
) -> None:
    world.gateway.refuse["/v1/jobs"] = [refusal(status, code, "7"), refusal(status, code, "2")]

    assert await asked(world) == ANSWER

    assert slept == [7.0, 2.0]
    (state,) = world.gateway.book.channels()
    assert state.voucher.message.cumulative == price(TOKENS)
    assert state.voucher.message.jobs == 1


async def test_call_that_waits_for_a_place_is_made_again_and_nothing_else(world: World, slept: list[float]) -> None:
    world.gateway.refuse["/v1/jobs"] = [refusal(503, "busy", "1") for _ in range(5)]

    assert await asked(world) == ANSWER

    assert slept == [1.0] * 5
    assert world.gateway.calls.count("POST /v1/jobs") == 6
    assert world.gateway.calls.count("POST /v1/channels/state") == 1


async def test_wait_beyond_half_of_the_time_left_is_refused_at_once(world: World, slept: list[float]) -> None:
    world.gateway.refuse["/v1/jobs"] = [refusal(503, "busy", "51")]
    with pytest.raises(BusyError, match="come back") as caught:
        await asked(world, timeout=100)
    assert caught.value.retry_after_s == 51.0
    assert slept == []


@pytest.mark.parametrize("after", [None, "", "0", "soon", "-3", "1e3", "9" * 9])
async def test_refusal_that_names_no_time_is_raised_at_once(
    world: World, slept: list[float], after: str | None
) -> None:
    world.gateway.refuse["/v1/jobs"] = [refusal(503, "busy", after)]
    with pytest.raises(BusyError):
        await asked(world)
    assert slept == []


async def test_gateway_that_cannot_say_its_models_now_is_asked_again(world: World, slept: list[float]) -> None:
    world.gateway.refuse["/v1/models"] = [refusal(503, "broker_away", "3"), refusal(429, "too_many_calls", "1")]
    assert await asked(world) == ANSWER
    assert slept == [3.0, 1.0]


async def test_model_without_a_worker_is_waited_for_a_while(world: World, slept: list[float]) -> None:
    world.gateway.refuse["/v1/quotes"] = [refusal(503, "no_route", "5"), refusal(503, "broker_away", "3")]
    assert await asked(world) == ANSWER
    assert slept == [5.0, 3.0]


@pytest.mark.parametrize(
    ("code", "raised"),
    [("no_route", NoRouteError), ("too_many_calls", TooManyCallsError), ("broker_away", NoGatewayError)],
)
async def test_model_without_a_worker_for_long_is_said(
    world: World, slept: list[float], code: str, raised: type[RefusedError]
) -> None:
    world.gateway.refuse["/v1/quotes"] = [refusal(503, code, "31")]
    with pytest.raises(raised, match="come back"):
        await asked(world)
    assert slept == []


async def test_gateway_whose_broker_is_away_gets_the_same_payment_when_it_said(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plait.client.run._BACKOFF", (0.0, 0.0))
    world.gateway.refuse["/v1/jobs"] = [refusal(503, "broker_away", "1"), refusal(503, "broker_away", None)]
    assert await asked(world) == ANSWER
    (state,) = world.gateway.book.channels()
    assert state.voucher.message.cumulative == price(TOKENS)
