"""Prompts that stay off the chain: committed to, sealed, brought to the gateway, and again as long as that may help."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import httpx
import pytest
from tests.sdk.client.edge import PARAMS
from tests.sdk.client.fakes import World
from tests.sdk.client.test_ask import CHAT, PROMPT
from tests.sdk.swarm import NOW, tokenizer

from plait import Plait
from plait.chain import RequestParameters
from plait.client.delivery import BEGIN_MARGIN_S
from plait.client.edge import Asked, Ending, Fulfilment
from plait.errors import (
    InvalidArgumentError,
    NoGatewayError,
    PromptNotDeliveredError,
    RequestEndedError,
    UnknownRequestError,
)
from plait.protocol.commitments import ids_bytes, prompt_commitment
from plait.protocol.errors import BadRequestError, BusyError, Fault, UnknownJobError
from plait.protocol.ids import Address, Hash, keccak
from plait.protocol.sealing import ContentKey, open_prompt

PATH = "/v1/requests/7/prompt"
DIGEST, KEY = keccak(b"request 7"), ContentKey(b"\x07" * 32)
IDS = tokenizer().render(CHAT)
UNKNOWN = Fault(code=UnknownJobError.code, text="no open request 7")


def opened(world: World, at: int = -1) -> tuple[list[int], ContentKey]:
    """Open what was brought as the worker does."""
    number, call = world.gateway.brought[at]
    assert (number, call.request) == (7, DIGEST)
    (capsule,) = call.capsules
    worker = world.swarm.worker.owner
    assert (capsule.node, capsule.prekey) == (worker, world.gateway.prekey.struct_hash())
    key = world.swarm.prekey_secret.open(capsule.sealed, request=DIGEST, node=worker)
    ids, stop = open_prompt(key, DIGEST, call.prompt)
    assert stop == []
    return ids, key


def asked_on_chain(world: World, *, ids: list[int] = IDS, **changed: int) -> None:
    """Put request 7, by commitment under `KEY`, on the chain."""
    values: dict[str, object] = dict.fromkeys(PARAMS, 1) | {
        "gateway": world.swarm.gateway.owner,
        "model": world.swarm.manifest.model_id,
        "prompt": prompt_commitment(KEY, ids),
        "exclusiveUntil": NOW + 300,
    }
    parameters = RequestParameters.from_event(values | changed)
    world.edge.requests[7] = Asked(request=DIGEST, parameters=parameters)


async def test_submit_without_publishing_commits_on_chain_and_brings_the_sealed_prompt(world: World) -> None:
    async with world.client() as client:
        number = await client.requests.submit(model="tiny", messages=CHAT, fee=100, publish_prompt=False)

    ids, key = opened(world)
    ((order, commitment),) = world.edge.orders
    assert (number, ids) == (7, IDS)
    assert commitment == prompt_commitment(key, IDS)
    assert commitment != prompt_commitment(ContentKey.public(), IDS)
    assert world.edge.requests[7].parameters.input_tokens == PROMPT
    assert (order.gateway, order.exclusive_until) == (world.swarm.gateway.owner, NOW + 600)
    assert ids_bytes(IDS[:8]) not in world.gateway.brought[0][1].SerializeToString()


async def test_submit_published_brings_nothing(world: World) -> None:
    async with world.client() as client:
        await client.requests.submit(model="tiny", messages=CHAT, fee=100)
    assert world.gateway.brought == []
    assert "POST /v1/quotes" not in world.gateway.calls


async def test_submit_without_anybody_to_seal_for_sends_no_transaction(world: World) -> None:
    world.gateway.refuse["/v1/quotes"] = [Fault(code="no_route", text="no worker serves tiny now", retry=True)]
    async with world.client() as client:
        with pytest.raises(NoGatewayError, match="no worker serves tiny now"):
            await client.requests.submit(model="tiny", messages=CHAT, fee=100, publish_prompt=False)
    assert (world.edge.orders, world.gateway.brought) == ([], [])


@pytest.mark.parametrize(
    "first",
    [UNKNOWN, Fault(code="broker_away", text="away"), Fault(code=BusyError.code, text="busy", retry=True), 502],
)
async def test_submit_that_a_gateway_cannot_take_yet_brings_the_prompt_again(world: World, first: Fault | int) -> None:
    world.gateway.refuse[PATH] = [first, httpx.ConnectError]
    async with world.client() as client:
        await client.requests.submit(model="tiny", messages=CHAT, fee=100, publish_prompt=False)
    assert world.gateway.calls.count(f"POST {PATH}") == 3
    assert opened(world)[0] == IDS


async def test_submit_whose_prompt_is_refused_names_the_request_and_how_to_end_it(world: World) -> None:
    world.gateway.refuse[PATH] = [Fault(code=BadRequestError.code, text="this gateway passes no prompts on")]
    async with world.client() as client:
        with pytest.raises(PromptNotDeliveredError, match=r"requests\.cancel\(7\)") as caught:
            await client.requests.submit(model="tiny", messages=CHAT, fee=100, publish_prompt=False)
    assert (caught.value.request, caught.value.moved) == (7, True)
    assert "passes no prompts on" in caught.value.text


def passing(*moments: float) -> Iterator[float]:
    return itertools.chain(moments, itertools.repeat(moments[-1]))


async def test_prompt_is_tried_no_longer_than_a_node_would_begin(world: World) -> None:
    asked_on_chain(world)
    until = NOW + 300 - BEGIN_MARGIN_S
    times = passing(NOW, NOW, until - 1, until - 1, until)
    world.gateway.refuse[PATH] = [UNKNOWN] * 10
    async with world.client(clock=lambda: next(times)) as client:
        with pytest.raises(PromptNotDeliveredError, match="no open request 7"):
            await client.requests.deliver_prompt(7, content_key=KEY, ids=IDS)
        assert world.gateway.calls.count(f"POST {PATH}") == 2
        with pytest.raises(PromptNotDeliveredError, match="exclusive period is over, or nearly"):
            await client.requests.deliver_prompt(7, content_key=KEY, ids=IDS)
    assert world.gateway.calls.count(f"POST {PATH}") == 2


async def test_prompt_of_a_request_that_ended_meanwhile_says_how(world: World) -> None:
    asked_on_chain(world)
    world.gateway.refuse[PATH] = [UNKNOWN, UNKNOWN]
    async with world.client() as client:
        world.edge.endings[7] = Ending(how="cancelled", fee=100, transaction=Hash(b"\x08" * 32))
        with pytest.raises(RequestEndedError, match="request 7 was cancelled"):
            await client.requests.deliver_prompt(7, content_key=KEY, ids=IDS)
        world.edge.endings[7] = Fulfilment(
            model=world.swarm.manifest.model_id,
            receipt=Hash(b"\7" * 32),
            output=b"",
            transaction=Hash(b"\x08" * 32),
            gas_used=1,
        )
        await client.requests.deliver_prompt(7, content_key=KEY, ids=IDS)  # nobody needs it any more
    assert world.gateway.brought == []


@pytest.mark.parametrize("how", [{"messages": CHAT}, {"ids": IDS}])
@pytest.mark.parametrize("key", [KEY, KEY.secret_bytes()])
async def test_prompt_for_a_request_that_a_contract_made(
    world: World, how: dict[str, list[object]], key: ContentKey | bytes
) -> None:
    asked_on_chain(world)
    async with world.client(key=None) as client:  # nothing is signed
        await client.requests.deliver_prompt(7, content_key=key, **how)
    ids, found = opened(world)
    assert (ids, found.secret_bytes()) == (IDS, KEY.secret_bytes())


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "give the prompt once"),
        ({"ids": IDS, "messages": CHAT}, "give the prompt once"),
        ({"messages": []}, "at least one"),
        ({"ids": IDS[:-1]}, "not what request 7 commits to"),
        ({"ids": IDS, "content_key": ContentKey.public()}, "not what request 7 commits to"),
    ],
)
async def test_prompt_that_cannot_fit_is_not_brought(world: World, arguments: dict[str, object], text: str) -> None:
    asked_on_chain(world)
    async with world.client() as client:
        with pytest.raises(InvalidArgumentError, match=text):
            await client.requests.deliver_prompt(7, **({"content_key": KEY} | arguments))
        with pytest.raises(UnknownRequestError):
            await client.requests.deliver_prompt(8, content_key=KEY, ids=IDS)
    assert world.gateway.brought == []


async def test_prompt_for_a_gateway_without_an_endpoint_says_so(world: World) -> None:
    asked_on_chain(world, gateway=Address(b"\x01" * 20))
    async with world.client() as client:
        with pytest.raises(NoGatewayError, match="names no HTTP endpoint"):
            await client.requests.deliver_prompt(7, content_key=KEY, ids=IDS)


async def test_prekey_of_somebody_else_gets_no_key(world: World) -> None:
    asked_on_chain(world)
    world.swarm.worker.service = world.swarm.stages[0].service
    async with world.client() as client:
        with pytest.raises(PromptNotDeliveredError, match="prekey"):
            await client.requests.deliver_prompt(7, content_key=KEY, ids=IDS)
    assert world.gateway.brought == []


async def test_prepare_gives_what_a_contract_asks_with_and_sends_nothing(world: World) -> None:
    async with world.client(key=None) as client:
        first, second = [await client.requests.prepare(model="tiny", messages=CHAT) for _ in range(2)]
    manifest = world.swarm.manifest
    assert (first.gateway, first.model) == (world.swarm.gateway.owner, manifest.model_id)
    assert first.profile == manifest.profiles[0].profile_id
    assert (list(first.ids), first.input_tokens, first.public_ids) == (IDS, PROMPT, ids_bytes(IDS))
    assert first.commitment == prompt_commitment(first.content_key, IDS)
    assert first.commitment != second.commitment
    assert "ids" not in repr(first)
    assert "content_key" not in repr(first)
    assert world.edge.orders == []


def test_prompts_in_the_synchronous_client_are_the_same(world: World) -> None:
    with Plait(**world.arguments()) as client:
        prompt = client.requests.prepare(model="tiny", messages=CHAT)
        assert client.requests.submit(model="tiny", messages=CHAT, fee=100, publish_prompt=False) == 7
        asked_on_chain(world)
        client.requests.deliver_prompt(7, content_key=KEY, ids=prompt.ids)
    assert len(world.gateway.brought) == 2
    assert opened(world)[0] == IDS
