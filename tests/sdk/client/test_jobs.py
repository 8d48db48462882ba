from __future__ import annotations

from typing import Literal

import pytest
from tests.sdk.client.edge import PARAMS
from tests.sdk.client.fakes import World, ids_of
from tests.sdk.client.test_ask import CHAT, TOKENS, price
from tests.sdk.swarm import NOW

from plait import Plait
from plait.chain import RequestParameters
from plait.client.edge import Asked, Claim, Ending, Fulfilment
from plait.errors import (
    ClientError,
    InvalidArgumentError,
    RequestEndedError,
    UnknownRequestError,
    VerificationError,
)
from plait.protocol.commitments import ids_bytes
from plait.protocol.ids import Hash

DIGEST = Hash(b"\x0d" * 32)


async def test_jobs_signed_then_claimed_then_final(world: World) -> None:
    async with world.client() as client:
        first = await client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=200)
        second = await client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=200)
        assert (await client.jobs.get(first.id)).status == "signed"

        root = world.gateway.book.channels()[0].voucher.message.receipts_root
        world.edge.found_claims = [Claim(jobs=2, root=root, transaction=Hash(b"\5" * 32), block=50, gas_used=49_000)]
        job = await client.jobs.get(second.id)
        assert (job.status, job.transaction, job.gas_used) == ("claimed", "0x" + "05" * 32, 49_000)
        assert (job.paid, job.ended) == (price(TOKENS), "receipt")
        assert job.to_dict()["paid"] == str(price(TOKENS))

        world.edge.final = 50
        assert (await client.jobs.get(second.id)).status == "claimed"
        world.edge.head = NOW + 600 + 1_800 + 1
        assert (await client.jobs.get(second.id)).status == "final"
        world.edge.final = 49
        assert (await client.jobs.get(second.id)).status == "claimed"


async def test_jobs_claimed_root_without_the_leaf_refuses(world: World) -> None:
    async with world.client() as client:
        answer = await client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=200)
        world.edge.found_claims = [
            Claim(jobs=1, root=Hash(b"\6" * 32), transaction=Hash(b"\5" * 32), block=5, gas_used=1)
        ]
        with pytest.raises(VerificationError, match="claim"):
            await client.jobs.get(answer.id)


async def test_jobs_unknown_request_says_so(world: World) -> None:
    async with world.client() as client:
        with pytest.raises(UnknownRequestError, match="use the home"):
            await client.jobs.get("0x" + "00" * 32)


def test_nodes_get_shows_the_chain(world: World) -> None:
    with Plait(**world.arguments()) as client:
        node = client.nodes.get("0x" + world.swarm.gateway.owner.hex())
        assert (node.roles, node.reputation, node.stake, node.active) == (("gateway",), 77, 5, True)
        with pytest.raises(UnknownRequestError):
            client.nodes.get("0x" + "01" * 20)


async def test_requests_submit_and_wait_read_the_answer_from_the_chain(world: World) -> None:
    async with world.client() as client:
        number = await client.requests.submit(model="tiny", messages=CHAT, fee=100, max_tokens=8)
        order, prompt = world.edge.orders[0]
        assert (number, order.fee, order.max_tokens, order.deadline) == (7, 100, 8, NOW + 600)
        assert (order.exclusive_until, order.temperature, order.callback_gas) == (NOW + 600, 0, 0)
        assert order.gateway == world.swarm.gateway.owner
        assert len(prompt) > 3
        with pytest.raises(ClientError, match="no answer after"):
            await client.requests.wait(number, timeout=0.01)
        world.edge.endings[number] = Fulfilment(
            model=world.swarm.manifest.model_id,
            receipt=Hash(b"\7" * 32),
            output=ids_bytes(ids_of("Paris.")),
            transaction=Hash(b"\x08" * 32),
            gas_used=150_000,
        )
        answer = await client.requests.wait(number, timeout=60)
    assert (answer.content, answer.transaction, answer.gas_used) == ("Paris.", "0x" + "08" * 32, 150_000)


async def test_requests_submit_with_shorter_periods_stays_within_what_the_contract_takes(world: World) -> None:
    async with world.client() as client:
        await client.requests.submit(model="tiny", messages=CHAT, fee=100, exclusive_s=200)
        # The least counts from the block that takes the request, which is still to come.
        await client.requests.submit(model="tiny", messages=CHAT, fee=100, deadline_s=60)
        await client.requests.submit(model="tiny", messages=CHAT, fee=100, deadline_s=3_600, exclusive_s=60)
    times = [(order.exclusive_until - NOW, order.deadline - NOW) for order, _ in world.edge.orders]
    assert times == [(200, 600), (90, 90), (90, 3_600)]


@pytest.mark.parametrize("how", ["cancelled", "refunded"])
async def test_requests_wait_for_one_that_ended_without_an_answer_says_how(
    world: World, how: Literal["cancelled", "refunded"]
) -> None:
    async with world.client() as client:
        world.edge.endings[7] = Ending(how=how, fee=100, transaction=Hash(b"\x08" * 32))
        with pytest.raises(RequestEndedError, match=f"request 7 was {how} in transaction 0x08") as caught:
            await client.requests.wait(7, timeout=60)
    error = caught.value
    assert (error.request, error.how, error.fee, error.transaction) == (7, how, 100, "0x" + "08" * 32)


@pytest.mark.parametrize("how", ["cancel", "refund"])
async def test_requests_taken_back_by_the_parameters_that_the_chain_has(world: World, how: str) -> None:
    asked = RequestParameters.from_event(dict.fromkeys(PARAMS, 1) | {"prompt": b"\1" * 32})
    world.edge.requests[7] = Asked(request=DIGEST, parameters=asked)
    async with world.client() as client:
        assert await getattr(client.requests, how)(7) == "0x" + "01" * 32
        with pytest.raises(UnknownRequestError, match="nobody made an on-chain request 8"):
            await getattr(client.requests, how)(8)
    assert world.edge.taken_back == [(how, 7, asked)]


def test_requests_in_the_synchronous_client_are_the_same(world: World) -> None:
    world.edge.requests[7] = Asked(request=DIGEST, parameters=RequestParameters.from_event(dict.fromkeys(PARAMS, 1)))
    with Plait(**world.arguments()) as client:
        client.requests.submit(model="tiny", messages=CHAT, fee=100, exclusive_s=300)
        assert (client.requests.cancel(7), client.requests.refund(7)) == ("0x" + "01" * 32, "0x" + "02" * 32)
        world.edge.endings[7] = Ending(how="cancelled", fee=100, transaction=Hash(b"\x08" * 32))
        with pytest.raises(RequestEndedError):
            client.requests.wait(7)
    assert world.edge.orders[0][0].exclusive_until == NOW + 300


@pytest.mark.parametrize(
    "wrong",
    [
        {"fee": -1},
        {"fee": 0},
        {"fee": 1, "deadline_s": 59},
        {"fee": 1, "deadline_s": 3_601},
        {"fee": 1, "exclusive_s": 59},
        {"fee": 1, "deadline_s": 100, "exclusive_s": 101},
    ],
)
async def test_requests_submit_with_bad_terms_refuses(world: World, wrong: dict[str, int]) -> None:
    async with world.client() as client:
        with pytest.raises(InvalidArgumentError):
            await client.requests.submit(model="tiny", messages=CHAT, **wrong)
    assert world.edge.orders == []
