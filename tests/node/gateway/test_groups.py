"""Tiers from the chain, classes from what was measured: which group gets which job, and which never gets one."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from tests.node.gateway.stand import ChainAwayError, Stand, fault

from plait.protocol import codec
from plait.protocol.ids import Address, Group, Hash, group_id
from plait.protocol.messages import Quote, Request, Terms
from plait.protocol.pb import gateway_pb2
from plait.protocol.typed import Signed
from plait_node.chain_tiers import REFRESH_S, ChainTiers

JOBS = 300


@pytest_asyncio.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    made = Stand(tmp_path)
    made.set_slot(deposit=10**12)
    yield made
    await made.broker.close()


@dataclass(slots=True, kw_only=True)
class Squad:
    """A group with one worker: what it offers, and which jobs (input, output tokens) it got."""

    name: str
    hardware: str
    tier: int
    max_input: int
    max_output: int
    room: int
    got: list[tuple[int, int]] = field(default_factory=list)

    def group(self, stand: Stand) -> Group:
        return group_id(stand.swarm.manifest.model_id, self.hardware, self.tier, 0)

    async def offer(self, stand: Stand) -> None:
        stand.prekey = stand.swarm.prekey(int(stand.now) - len(self.name))  # each worker has its own
        await stand.offer(
            hardware=self.hardware,
            tier=self.tier,
            max_input=self.max_input,
            max_output=self.max_output,
            room=self.room,
        )

    async def work(self, stand: Stand) -> None:
        async for delivery in stand.broker.jobs(self.group(stand)):
            request = codec.signed_from_pb(delivery.call.request, Request).message
            self.got.append((request.input_tokens, request.max_tokens))
            await asyncio.sleep(0.002)
            await delivery.ack()


def squads() -> list[Squad]:
    return [
        Squad(name="short, tier 2", hardware="cpu-short-fast", tier=2, max_input=64, max_output=32, room=2),
        Squad(name="medium, tier 1", hardware="cpu-medium-steady", tier=1, max_input=256, max_output=128, room=2),
        Squad(name="long, tier 0", hardware="cpu-long-slow", tier=0, max_input=1_024, max_output=512, room=4),
    ]


async def quote(stand: Stand, client: httpx.AsyncClient, input_tokens: int, output_tokens: int) -> Signed[Quote]:
    call = gateway_pb2.QuoteCall(model=stand.swarm.manifest.model_id)
    path = f"/v1/quotes?input={input_tokens}&output={output_tokens}"
    response = await client.post(path, content=call.SerializeToString())
    assert response.status_code == 200, fault(response)
    return codec.signed_from_pb(gateway_pb2.QuoteReply.FromString(response.content).quote, Quote)


async def send(stand: Stand, client: httpx.AsyncClient, size: tuple[int, int]) -> Group:
    """Ask and pay for one job as a payer does, waiting for a place where the queue is full; return its group."""
    quoted = await quote(stand, client, *size)
    asked = stand.ask(quoted, prompt=tuple(range(size[0])), max_tokens=size[1])
    while (response := await stand.submit(client, asked)).status_code != 200:
        assert fault(response).code == "busy", fault(response)
        await asyncio.sleep(0.005)
    return quoted.message.group


async def answered(groups: list[Squad], count: int) -> None:
    async with asyncio.timeout(60):
        while sum(len(each.got) for each in groups) < count:  # noqa: ASYNC110 - workers tell nobody
            await asyncio.sleep(0.01)


async def test_three_groups_share_300_mixed_jobs_and_none_gets_one_that_it_cannot_hold(stand: Stand) -> None:
    mix, groups = random.Random(7), squads()
    sizes = [(mix.choice((8, 40, 64, 100, 256, 600, 1_024)), mix.choice((4, 32, 100, 128, 512))) for _ in range(JOBS)]
    stand.chain.tier_of[stand.me] = 2
    async with stand.running() as client:
        for each in groups:
            await each.offer(stand)
        working = [asyncio.create_task(each.work(stand)) for each in groups]
        for size in sizes[: JOBS // 2]:
            await send(stand, client, size)
        await answered(groups, JOBS // 2)
        before = len(groups[0].got)
        stand.chain.tier_of[stand.me] = 1  # the owner's reputation falls
        stand.now += REFRESH_S + 1
        for each in groups:
            await each.offer(stand)
        chosen = Counter([await send(stand, client, size) for size in sizes[JOBS // 2 :]])
        await answered(groups, JOBS)
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)

    for each in groups:
        longest = max((sum(size) for size in each.got), default=0)
        room = each.max_input + each.max_output
        print(f"\n{each.name:<15} {len(each.got):>4} jobs, longest {longest} of {room} tokens")  # noqa: T201 - who got what
    assert sorted(size for each in groups for size in each.got) == sorted(sizes)
    for each in groups:
        assert each.got
        assert all(tokens <= each.max_input and more <= each.max_output for tokens, more in each.got)
    assert len(groups[0].got) == before  # not one after its owner lost the tier
    assert chosen[groups[0].group(stand)] == 0
    assert set(chosen) == {each.group(stand) for each in groups[1:]}


async def test_offer_above_the_tier_on_chain_is_refused_until_the_chain_agrees(stand: Stand) -> None:
    high = Squad(name="high", hardware="cpu", tier=3, max_input=64, max_output=32, room=1)
    async with stand.running() as client:
        await high.offer(stand)
        call = gateway_pb2.QuoteCall(model=stand.swarm.manifest.model_id).SerializeToString()
        refused = await client.post("/v1/quotes", content=call)
        assert (refused.status_code, fault(refused).code) == (503, "no_route")
        stand.chain.tier_of[stand.me] = 3
        stand.now += REFRESH_S
        await high.offer(stand)
        assert (await quote(stand, client, 1, 1)).message.group == high.group(stand)


async def test_quote_is_of_the_closest_fit_and_of_the_roomiest_for_what_fits_nowhere(stand: Stand) -> None:
    stand.chain.tier_of[stand.me] = 2
    short, medium, long = squads()
    async with stand.running() as client:
        for each in (long, short, medium):
            await each.offer(stand)
        for size, squad in (((64, 32), short), ((65, 1), medium), ((1, 129), long), ((1_024, 512), long)):
            assert (await quote(stand, client, *size)).message.group == squad.group(stand)
        for text in ("input=-1", "output=x", "input=99999999999"):
            response = await client.post(f"/v1/quotes?{text}", content=b"")
            assert (response.status_code, fault(response).code) == (400, "bad_request")


async def test_job_is_refused_when_its_group_lost_the_room_after_the_quote(stand: Stand) -> None:
    async with stand.running() as client:
        await stand.offer()
        asked = stand.ask(await quote(stand, client, 20, 40))
        stand.now += 2.0
        await stand.offer(max_output=39)
        response = await stand.submit(client, asked)
        assert (response.status_code, fault(response).code) == (503, "no_route")
        assert await stand.broker.backlog(asked.quote.message.group) == 0


@pytest.mark.parametrize(("tier", "status"), [(1, 200), (0, 503)])
async def test_quote_of_a_group_that_its_worker_left_holds_unless_its_tier_fell(
    stand: Stand, tier: int, status: int
) -> None:
    stand.chain.tier_of[stand.me] = 1
    async with stand.running() as client:
        await stand.offer(hardware="cpu-short-slow", tier=1)
        asked = stand.ask(await quote(stand, client, 20, 40))
        left = asked.quote.message.group
        await stand.broker.withdraw_offer(stand.swarm.worker.owner, stand.swarm.manifest.model_id, group=left)
        await stand.offer(hardware="cpu-short-fast", tier=tier)
        stand.now += 2.0
        response = await stand.submit(client, asked)
    assert response.status_code == status, fault(response)


async def test_job_and_offer_are_bounded_by_the_models_manifest(stand: Stand) -> None:
    context = stand.swarm.manifest.context
    async with stand.running() as client:
        await stand.offer(max_input=10 * context, max_output=10 * context)
        quoted = await quote(stand, client, 20, 40)
        assert (quoted.message.max_input, quoted.message.max_output) == (context - 1, context - 1)
        response = await stand.submit(client, stand.ask(quoted, max_tokens=context - 19))
        assert (response.status_code, fault(response).code) == (400, "bad_request")
        assert "context of tiny" in fault(response).text

        stand.now += 2.0
        foreign = codec.to_pb(Terms(profile=Hash(b"\1" * 32), input_price=1, output_price=1))
        await stand.offer(terms=[foreign])
        call = gateway_pb2.QuoteCall(model=stand.swarm.manifest.model_id).SerializeToString()
        assert fault(await client.post("/v1/quotes", content=call)).code == "no_route"


class Source:
    def __init__(self) -> None:
        self.tier, self.down, self.asked = 5, False, 0

    async def tiers(self, owners: set[Address]) -> dict[Address, int]:
        self.asked += 1
        if self.down:
            raise ChainAwayError("the RPC is down")
        return dict.fromkeys(owners, self.tier)


async def test_tier_is_read_again_after_a_while_and_counts_on_while_the_chain_is_away() -> None:
    source, now = Source(), [0.0]
    tiers, owner = ChainTiers(source, clock=lambda: now[0]), Address(bytes(20))
    assert [await tiers.tier(owner) for _ in range(3)] == [5, 5, 5]
    assert source.asked == 1
    source.tier = 2
    now[0] = REFRESH_S
    assert await tiers.tier(owner) == 2
    source.down = True
    now[0] += 599.0
    assert await tiers.tier(owner) == 2
    now[0] += 1.0
    with pytest.raises(ChainAwayError):
        await tiers.tier(owner)
    with pytest.raises(ChainAwayError):
        await tiers.tier(Address(b"\1" * 20))
