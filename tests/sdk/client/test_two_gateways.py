"""The client against two gateways of one owner over real sockets and a real broker; the one it speaks to is killed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from tests.node.gateway.stand import Asked, Stand, fault
from tests.sdk.client.conftest import ANSWER
from tests.sdk.client.edge import FakeEdge
from tests.sdk.client.fakes import World, ids_of
from tests.sdk.client.test_ask import CHAT, TOKENS, price
from tests.sdk.client.test_real_gateway import EdgeChain
from tests.sdk.swarm import DOMAIN

from plait import AsyncPlait
from plait.ledger import SharedBook
from plait.protocol.codec import payment_to_pb, signed_from_pb
from plait.protocol.ids import Hash
from plait.protocol.messages import Request
from plait.protocol.pb import gateway_pb2
from plait.protocol.sealing import open_prompt
from plait.protocol.typed import Key
from plait_node.broker import LocalServer, NatsBroker
from plait_node.gateway import Gateway, serve


class Wire:
    """A line to a gateway that can be cut, as when its process is killed, or fall silent, as when it is stopped."""

    def __init__(self) -> None:
        self.target = 0
        self.open = asyncio.Event()
        self.open.set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self.url

    async def cut(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        there, onward = await asyncio.open_connection("127.0.0.1", self.target)
        try:
            await asyncio.gather(self._pass(reader, onward), self._pass(there, writer))
        except asyncio.CancelledError:
            pass  # cut
        finally:
            writer.transport.abort()
            onward.transport.abort()
            self._tasks.discard(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                await self.open.wait()
                writer.write(data)
                await writer.drain()
        writer.close()


class Pausing:
    """A worker that answers, and waits for `go` once it has published `pause_after` events."""

    def __init__(self, stand: Stand, pause_after: int) -> None:
        self.stand, self.pause_after = stand, pause_after
        self.paused, self.go = asyncio.Event(), asyncio.Event()
        self.jobs = 0

    async def run(self, group: bytes) -> None:
        async for delivery in self.stand.broker.jobs(group):
            self.jobs += 1
            await self.answer(delivery.call)
            await delivery.ack()

    async def answer(self, call: gateway_pb2.JobCall) -> None:
        stand, request = self.stand, signed_from_pb(call.request, Request)
        name, owner = request.digest(DOMAIN), stand.swarm.worker.owner
        key = stand.swarm.prekey_secret.open(call.capsules[0].sealed, request=name, node=owner)
        prompt, _ = open_prompt(key, name, call.prompt)
        asked = Asked(key=key, quote=call.quote, request=request, name=name, payment=call.payment, call=call)
        events = list(stand.swarm.answer(request.message, key, prompt).events(ids_of(ANSWER)))
        for place, event in enumerate(events):
            if place == self.pause_after % len(events):
                self.paused.set()
                await self.go.wait()
            if event.kind in ("job", "receipt"):
                await stand.deposit(event.body)
            await stand.publish(asked, event, f"1.{place}")


@dataclass(slots=True, kw_only=True)
class Site:
    """One gateway on its own host: its line, its broker connection, its journal."""

    gateway: Gateway
    book: SharedBook
    local: httpx.AsyncClient
    wire: Wire
    serving: asyncio.Task[None]

    async def kill(self, *, silent: bool = False) -> None:
        """Stop all that it does and cut its line, or let it fall silent; nobody hears a goodbye."""
        if silent:
            self.wire.open.clear()
        else:
            await self.wire.cut()
        tasks = list(self.gateway._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


@pytest_asyncio.fixture(loop_scope="function")
async def nats(tmp_path: Path) -> AsyncIterator[LocalServer]:
    server = await LocalServer.start(tmp_path / "nats")
    yield server
    await server.stop()


@asynccontextmanager
async def site(stand: Stand, name: str, nats: LocalServer) -> AsyncGenerator[Site]:
    wire = Wire()
    url = await wire.start()
    broker = await NatsBroker.connect(nats.url)
    async with stand.running(name, broker=broker, url=url) as local:
        gateway = stand.gateway
        assert gateway is not None
        port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(serve(gateway, host="127.0.0.1", port=0, ready=port.set_result))
        wire.target = await port
        try:
            yield Site(gateway=gateway, book=stand.book, local=local, wire=wire, serving=serving)
        finally:
            serving.cancel()
            await asyncio.wait({serving})
            await wire.cut()
    await broker.close()


@dataclass(slots=True, kw_only=True)
class Both:
    stand: Stand
    sites: list[Site]
    worker: Pausing
    client: AsyncPlait

    async def owner_of(self, channel: Hash) -> tuple[Site, Site]:
        """Return the site that owns a channel, and the other one."""
        first, second = self.sites
        async with asyncio.timeout(60):
            while first.gateway.owns(channel) == second.gateway.owns(channel):  # noqa: ASYNC110 - a busy machine
                await asyncio.sleep(0.05)
        return (first, second) if first.gateway.owns(channel) else (second, first)


@asynccontextmanager
async def both(world: World, folder: Path, nats: LocalServer, *, pause_after: int) -> AsyncGenerator[Both]:
    folder.mkdir()  # noqa: ASYNC240 a test
    payer, broker = Key.generate(), await NatsBroker.connect(nats.url)
    stand = Stand(folder, broker, patience_s=2.0)
    edge = FakeEdge(swarm=stand.swarm, payer=payer.address)
    stand.chain = EdgeChain(edge)
    worker = Pausing(stand, pause_after)

    async def connect(_: object) -> FakeEdge:
        return edge

    async with AsyncExitStack() as stack:
        sites = [await stack.enter_async_context(site(stand, name, nats)) for name in ("a", "b")]
        edge.endpoint = " ".join(each.wire.url for each in sites)
        await stand.offer()
        quote = await stand.quote(sites[0].local)
        work = asyncio.create_task(worker.run(quote.message.group))
        arguments = world.arguments(key=payer.secret_hex(), transport=None, connect=connect, clock=stand.clock)
        async with AsyncPlait(**arguments) as client:
            yield Both(stand=stand, sites=sites, worker=worker, client=client)
        work.cancel()
        await asyncio.wait({work})
    await broker.close()


@pytest.mark.parametrize(
    "end",
    [(1, False), (9, False), (-1, False), (9, True)],
    ids=["killed after the job", "killed midway", "killed before the receipt", "stopped midway"],
)
async def test_gateway_gone_while_it_streams_is_succeeded_and_the_text_is_the_same(
    world: World, tmp_path: Path, nats: LocalServer, monkeypatch: pytest.MonkeyPatch, end: tuple[int, bool]
) -> None:
    pause_after, silent = end
    monkeypatch.setattr("plait.client.gateway.SILENCE_S", 3.0)
    async with both(world, tmp_path / "node", nats, pause_after=pause_after) as there:
        stream = await there.client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=200, stream=True)
        reading = asyncio.create_task(_text(stream))
        async with asyncio.timeout(60):
            await there.worker.paused.wait()
        channel = (await there.client.purse()).channel(there.stand.me)
        killed, survivor = await there.owner_of(channel.id)
        await asyncio.sleep(0.3)  # what was published has reached the payer
        await killed.kill(silent=silent)
        there.worker.go.set()

        async with asyncio.timeout(60):
            assert await reading == ANSWER

        answer = stream.completion
        assert answer.choices[0].message.content == ANSWER
        assert (answer.acknowledged, answer.paid, there.worker.jobs) == (True, price(TOKENS), 1)
        (state,) = survivor.book.channels()
        assert (state.voucher.message.cumulative, state.voucher.message.jobs) == (price(TOKENS), 1)
        assert [each.row().cumulative for each in survivor.book.rounds()] == [price(TOKENS)]
        await _wakes(there, killed, survivor)


async def _wakes(there: Both, woken: Site, survivor: Site) -> None:
    """Bring vouchers to the one that was stopped, and an old one to its successor: both refuse."""
    channel = (await there.client.purse()).channel(there.stand.me)
    before = survivor.book.channels()
    payment = channel.pay(Hash(bytes(31) + b"\1"), 1, 0)
    body = gateway_pb2.VoucherCall(payment=payment_to_pb(payment)).SerializeToString()
    async with httpx.AsyncClient(timeout=60) as http:
        response = await http.post(f"http://127.0.0.1:{woken.wire.target}/v1/vouchers", content=body)
        assert (response.status_code, fault(response).code) == (421, "other_gateway")
        assert survivor.wire.url in fault(response).text.split()
        old = replace(payment, voucher=before[0].voucher)
        pay = replace(payment.pay.message, voucher=before[0].voucher.struct_hash())
        old = replace(old, pay=(await there.client.purse()).session.signed(DOMAIN, pay))
        body = gateway_pb2.VoucherCall(payment=payment_to_pb(old)).SerializeToString()
        response = await http.post(f"{survivor.wire.url}/v1/vouchers", content=body)
        assert (response.status_code, fault(response).code) == (409, "stale_voucher")
    assert survivor.book.channels() == before
    assert woken.book.channels() != before


async def _text(stream: object) -> str:
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


async def test_gateway_that_stops_is_succeeded_and_the_next_answers_come_from_the_other(
    world: World, tmp_path: Path, nats: LocalServer
) -> None:
    async with both(world, tmp_path / "node", nats, pause_after=9) as there:
        stream = await there.client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=200, stream=True)
        reading = asyncio.create_task(_text(stream))
        async with asyncio.timeout(60):
            await there.worker.paused.wait()
        channel = (await there.client.purse()).channel(there.stand.me)
        stopped, survivor = await there.owner_of(channel.id)
        stopped.serving.cancel()
        await asyncio.wait({stopped.serving})
        await stopped.kill()
        await stopped.gateway._custody.give_back()
        there.worker.go.set()

        async with asyncio.timeout(60):
            assert await reading == ANSWER
        again = await there.client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=200)

        assert (again.choices[0].message.content, again.acknowledged) == (ANSWER, True)
        (state,) = survivor.book.channels()
        assert (state.voucher.message.cumulative, state.voucher.message.jobs) == (2 * price(TOKENS), 2)
