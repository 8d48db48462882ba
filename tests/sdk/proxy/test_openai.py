"""The proxy as the real `openai` package sees it: unmodified, told nothing but a base URL."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from pathlib import Path

import pytest
from openai import APIError, APIStatusError, AuthenticationError, BadRequestError, NotFoundError, OpenAI
from tests.sdk.client.conftest import ANSWER
from tests.sdk.client.fakes import World, ids_of, says
from tests.sdk.client.test_ask import CHAT, PROMPT, TOKENS, price, tampering
from tests.sdk.client.test_real_gateway import real
from tests.sdk.proxy.stand import Paced, proxied

from plait.protocol.errors import Fault
from plait.protocol.messages import Finish
from plait.proxy import Access, Limits

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs" / "proxy.md"


async def test_openai_chat_is_answered_whole(world: World) -> None:
    async with world.client() as client, proxied(client) as there, there.openai() as ai:
        answer = await ai.chat.completions.create(model="tiny", messages=CHAT, max_tokens=200, user="ada")
    assert answer.choices[0].message.content == ANSWER
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == PROMPT + TOKENS
    assert answer.system_fingerprint
    assert answer._request_id == answer.id
    assert answer.plait["cost"] == str(price(TOKENS))


async def test_openai_stream_brings_text_reason_and_usage(world: World) -> None:
    async with world.client() as client, proxied(client) as there, there.openai() as ai:
        stream = await ai.chat.completions.create(
            model="tiny",
            messages=CHAT,
            max_completion_tokens=200,
            stream=True,
            stream_options={"include_usage": True},
        )
        *chunks, usage = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == ANSWER
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert len(chunks) > 10
    assert usage.choices == []
    assert (usage.usage.prompt_tokens, usage.usage.completion_tokens) == (PROMPT, TOKENS)


async def test_openai_streaming_helper_gathers_the_answer(world: World) -> None:
    async with (
        world.client() as client,
        proxied(client) as there,
        there.openai() as ai,
        ai.chat.completions.stream(model="tiny", messages=CHAT, max_tokens=200) as stream,
    ):
        async for _ in stream:
            pass
        whole = await stream.get_final_completion()
    assert whole.choices[0].message.content == ANSWER


async def test_openai_completions_are_answered_whole_and_streamed(world: World) -> None:
    async with world.client() as client, proxied(client) as there, there.openai() as ai:
        answer = await ai.completions.create(model="tiny", prompt="Why?", max_tokens=200)
        stream = await ai.completions.create(model="tiny", prompt=[87, 104, 121], max_tokens=200, stream=True)
        pieces = [chunk.choices[0].text async for chunk in stream]
    assert answer.choices[0].text == "".join(pieces) == ANSWER
    assert answer.usage.prompt_tokens == 4


async def test_openai_sync_client_sends_stop_strings(world: World) -> None:
    world.gateway.script = says(ids_of("one two END")[:-1], Finish.STOP_STRING, chunk=1)

    def ask(url: str) -> str:
        with OpenAI(base_url=url, api_key="any", max_retries=0) as ai:
            answer = ai.chat.completions.create(model="tiny", messages=CHAT, max_tokens=100, stop=["END"], seed=7)
        assert answer.choices[0].finish_reason == "stop"
        return answer.choices[0].message.content

    async with world.client() as client, proxied(client) as there:
        assert await asyncio.to_thread(ask, f"{there.url}/v1") == "one two "
    (held,) = world.gateway.jobs.values()
    assert held.request.seed == (7).to_bytes(32, "big")
    assert held.answer.stop == ["END"]


async def test_openai_models_are_listed_and_found_by_name_and_id(world: World) -> None:
    async with world.client() as client, proxied(client) as there, there.openai() as ai:
        (listed,) = (await ai.models.list()).data
        assert (listed.id, listed.object, listed.created) == ("tiny", "model", 1)
        assert listed.owned_by == "0x" + "01" * 20
        by_id = await ai.models.retrieve(listed.plait["model"])
        assert by_id == listed == await ai.models.retrieve("Tiny")
        with pytest.raises(NotFoundError, match="served now: tiny"):
            await ai.models.retrieve("gpt-9/large")


async def test_openai_is_told_what_is_not_supported(world: World) -> None:
    async with world.client() as client, proxied(client) as there, there.openai() as ai:
        for extra in ({"n": 2}, {"tools": [{"type": "function", "function": {"name": "f"}}]}, {"logprobs": True}):
            with pytest.raises(BadRequestError) as refusal:
                await ai.chat.completions.create(model="tiny", messages=CHAT, **extra)
            assert refusal.value.param == next(iter(extra))
            assert refusal.value.code == "unsupported_parameter"
        with pytest.raises(NotFoundError) as unknown:
            await ai.chat.completions.create(model="gpt-9", messages=CHAT)
        assert unknown.value.code == "model_not_found"


async def test_openai_stream_that_fails_a_check_raises(world: World) -> None:
    world.gateway.script = tampering("progress", 6, 0)
    async with world.client() as client, proxied(client) as there, there.openai(max_retries=2) as ai:
        stream = await ai.chat.completions.create(model="tiny", messages=CHAT, max_tokens=200, stream=True)
        reasons: Counter[str | None] = Counter()
        with pytest.raises(APIError) as failed:
            async for chunk in stream:
                reasons[chunk.choices[0].finish_reason] += 1
    assert failed.value.code == "verification"
    assert reasons[None] == reasons.total() > 10
    assert len(world.gateway.jobs) == 1


async def test_openai_repeats_what_cost_nothing_and_nothing_that_was_paid(world: World) -> None:
    world.gateway.refuse["/v1/jobs"] = [Fault(code="busy", text="all lanes are full", retry=True)]
    async with world.client() as client, proxied(client) as there, there.openai(max_retries=2) as ai:
        answer = await ai.chat.completions.create(model="tiny", messages=CHAT, max_tokens=200)
        assert answer.choices[0].message.content == ANSWER
        world.gateway.script = tampering("receipt", 1, 0)
        world.gateway.jobs.clear()
        with pytest.raises(APIStatusError) as failed:
            await ai.chat.completions.create(model="tiny", messages=CHAT, max_tokens=200)
        assert failed.value.status_code == 502
        assert len(world.gateway.jobs) == 1


async def test_openai_hears_of_the_limit_and_does_not_insist(world: World) -> None:
    limits = Limits(per_request=100, total=10**6)
    async with world.client() as client, proxied(client, limits=limits) as there, there.openai(max_retries=2) as ai:
        quotes = world.gateway.calls.count("POST /v1/quotes")
        with pytest.raises(APIStatusError, match="--max-per-request") as refused:
            await ai.chat.completions.create(model="tiny", messages=CHAT)
        assert (refused.value.status_code, refused.value.code) == (402, "max_per_request")
        assert world.gateway.calls.count("POST /v1/quotes") == quotes + 1
    assert world.gateway.payments == []


async def test_openai_stream_left_early_stops_the_job(world: World) -> None:
    paced = Paced(world, after=20)
    async with (
        world.client(transport=paced.transport()) as client,
        proxied(client) as there,
        there.openai() as ai,
    ):
        stream = await ai.chat.completions.create(model="tiny", messages=CHAT, max_tokens=200, stream=True)
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break
        await stream.close()
        await there.settled()
        (to,) = world.gateway.cancelled
        assert price(to) <= there.spending.spent < price(TOKENS)


async def test_openai_key_is_checked_where_one_is_set(world: World) -> None:
    async with world.client() as client, proxied(client, access=Access(key="s3cret")) as there:
        async with there.openai() as ai:
            with pytest.raises(AuthenticationError):
                await ai.models.list()
        async with there.openai(api_key="s3cret") as ai:
            assert (await ai.models.list()).data


async def test_openai_asks_a_real_gateway_and_pays_to_the_unit(world: World, tmp_path: Path) -> None:
    async with (
        real(world, tmp_path / "node") as behind,
        proxied(behind.client) as there,
        there.openai() as ai,
    ):
        whole = await ai.chat.completions.create(model="tiny", messages=CHAT, max_tokens=200)
        stream = await ai.chat.completions.create(
            model="tiny", messages=CHAT, max_tokens=200, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        assert whole.choices[0].message.content == ANSWER
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == ANSWER
        assert chunks[-1].usage.completion_tokens == TOKENS
        (state,) = behind.stand.book.channels()
        assert state.voucher.message.cumulative == there.spending.spent == 2 * price(TOKENS)


async def test_openai_hears_that_a_real_gateways_worker_failed(world: World, tmp_path: Path) -> None:
    async with (
        real(world, tmp_path / "node") as behind,
        proxied(behind.client) as there,
        there.openai(max_retries=2) as ai,
    ):
        behind.worker.fail_after = 6
        with pytest.raises(APIStatusError, match="went away") as failed:
            await ai.chat.completions.create(model="tiny", messages=CHAT, max_tokens=200)
        assert (failed.value.status_code, failed.value.code) == (502, "stage_failed")
        (job,) = await behind.client.jobs.list()
        assert there.spending.spent == job.paid


async def test_openai_example_of_the_documentation_works(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)

    async with world.client() as client, proxied(client) as there:
        here = example.replace("http://127.0.0.1:8780", there.url).replace("smollm2-135m", "tiny")
        await asyncio.to_thread(exec, here, {})
    assert ANSWER in capsys.readouterr().out
