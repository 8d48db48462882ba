"""The client against the gateway that nodes run; the worker behind it is played, its messages are real."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.node.gateway.stand import Asked, Stand
from tests.sdk.client.conftest import ANSWER
from tests.sdk.client.edge import FakeEdge
from tests.sdk.client.fakes import World, ids_of
from tests.sdk.client.test_ask import CHAT, PROMPT, TOKENS, price
from tests.sdk.protocol.test_verify import altered
from tests.sdk.swarm import DOMAIN

from plait import AsyncPlait
from plait.errors import DepositTooSmallError, RefusedError, StageFailedError, UnknownModelError
from plait.protocol.codec import fault_to_pb, signed_from_pb
from plait.protocol.errors import Fault
from plait.protocol.ids import Address, channel_id, group_id, keccak
from plait.protocol.messages import Request
from plait.protocol.pb import gateway_pb2
from plait.protocol.sealing import open_prompt
from plait.protocol.typed import Key


@dataclass(slots=True)
class EdgeChain:
    """The gateway's view of the same chain in memory."""

    edge: FakeEdge

    async def channel(self, payer: Address, payee: Address, signer: Address) -> SimpleNamespace:
        slot = self.edge.slots.get(channel_id(payer, payee, signer))
        if slot is None:
            return SimpleNamespace(deposit=0, claimed=0, exit_at=0)
        return SimpleNamespace(deposit=slot.deposit, claimed=slot.claimed, exit_at=slot.exit_at)

    async def block(self) -> SimpleNamespace:
        return SimpleNamespace(timestamp=self.edge.head)

    async def tiers(self, owners: Iterable[Address]) -> dict[Address, int]:
        return dict.fromkeys(owners, 0)


class Played:
    """A worker that answers every job it is given; `spoil` changes its events."""

    def __init__(self, stand: Stand) -> None:
        self.stand = stand
        self.fail_after: int | None = None  # events, then an error
        self.spoil_kind = ""

    async def run(self, group: bytes) -> None:
        async for delivery in self.stand.broker.jobs(group):
            await self.answer(delivery.call)
            await delivery.ack()

    async def answer(self, call: gateway_pb2.JobCall) -> None:
        stand, request = self.stand, signed_from_pb(call.request, Request)
        name = request.digest(DOMAIN)
        owner = stand.swarm.worker.owner
        key = stand.swarm.prekey_secret.open(call.capsules[0].sealed, request=name, node=owner)
        prompt, _ = open_prompt(key, name, call.prompt)
        asked = Asked(key=key, quote=call.quote, request=request, name=name, payment=call.payment, call=call)
        events = list(stand.swarm.answer(request.message, key, prompt).events(ids_of(ANSWER)))
        for place, event in enumerate(events[: self.fail_after]):
            if event.kind in ("job", "receipt"):
                await stand.deposit(event.body)
            changed = altered(event)[0] if event.kind == self.spoil_kind else event
            await stand.publish(asked, changed, f"1.{place}")
        if self.fail_after is not None:
            fault = Fault(code="stage_failed", text="stage 1 went away", retry=True)
            made = gateway_pb2.ResultEvent(request=name, error=fault_to_pb(fault))
            await stand.broker.publish_result(stand.me, name, owner, made, key="1.error")


@dataclass(slots=True, kw_only=True)
class Real:
    stand: Stand
    edge: FakeEdge
    worker: Played
    client: AsyncPlait


@asynccontextmanager
async def real(world: World, folder: Path, **settings: object) -> AsyncGenerator[Real]:
    folder.mkdir()  # noqa: ASYNC240 a test
    stand, payer = Stand(folder), Key.generate()
    edge = FakeEdge(swarm=stand.swarm, payer=payer.address)
    stand.chain = EdgeChain(edge)
    played = Played(stand)
    async with stand.running() as http:
        await stand.offer()
        quote = await stand.quote(http)

        async def connect(_: object) -> FakeEdge:
            return edge

        arguments = world.arguments(
            key=payer.secret_hex(), transport=http._transport, connect=connect, clock=stand.clock, **settings
        )
        work = asyncio.create_task(played.run(quote.message.group))
        async with AsyncPlait(**arguments) as client:
            yield Real(stand=stand, edge=edge, worker=played, client=client)
        work.cancel()


async def test_real_gateway_answers_are_checked_and_paid_to_the_unit(world: World, tmp_path: Path) -> None:
    async with real(world, tmp_path / "node") as there:
        for count in (1, 2):
            answer = await there.client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=200)
            assert answer.choices[0].message.content == ANSWER
            assert answer.acknowledged
            assert answer.usage.prompt_tokens == PROMPT
            (state,) = there.stand.book.channels()
            assert state.voucher.message.cumulative == count * price(TOKENS)
            assert state.voucher.message.jobs == count
        assert there.edge.transactions == ["open"]
        assert there.stand.notified >= 2


async def test_real_gateway_worker_fails_midway_pays_checked_tokens_only(world: World, tmp_path: Path) -> None:
    async with real(world, tmp_path / "node") as there:
        there.worker.fail_after = 6
        stream = await there.client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=200, stream=True)
        with pytest.raises(StageFailedError, match="went away"):
            async for _ in stream:
                pass
        job = await there.client.jobs.get(stream.id)
        assert (job.ended, job.paid) == ("aborted", stream.price_of(stream.verified_tokens))
        there.worker.fail_after = None
        again = await there.client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=200)
        assert again.acknowledged
        (state,) = there.stand.book.channels()
        assert state.voucher.message.jobs == 2


@pytest.mark.parametrize("kind", ["progress", "receipt"])
async def test_real_gateway_worker_cheats_pays_nothing_more(world: World, tmp_path: Path, kind: str) -> None:
    async with real(world, tmp_path / "node", timeout=60) as there:
        there.worker.spoil_kind = kind
        stream = await there.client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=200, stream=True)
        with pytest.raises(RefusedError, match=f"{kind} failed the gateway's check"):
            async for _ in stream:
                pass
        assert stream.paid <= stream.price_of(65)
        assert all(state.voucher.message.jobs <= 1 for state in there.stand.book.channels())


async def test_real_gateway_passes_a_sealed_prompt_on_to_its_worker(world: World, tmp_path: Path) -> None:
    async with real(world, tmp_path / "node") as there:
        stand, request = there.stand, keccak(b"request 7")
        stand.on_chain.open[7] = (stand.me, request)
        await there.client.requests.submit(model="tiny", messages=CHAT, fee=100, publish_prompt=False)
        prompt = await there.client.requests.prepare(model="tiny", messages=CHAT)

        (brought,) = await stand.broker.prompts(request)
        (capsule,) = brought.call.capsules
        key = stand.swarm.prekey_secret.open(capsule.sealed, request=request, node=stand.swarm.worker.owner)
        assert tuple(open_prompt(key, request, brought.call.prompt)[0]) == prompt.ids


async def test_real_gateway_without_a_live_worker_is_waited_for(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with real(world, tmp_path / "node") as there:
        stand, model = there.stand, there.stand.swarm.manifest.model_id
        await stand.broker.withdraw_offer(stand.me, model, group=group_id(model, "cpu", 0, 0))
        stand.now += 2
        slept: list[float] = []

        async def sleep(seconds: float) -> None:
            slept.append(seconds)
            stand.now += seconds
            await stand.offer()

        monkeypatch.setattr("plait.client.patience.sleep", sleep)
        assert await there.client.models.list() == []
        with pytest.raises(UnknownModelError, match=r"served now: nothing; without a worker for the moment: tiny \(0x"):
            await there.client.chat.completions.create(model="other", messages=CHAT)
        assert slept == []
        answer = await there.client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=200)
        assert answer.choices[0].message.content == ANSWER
        assert slept == [5.0]


async def test_real_gateway_refusals_are_typed(world: World, tmp_path: Path) -> None:
    async with real(world, tmp_path / "node", deposit=price(20)) as there:
        with pytest.raises(UnknownModelError, match="tiny"):
            await there.client.chat.completions.create(model="other", messages=CHAT)
        with pytest.raises(DepositTooSmallError):
            await there.client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=200)
        assert there.stand.book.channels() == []
