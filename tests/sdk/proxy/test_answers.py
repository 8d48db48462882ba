"""Answers over HTTP, whole and as events: their shapes, how they fail, and clients that leave."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import httpx
import pytest
from tests.sdk.client.conftest import ANSWER
from tests.sdk.client.fakes import World, ids_of, says
from tests.sdk.client.test_ask import PROMPT, TOKENS, price, tampering
from tests.sdk.proxy.stand import BODY, Paced, brief, events, proxied, streamed, told
from tests.sdk.swarm import Answer, Event

from plait.protocol.errors import Fault
from plait.protocol.messages import Finish
from plait.proxy import Access, make_app


async def test_chat_answer_has_the_shape_of_openais(world: World) -> None:
    async with world.client() as client, proxied(client) as there:
        response = await there.http.post("/v1/chat/completions", json=BODY)
        (job,) = await client.jobs.list()
    answer = response.json()
    assert response.status_code == 200
    assert response.headers["x-request-id"] == answer["id"] == answer["plait"]["job"] == job.id
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "tiny"
    assert answer["created"] == int(world.gateway.now)
    assert answer["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": ANSWER, "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert answer["usage"] == {
        "prompt_tokens": PROMPT,
        "completion_tokens": TOKENS,
        "total_tokens": PROMPT + TOKENS,
    }
    assert answer["system_fingerprint"].startswith(f"plait_{world.swarm.manifest.model_id.hex()[:10]}_")
    assert answer["plait"]["level"] == "L0"
    assert answer["plait"]["cost"] == str(price(TOKENS))


async def test_stream_ends_with_reason_usage_and_mark(world: World) -> None:
    async with world.client() as client, proxied(client) as there:
        *chunks, usage, done = await streamed(there, stream_options={"include_usage": True})
    assert done == "[DONE]"
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == TOKENS
    assert all(chunk["usage"] is None for chunk in chunks)
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({(chunk["id"], chunk["created"], chunk["system_fingerprint"]) for chunk in [*chunks, usage]}) == 1
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0]["role"] == "assistant"
    assert not any("role" in delta for delta in deltas[1:])
    assert "".join(delta.get("content", "") for delta in deltas) == ANSWER
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert chunks[-1]["plait"]["cost"] == str(price(TOKENS))


async def test_stream_without_usage_option_has_no_usage(world: World) -> None:
    async with world.client() as client, proxied(client) as there:
        *chunks, done = await streamed(there)
    assert done == "[DONE]"
    assert not any("usage" in chunk for chunk in chunks)


async def test_stream_of_no_text_still_says_who_speaks(world: World) -> None:
    world.gateway.script = says([257], Finish.STOP)
    async with world.client() as client, proxied(client) as there:
        last, done = await streamed(there)
    assert last["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert (last["choices"][0]["finish_reason"], done) == ("stop", "[DONE]")


async def test_stream_of_raw_completion_has_the_shape_of_openais(world: World) -> None:
    body = {"model": "tiny", "prompt": "Why?", "max_tokens": 200, "stream": True}
    async with (
        world.client() as client,
        proxied(client) as there,
        there.http.stream("POST", "/v1/completions", json=body) as response,
    ):
        lines = [line async for line in events(response) if line.startswith("data: {")]
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == ANSWER
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


async def test_completion_prompt_goes_to_the_model_as_it_is(world: World) -> None:
    world.gateway.script = brief
    async with world.client() as client, proxied(client) as there:
        for prompt, ids in (("Why?", list(b"Why?")), ([5, 6, 7], [5, 6, 7])):
            world.gateway.jobs.clear()
            response = await there.http.post("/v1/completions", json={"model": "tiny", "prompt": prompt})
            (held,) = world.gateway.jobs.values()
            assert len(held.answer.prompt) == len(ids)
            assert held.request.max_tokens == 16
            assert response.json()["usage"]["prompt_tokens"] == len(ids)


async def test_answer_cut_at_max_tokens_says_length(world: World) -> None:
    world.gateway.script = says(ids_of(ANSWER)[:7], Finish.LENGTH)
    async with world.client() as client, proxied(client) as there:
        response = await there.http.post("/v1/chat/completions", json={**BODY, "max_tokens": 7})
    assert response.json()["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("stream", [False, True])
async def test_answer_that_the_swarm_cut_short_is_an_error_and_no_stop(world: World, *, stream: bool) -> None:
    world.gateway.script = says(ids_of(ANSWER)[:20], Finish.CANCELLED)
    async with world.client() as client, proxied(client) as there:
        if stream:
            *chunks, error = await streamed(there)
            assert chunks
            assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks)
            assert error["error"]["code"] == "cut_short"
        else:
            response = await there.http.post("/v1/chat/completions", json=BODY)
            assert told(response) == (502, "cut_short", None)
            assert response.headers["x-should-retry"] == "false"
        assert there.spending.spent == price(20)


async def test_stream_that_fails_a_check_ends_with_an_error_event(world: World) -> None:
    world.gateway.script = tampering("progress", 6, 0)
    async with world.client() as client, proxied(client) as there:
        *chunks, error = await streamed(there)
        await there.settled()
        assert error["error"]["code"] == "verification"
        assert error["error"]["type"] == "server_error"
        assert chunks
        assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks)
        assert there.spending.spent == price(65)
        assert there.spending.held == 0


async def test_stream_of_a_failing_swarm_ends_with_an_error_event(world: World) -> None:
    def script(answer: Answer) -> Iterator[Event]:
        for event in answer.events([65] * 40, Finish.LENGTH):
            yield event
            if event.kind == "progress" and answer.last_progress.message.to == 17:
                break
        yield Event(kind="error", body=Fault(code="stage_failed", text="stage 1 went away", retry=True))

    world.gateway.script = script
    async with world.client() as client, proxied(client) as there:
        *_, error = await streamed(there)
        assert error["error"] == {
            "message": "stage 1 went away",
            "type": "server_error",
            "param": None,
            "code": "stage_failed",
        }
        assert there.spending.spent == price(17)
        response = await there.http.post("/v1/chat/completions", json=BODY)
        assert told(response) == (502, "stage_failed", None)
        assert response.headers["x-should-retry"] == "false"  # it was paid in part


async def test_stream_that_is_silent_gets_comments(world: World) -> None:
    paced = Paced(world, after=5)
    async with world.client(transport=paced.transport()) as client, proxied(client, alive_s=0.05) as there:
        body = {**BODY, "stream": True}
        async with there.http.stream("POST", "/v1/chat/completions", json=body) as response:
            comments = 0
            async for line in events(response):
                comments += line.startswith(":")
                if comments == 4:
                    paced.go.set()
        assert line == "data: [DONE]"


@pytest.mark.parametrize("stream", [False, True])
async def test_client_that_leaves_stops_the_job_and_pays_what_was_checked(world: World, *, stream: bool) -> None:
    paced = Paced(world, after=20)
    async with world.client(transport=paced.transport()) as client, proxied(client) as there:
        call = asyncio.create_task(there.http.post("/v1/chat/completions", json={**BODY, "stream": stream}))
        async with asyncio.timeout(30):
            await paced.halted.wait()
        call.cancel()
        await asyncio.wait({call})
        await there.settled()
        (to,) = world.gateway.cancelled
        (job,) = await client.jobs.list()
        assert job.ended == "receipt"
        assert price(to) <= there.spending.spent == job.paid < price(TOKENS)
        assert there.spending.held == 0


async def test_client_that_leaves_before_the_job_is_taken_stops_it_then(world: World) -> None:
    go, asked = asyncio.Event(), asyncio.Event()

    def ended_at_once(answer: Answer) -> Iterator[Event]:
        yield Event(kind="job", body=answer.job())
        yield Event(kind="receipt", body=answer.receipt(Finish.CANCELLED))

    async def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/jobs":
            asked.set()
            await go.wait()
        response = await world.gateway.handle(request)
        if request.url.path.endswith("/cancel"):
            (held,) = world.gateway.jobs.values()
            held.script = ended_at_once(held.answer)
        return response

    transport = httpx.MockTransport(handle)
    async with world.client(transport=transport) as client, proxied(client) as there:
        call = asyncio.create_task(there.http.post("/v1/chat/completions", json=BODY))
        async with asyncio.timeout(30):
            await asked.wait()
        call.cancel()
        await asyncio.wait({call})
        (answer,) = there.desk._answers.values()
        async with asyncio.timeout(30):
            while not answer._left:  # noqa: ASYNC110 - how a proxy learns of it is not the test's to say
                await asyncio.sleep(0.01)
        go.set()
        await there.settled()
        assert world.gateway.cancelled == [0]
        assert (there.spending.spent, there.spending.held) == (0, 0)  # what was paid for the input is credit again


async def test_proxy_that_ends_tells_its_clients_and_settles(world: World) -> None:
    paced = Paced(world, after=20)
    async with world.client(transport=paced.transport()) as client, proxied(client) as there:
        call = asyncio.create_task(streamed(there))
        async with asyncio.timeout(30):
            await paced.halted.wait()
        there.serving.cancel()
        *_, error = await call
        assert error["error"]["code"] == "stopping"
        await asyncio.wait({there.serving}, timeout=40)
        assert there.spending.held == 0
        with pytest.raises(httpx.HTTPError):
            await there.http.get("/health")


async def test_failure_inside_the_proxy_is_told_and_logged(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    async with world.client() as client, proxied(client) as there:
        monkeypatch.setattr("plait.proxy.prompts.Prompts.ids", fail)
        monkeypatch.setattr("plait.proxy.desk.Desk.models", fail)
        assert told(await there.http.post("/v1/chat/completions", json=BODY)) == (500, "internal", None)
        assert told(await there.http.get("/v1/models")) == (500, "internal", None)
        monkeypatch.undo()
        assert (await there.http.post("/v1/chat/completions", json=BODY)).status_code == 200
    assert caplog.text.count("RuntimeError: a bug") == 2


async def test_stream_that_nobody_reads_stops_the_job(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plait.proxy.http.SEND_PATIENCE_S", 0.2)
    paced = Paced(world, after=20)
    async with world.client(transport=paced.transport()) as client, proxied(client) as there:
        app = make_app(there.desk, Access())
        sent: list[object] = []

        async def send(message: dict[str, object]) -> None:
            sent.append(message)
            if b"data: " in message.get("body", b""):
                await asyncio.Event().wait()

        body = json.dumps({**BODY, "stream": True}).encode()
        received = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, object]:
            if not received:
                await asyncio.Event().wait()
            return received.pop()

        headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": headers}
        async with asyncio.timeout(30):
            await app({**scope, "query_string": b"", "root_path": ""}, receive, send)
        await there.settled()
        assert len(sent) < 5
        assert world.gateway.cancelled
        assert there.spending.spent < price(TOKENS)
