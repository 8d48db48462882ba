"""A gateway that dies at any moment loses nothing: money is in the journal, answers are in the broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from tests.node.gateway.stand import CALL_S, DOMAIN, OUTPUT, PROMPT, Stand, fault, parse_sse

from plait.protocol import codec
from plait.protocol.ids import to_hex
from plait.protocol.messages import Receipt
from plait.protocol.money import job_price
from plait.protocol.receipts import RECEIPT, ReceiptLeaf
from plait_node.broker import BrokerDownError, LocalServer, NatsBroker
from plait_node.errors import PortTakenError
from plait_node.gateway import serve

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def nats(tmp_path: Path) -> AsyncIterator[LocalServer]:
    server = await LocalServer.start(tmp_path / "nats")
    yield server
    await server.stop()


async def test_gateway_restarted_between_answer_and_voucher_loses_nothing(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    async with stand.running() as client:
        asked = await stand.submitted(client)
        await stand.work(asked)
        before = await stand.follow(client, asked)
        assert before[-1].kind == "receipt"

    stand.dht.shelf.clear()  # the table forgot meanwhile; what was confirmed stays confirmed
    async with stand.running() as client:
        assert await stand.follow(client, asked) == before
        middle = before[4].sequence
        assert await stand.follow(client, asked, after=middle) == before[5:]
        receipt = codec.signed_from_pb(before[-1].event.receipt, Receipt)
        price = job_price(stand.swarm.terms, input_tokens=len(PROMPT), output_tokens=len(OUTPUT))
        leaf = ReceiptLeaf(kind=RECEIPT, hash=receipt.digest(DOMAIN), hop_amount=price, windows_paid=5)
        told = stand.notified
        response = await stand.send(client, stand.payer.channel(stand.me).end_job(asked.name, leaf, to=len(OUTPUT)))
        assert response.status_code == 200, fault(response)
        assert stand.notified == told + 1
        assert stand.book.rounds()[0].row().cumulative == price


async def test_gateway_restarted_in_the_middle_of_an_answer_goes_on(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    async with stand.running() as client:
        asked = await stand.submitted(client)
        events = await stand.work(asked, upto=6)
        await stand.relayed(asked, "progress")
    for place, event in enumerate(events[6:], start=6):
        if event.kind == "receipt":
            await stand.deposit(event.body)
        await stand.publish(asked, event, f"1.{place}")
    async with stand.running() as client:
        assert [each.kind for each in await stand.follow(client, asked)] == [event.kind for event in events]
        assert (await stand.pay(client, asked, len(OUTPUT))).status_code == 200


async def test_verdict_against_an_answer_stays_after_a_restart(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    async with stand.running() as client:
        asked = await stand.submitted(client)
        events = await stand.work(asked, forge=True)
        before = await stand.follow(client, asked)
        assert before[-1].event.error.code == "answer_withheld"
    await stand.deposit(events[-1].body)  # too late: the honest record comes after the verdict
    async with stand.running() as client:
        assert await stand.follow(client, asked) == before


async def test_job_journaled_but_not_queued_is_queued_after_the_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand = Stand(tmp_path)

    async def away(*_: object, **__: object) -> bool:
        raise BrokerDownError("store a message")

    async with stand.running() as client:
        await stand.offer()
        asked = stand.ask(await stand.quote(client))
        with monkeypatch.context() as patch:
            patch.setattr(stand.broker, "publish_job", away)
            response = await stand.submit(client, asked)
        assert (response.status_code, fault(response).code, fault(response).moved) == (503, "broker_away", True)
        assert await stand.broker.backlog(asked.quote.message.group) == 0
    async with stand.running() as client:
        async with asyncio.timeout(CALL_S):
            while not await stand.broker.backlog(asked.quote.message.group):  # noqa: ASYNC110 - the gateway acts
                await asyncio.sleep(0.01)
        assert (await stand.submit(client, asked)).status_code == 200
        assert await stand.broker.backlog(asked.quote.message.group) == 1


async def test_answer_streams_over_real_sockets_and_a_real_broker_and_resumes(
    tmp_path: Path, nats: LocalServer
) -> None:
    """uvicorn, nats-server, a client that goes away in the middle, a gateway that is started again."""
    broker = await NatsBroker.connect(nats.url)
    stand = Stand(tmp_path, broker)
    async with stand.running() as local:
        asked = await stand.submitted(local)
        events = await stand.work(asked, upto=7)
        port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(serve(stand.gateway, host="127.0.0.1", port=0, ready=port.set_result))
        url = f"http://127.0.0.1:{await port}"
        seen = b""
        path = f"{url}/v1/jobs/{to_hex(asked.name)}/events"
        async with httpx.AsyncClient(timeout=CALL_S) as client, asyncio.timeout(CALL_S):
            async with client.stream("POST", path, content=stand.resume(asked)) as response:
                assert response.headers["content-type"].startswith("text/event-stream")
                async for part in response.aiter_bytes():
                    seen += part
                    if seen.count(b"event: ") >= 4:
                        break
            first = parse_sse(seen)
            rest = asyncio.create_task(client.post(path, content=stand.resume(asked, after=first[-1].sequence)))
            await asyncio.sleep(0.1)
            for place, event in enumerate(events[7:], start=7):
                if event.kind == "receipt":
                    await stand.deposit(event.body)
                await stand.publish(asked, event, f"1.{place}")
            second = parse_sse((await rest).content)
        serving.cancel()
        await asyncio.wait({serving})
    assert [each.kind for each in first + second] == [event.kind for event in events]
    async with stand.running() as local:
        assert await stand.follow(local, asked) == first + second
        notices = broker.payments(stand.swarm.worker.owner, asked.name)
        response = await stand.pay(local, asked, 32)
        assert response.status_code == 200, fault(response)
        assert codec.payment_from_pb((await anext(notices)).notice.payment).pay.message.to == 32
    await broker.close()


async def test_port_that_is_taken_is_a_clear_error(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    async with stand.running():
        port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(serve(stand.gateway, host="127.0.0.1", port=0, ready=port.set_result))
        taken = await port
        with pytest.raises(PortTakenError, match="free it or name another"):
            await serve(stand.gateway, host="127.0.0.1", port=taken)
        serving.cancel()
        await asyncio.wait({serving})


async def test_body_that_does_not_come_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plait_node.gateway.http._BODY_S", 0.2)
    stand = Stand(tmp_path)
    async with stand.running():
        port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(serve(stand.gateway, host="127.0.0.1", port=0, ready=port.set_result))
        reader, writer = await asyncio.open_connection("127.0.0.1", await port)
        writer.write(b"POST /v1/quotes HTTP/1.1\r\nHost: here\r\nContent-Length: 100\r\n\r\nhalf")
        async with asyncio.timeout(5):
            answer = await reader.readuntil(b"send it again")
        assert answer.startswith(b"HTTP/1.1 400 ")
        writer.close()
        serving.cancel()
        await asyncio.wait({serving})
