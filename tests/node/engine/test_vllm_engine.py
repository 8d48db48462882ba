"""A vLLM server of our own making, that answers as vLLM does, and as nobody should."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from plait.protocol.ids import HASH_ZERO, keccak
from plait.protocol.manifest import FP32_STRICT, Manifest
from plait.protocol.messages import Sampling
from plait_model.vllm_sampler import MARK, Draw
from plait_node.engine.errors import BadRowsError, EngineError, NoRoomError, NumericsError
from plait_node.engine.vllm import TOKENS_ONLY, VllmEngine, VllmServer
from plait_node.engine.vllm.errors import (
    BadAnswerError,
    ProfileRefusedError,
    SamplerMissingError,
    ServedModelError,
    ServerCutError,
    ServerRefusedError,
    ServerSilentError,
    ServerUnreachableError,
)

VOCABULARY, CONTEXT, END = 100, 64, 7
PROMPT = [5, 6, 8]
SEED, REQUEST = keccak(b"seed"), keccak(b"request")
GREEDY = Sampling(temperature=0, top_p=1_000_000, top_k=0, stop=HASH_ZERO)
DRAWN = Sampling(temperature=800_000, top_p=900_000, top_k=40, stop=HASH_ZERO)
MANIFEST = Manifest(
    name="fake",
    architecture="llama",
    config={},
    blocks=1,
    hidden=8,
    vocabulary=VOCABULARY,
    context=CONTEXT,
    tokenizer=HASH_ZERO,
    chat_template=HASH_ZERO,
    bos_token="",
    eos_token="",
    end_tokens=(END,),
    weights=HASH_ZERO,
    licence="none",
    profiles=(TOKENS_ONLY,),
)


def event(ids: object, *, finish: str | None = None, logprobs: object = None, **more: object) -> bytes:
    count = len(ids) if isinstance(ids, list) else 0
    choice = {
        "index": 0,
        "text": "",
        "logprobs": {"token_logprobs": [-0.5] * count} if logprobs is None else logprobs,
        "finish_reason": finish,
        "token_ids": ids,
        **more,
    }
    return b"data: " + json.dumps({"object": "text_completion", "choices": [choice]}).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
GOOD = [event([11], prompt_token_ids=PROMPT), event([12, 13]), event([14], finish="length"), DONE]


@dataclass(kw_only=True)
class Fake:
    """What the server says, and what it heard."""

    stream: Sequence[bytes] | Callable[[], AsyncIterator[bytes]] = ()
    answer: Response | None = None  # instead of a stream
    models: object = field(default_factory=lambda: {"data": [{"id": "fake", "max_model_len": 40}]})
    refuses_last_id: bool = False
    has_sampler: bool = True
    heard: list[dict[str, Any]] = field(default_factory=list)
    streaming: asyncio.Event = field(default_factory=asyncio.Event)
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def list_models(self, _: Request) -> Response:
        return JSONResponse(self.models)

    async def complete(self, request: Request) -> Response:
        body = await request.json()
        self.heard.append(body)
        if not body.get("stream"):
            return self._probed(body)
        if self.answer is not None:
            return self.answer
        return StreamingResponse(self._events(), media_type="text/event-stream")

    def _probed(self, body: dict[str, Any]) -> Response:
        if "plait_probe" in body.get("vllm_xargs", {}) and self.has_sampler:
            return JSONResponse({"error": {"message": f"{MARK}: send seed"}}, 400)
        if self.refuses_last_id:
            return JSONResponse({"error": {"message": "Token id 99 is out of vocabulary"}}, 400)
        return JSONResponse({"choices": [{}]})

    async def _events(self) -> AsyncIterator[bytes]:
        self.streaming.set()
        try:
            if callable(self.stream):
                async for piece in self.stream():
                    yield piece
                return
            for piece in self.stream:
                yield piece
        finally:
            self.closed.set()


@asynccontextmanager
async def serving(fake: Fake) -> AsyncGenerator[str]:
    routes = [Route("/v1/models", fake.list_models), Route("/v1/completions", fake.complete, methods=["POST"])]
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), log_level="warning", lifespan="off"))
    listener = socket.create_server(("127.0.0.1", 0))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.force_exit = server.should_exit = True
        await task


def engine(url: str, **times: float) -> VllmEngine:
    allowed = {"connect_s": 2.0, "check_s": 2.0, "first_s": 2.0, "next_s": 2.0} | times
    return VllmEngine(VllmServer(url=url, model="fake", **allowed), MANIFEST, profile=TOKENS_ONLY)


async def answered(
    made: VllmEngine, *, prompt: Sequence[int] = PROMPT, sampling: Sampling = GREEDY, max_tokens: int = 4, **more: int
) -> list[list[int]]:
    stream = made.generate(
        prompt, max_tokens=max_tokens, sampling=sampling, seed=SEED, request=REQUEST, end_tokens=[END], **more
    )
    async with aclosing(stream):
        return [ids async for ids in stream]


async def asked(fake: Fake, **times: float) -> list[list[int]]:
    async with serving(fake) as url, engine(url, **times) as made:
        return await answered(made)


async def test_generate_yields_the_ids_of_each_event() -> None:
    fake = Fake(stream=GOOD)

    assert await asked(fake) == [[11], [12, 13], [14]]
    body = fake.heard[0]
    assert body["prompt"] == PROMPT
    assert (body["temperature"], body["repetition_penalty"], body["ignore_eos"]) == (0, 1, True)
    assert "vllm_xargs" not in body
    assert "priority" not in body


async def test_generate_ends_with_an_end_token() -> None:
    assert await asked(Fake(stream=[event([11]), event([END], finish="stop"), DONE])) == [[11], [END]]


async def test_generate_reads_events_cut_anywhere_and_skips_what_is_none() -> None:
    whole = b": ping\n\n" + b"".join(GOOD[:-1]).replace(b"\n\n", b"\r\n\r\n") + b'data: {"choices": []}\n\n'
    pieces = [whole[low : low + 7] for low in range(0, len(whole), 7)]

    assert await asked(Fake(stream=pieces)) == [[11], [12, 13], [14]]


async def test_drawn_tokens_carry_the_draw_and_the_priority() -> None:
    fake = Fake(stream=GOOD)
    async with serving(fake) as url, engine(url) as made:
        await made.check()
        await answered(made, sampling=DRAWN, start=2, priority=3)

    body = fake.heard[-1]
    assert Draw.read(body["vllm_xargs"]) == Draw(seed=SEED, request=REQUEST, start=2, sampling=DRAWN)
    assert (body["temperature"], body["priority"]) == (0, 3)


async def test_check_learns_length_and_sampler() -> None:
    async with serving(Fake()) as url, engine(url) as made:
        assert (made.max_steps, made.draws) == (CONTEXT, False)
        await made.check()
        assert (made.max_steps, made.draws) == (40, True)
        with pytest.raises(NoRoomError) as caught:
            await answered(made, max_tokens=38)
        assert caught.value.limit == 40


async def test_check_without_the_sampler_leaves_temperature_0_alone() -> None:
    async with serving(Fake(stream=GOOD, has_sampler=False)) as url, engine(url) as made:
        await made.check()
        assert len(await answered(made)) == 3
        with pytest.raises(SamplerMissingError, match="logits-processors"):
            await answered(made, sampling=DRAWN)


@pytest.mark.parametrize(
    ("fake", "wanted"),
    [
        (Fake(models={"data": [{"id": "other", "max_model_len": 40}]}), ServedModelError),
        (Fake(models={"data": []}), ServedModelError),
        (Fake(refuses_last_id=True), ServedModelError),
        (Fake(models={"data": [{"id": "fake"}]}), BadAnswerError),
        (Fake(models={"data": [{"id": "fake", "max_model_len": True}]}), BadAnswerError),
        (Fake(models=[1]), BadAnswerError),
        (Fake(models="x" * 2_000_000), BadAnswerError),
    ],
    ids=["other-model", "no-model", "small-vocabulary", "no-length", "wrong-length", "no-object", "endless"],
)
async def test_check_refuses_what_does_not_fit(fake: Fake, wanted: type[EngineError]) -> None:
    async with serving(fake) as url, engine(url) as made:
        with pytest.raises(wanted):
            await made.check()


@pytest.mark.parametrize(
    ("stream", "wanted"),
    [
        ([b"data: {no json\n\n"], BadAnswerError),
        ([b"data: [1]\n\n"], BadAnswerError),
        ([b"data: " + b"[" * 50_000 + b"\n\n"], BadAnswerError),
        ([b'data: {"choices": {}}\n\n'], BadAnswerError),
        ([b'data: {"choices": [{"index": 1}]}\n\n'], BadAnswerError),
        ([b'data: {"error": {"message": "out of memory", "code": 503}}\n\n'], ServerRefusedError),
        ([b'data: {"error": "no"}\n\n'], ServerRefusedError),
        ([b"data: " + b"x" * 200_000], BadAnswerError),
        ([event([VOCABULARY])], BadAnswerError),
        ([event([-1])], BadAnswerError),
        ([event([True])], BadAnswerError),
        ([event(["11"])], BadAnswerError),
        ([event(None)], BadAnswerError),
        ([event([11] * 5)], BadAnswerError),
        ([event([11, 12]), event([13, 14]), event([15])], BadAnswerError),
        ([event([END, 11])], BadAnswerError),
        ([event([END]), event([11])], BadAnswerError),
        ([event([11], finish="length")], BadAnswerError),
        ([event([11], finish="stop")], BadAnswerError),
        ([event([11], finish="repetition")], BadAnswerError),
        ([event([11], prompt_token_ids=[5, 6])], BadAnswerError),
        ([event([11], logprobs={"token_logprobs": [-0.5, -0.5]})], BadAnswerError),
        ([event([11], logprobs=[])], BadAnswerError),
        ([event([11], logprobs={"token_logprobs": [None]})], NumericsError),
        ([event([11], logprobs={"token_logprobs": [float("nan")]})], NumericsError),
        ([event([11]), event([], finish="abort")], ServerCutError),
        ([event([11]), DONE], ServerCutError),
        ([event([11])], ServerCutError),
        ([], ServerCutError),
    ],
)
async def test_generate_refuses_a_stream_that_vllm_does_not_send(
    stream: list[bytes], wanted: type[EngineError]
) -> None:
    with pytest.raises(wanted):
        await asked(Fake(stream=stream))


@pytest.mark.parametrize(
    ("answer", "wanted", "retry"),
    [
        (PlainTextResponse("bad request", 400), ServerRefusedError, False),
        (PlainTextResponse("too busy", 503), ServerRefusedError, True),
        (PlainTextResponse("slow down", 429), ServerRefusedError, True),
        (PlainTextResponse("x" * 2_000_000, 500), BadAnswerError, False),
        (PlainTextResponse("<html>", 200), BadAnswerError, False),
        (Response(b"", 200, {"content-type": "text/event-stream", "content-encoding": "gzip"}), BadAnswerError, False),
        (Response(b"", 302, {"location": "http://127.0.0.1:9/"}), ServerRefusedError, False),
    ],
)
async def test_generate_refuses_an_answer_that_is_no_stream(
    answer: Response, wanted: type[ServerRefusedError | BadAnswerError], retry: bool
) -> None:
    with pytest.raises(wanted) as caught:
        await asked(Fake(answer=answer))
    assert caught.value.retry is retry


async def silent_after(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
    await asyncio.sleep(600)


async def dripping() -> AsyncIterator[bytes]:
    while True:
        yield event([]) + b": still here\n\n"
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("stream", [silent_after, lambda: silent_after(event([11])), dripping])
async def test_a_silent_server_is_left_and_its_request_aborted(stream: Callable[[], AsyncIterator[bytes]]) -> None:
    fake = Fake(stream=stream)
    async with serving(fake) as url, engine(url, first_s=0.3, next_s=0.2) as made:
        with pytest.raises(ServerSilentError, match=r"0\.[23] s"):
            await answered(made)
        await asyncio.wait_for(fake.closed.wait(), 60)


async def test_a_cancelled_reader_closes_the_stream() -> None:
    fake = Fake(stream=lambda: silent_after(event([11])))
    async with serving(fake) as url, engine(url, next_s=20) as made:
        reading = asyncio.create_task(answered(made))
        await asyncio.wait_for(fake.streaming.wait(), 60)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await asyncio.wait_for(fake.closed.wait(), 60)


async def test_a_reader_that_leaves_closes_the_stream() -> None:
    fake = Fake(stream=lambda: silent_after(event([11])))
    async with serving(fake) as url, engine(url, next_s=20) as made:
        stream = made.generate(PROMPT, max_tokens=4, sampling=GREEDY, seed=SEED, request=REQUEST, end_tokens=[END])
        async with aclosing(stream):
            assert await anext(stream) == [11]
        await asyncio.wait_for(fake.closed.wait(), 60)


async def test_a_dead_socket_is_unreachable() -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with engine(f"http://127.0.0.1:{port}") as made:
        with pytest.raises(ServerUnreachableError):
            await answered(made)
        server.close()
        await server.wait_closed()
        with pytest.raises(ServerUnreachableError, match="start it or correct the URL"):
            await made.check()


async def test_a_socket_that_dies_in_the_middle_cuts_the_answer() -> None:
    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = event([11])
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 9999\r\n\r\n"
        writer.write(head + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(die, "127.0.0.1", 0) as server:
        made = engine(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        with pytest.raises(ServerCutError) as caught:
            await answered(made)
        await made.aclose()
    assert caught.value.tokens == 1


@pytest.mark.parametrize("prompt", [[], [VOCABULARY], [-1]])
async def test_generate_refuses_a_prompt_outside_the_vocabulary(prompt: list[int]) -> None:
    async with engine("http://127.0.0.1:9") as made:
        with pytest.raises(BadRowsError):
            await answered(made, prompt=prompt)


def test_no_profile_but_tokens_only_is_served() -> None:
    with pytest.raises(ProfileRefusedError, match="fp32-strict"):
        VllmEngine(VllmServer(url="http://127.0.0.1:9", model="fake"), MANIFEST, profile=FP32_STRICT)
