from __future__ import annotations

import asyncio
from collections.abc import Iterator

import httpx
import pytest
from tests.sdk.client.conftest import ANSWER
from tests.sdk.client.fakes import World, ids_of, says
from tests.sdk.protocol.test_verify import altered
from tests.sdk.swarm import Answer, Event

from plait import Plait
from plait.errors import (
    BusyError,
    RefusedError,
    StageFailedError,
    VerificationError,
)
from plait.protocol.errors import Fault
from plait.protocol.messages import Finish

CHAT = [{"role": "user", "content": "Why is the sky blue?"}]
PROMPT = len("user\nWhy is the sky blue?\nassistant\n") + 3
TOKENS = len(ANSWER.encode()) + 1


def price(tokens: int) -> int:
    return 2 * PROMPT + 8 * tokens


async def test_create_honest_swarm_returns_a_checked_paid_answer(world: World) -> None:
    async with world.client() as client:
        answer = await client.chat.completions.create(model="TINY", messages=CHAT, max_tokens=200)
    assert answer.choices[0].message.content == ANSWER
    assert answer.choices[0].finish_reason == "stop"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (PROMPT, TOKENS)
    assert answer.verification.level == "L0"
    assert answer.verification.statistic["tokens"] == TOKENS
    assert answer.job.method == "plain"
    assert answer.job.reason == "nothing is shared"
    assert [(stage.first, stage.last) for stage in answer.job.route] == [(0, 10), (10, 20), (20, 30)]
    assert answer.receipt.price == answer.paid == price(TOKENS)
    assert answer.acknowledged
    assert world.edge.transactions == ["open"]
    assert world.gateway.payments == [(price(0), 0), (price(65), 65), (price(TOKENS), TOKENS)]


async def test_create_stream_yields_text_as_it_comes(world: World) -> None:
    async with world.client() as client:
        stream = await client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=200, stream=True)
        assert stream.price_of(0) == price(0)
        chunks = [chunk async for chunk in stream]
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert text == stream.completion.choices[0].message.content == ANSWER
        assert chunks[0].choices[0].delta.role == "assistant"
        assert chunks[-1].choices[0].finish_reason == "stop"
        assert chunks[-1].usage == stream.usage
        assert stream.verified_tokens == TOKENS
        assert len(chunks) > 10


def test_create_sync_client_gives_the_same(world: World) -> None:
    with Plait(**world.arguments()) as client:
        stream = client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=200, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == ANSWER
        assert stream.completion.receipt.price == stream.paid == price(TOKENS)
        again = client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=200)
        assert again.choices[0].message.content == ANSWER
        assert {job.status for job in client.jobs.list()} == {"signed"}
        assert client.models.list()[0].name == "tiny"
    assert world.edge.transactions == ["open"]
    assert world.edge.closed


async def test_create_several_at_once_share_one_channel(world: World) -> None:
    async with world.client() as client:
        answers = await asyncio.gather(
            *(client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=100) for _ in range(4))
        )
    assert {answer.choices[0].message.content for answer in answers} == {ANSWER}
    assert world.edge.transactions == ["open"]
    state = world.gateway.book.channels()[0]
    assert state.voucher.message.cumulative == 4 * price(TOKENS)
    assert state.voucher.message.jobs == 4


async def test_create_stop_string_cuts_text_before_it(world: World) -> None:
    world.gateway.script = says(ids_of("one two END")[:-1], Finish.STOP_STRING, chunk=1)
    async with world.client() as client:
        stream = await client.chat.completions.create(
            model="tiny", messages=CHAT, max_tokens=100, stop=["END"], stream=True
        )
        pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(pieces) == stream.completion.choices[0].message.content == "one two "


async def test_create_length_reports_length(world: World) -> None:
    world.gateway.script = says(ids_of(ANSWER)[:7], Finish.LENGTH)
    async with world.client() as client:
        answer = await client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=7)
    assert answer.choices[0].finish_reason == "length"


async def test_stream_line_breaks_resumes_and_loses_nothing(world: World) -> None:
    world.gateway.drop_after = [0, 3, 1, 7]
    async with world.client() as client:
        answer = await client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=200)
    assert answer.choices[0].message.content == ANSWER
    assert sum(call.endswith("/events") for call in world.gateway.calls) == 5


async def test_stream_passing_fault_is_followed_again_and_a_last_one_told_under_any_sequence(world: World) -> None:
    world.gateway.interrupt = [Fault(code="stopped", text="going down", retry=True)]
    async with world.client() as client:
        answer = await client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=200)
        assert answer.choices[0].message.content == ANSWER
        assert sum(call.endswith("/events") for call in world.gateway.calls) == 2
        world.gateway.interrupt = [Fault(code="answer_withheld", text="the receipt is forged")]
        with pytest.raises(RefusedError, match="forged"):
            await client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=200)


async def test_stream_left_early_cancels_and_pays_what_was_checked(world: World) -> None:
    async with world.client() as client:
        stream = await client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=200, stream=True)
        async with stream:
            async for _ in stream:
                if stream.usage.completion_tokens >= 20:
                    break
        assert world.gateway.cancelled == [20]
        assert world.gateway.payments[-1] == (price(20), 20)
        job = await client.jobs.get(stream.id)
    assert (job.status, job.ended, job.paid) == ("signed", "receipt", price(20))


def tampering(kind: str, number: int, variant: int) -> object:
    """Return a script that changes one bit in the `number`th event of a kind."""

    def script(answer: Answer) -> Iterator[Event]:
        seen = 0
        for event in answer.events(ids_of(ANSWER)):
            if event.kind == kind:
                seen += 1
                if seen == number:
                    variants = altered(event)
                    yield variants[variant % len(variants)]
                    continue
            yield event

    return script


@pytest.mark.parametrize("variant", [0, 5, 9])
@pytest.mark.parametrize(
    ("kind", "number", "paid_to"),
    [("job", 1, 0), ("chunk", 3, 0), ("progress", 2, 0), ("progress", 6, 65), ("receipt", 1, 65)],
)
async def test_create_one_bit_changed_refuses_and_signs_no_voucher(
    world: World, kind: str, number: int, paid_to: int, variant: int
) -> None:
    world.gateway.script = tampering(kind, number, variant)
    async with world.client() as client:
        with pytest.raises(VerificationError):
            await client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=200)
        assert world.gateway.payments[-1] == (price(paid_to), paid_to)
        assert world.gateway.book.channels()[0].voucher.message.jobs == 0
        world.gateway.script = says(ids_of(ANSWER))
        answer = await client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=200)
        assert answer.acknowledged


async def test_create_swarm_fails_midway_pays_checked_tokens_only(world: World) -> None:
    def script(answer: Answer) -> Iterator[Event]:
        for event in answer.events([65] * 40, Finish.LENGTH):
            yield event
            if event.kind == "progress" and answer.last_progress.message.to == 17:
                break
        yield Event(kind="chunk", body=(answer.job_hash, answer.chunk([66])))
        yield Event(kind="error", body=Fault(code="stage_failed", text="stage 1 went away", retry=True))

    world.gateway.script = script
    async with world.client() as client:
        stream = await client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=200, stream=True)
        with pytest.raises(StageFailedError, match="went away") as failed:
            async for _ in stream:
                pass
        assert failed.value.retry
        assert failed.value.moved
        job = await client.jobs.get(stream.id)
    assert stream.verified_tokens == 17
    assert job.paid == price(17)
    assert (job.status, job.ended) == ("signed", "aborted")


async def test_create_failed_receipt_pays_it_and_raises(world: World) -> None:
    def script(answer: Answer) -> Iterator[Event]:
        yield from (event for event in answer.events([65] * 18, Finish.FAILED))

    world.gateway.script = script
    async with world.client() as client:
        with pytest.raises(StageFailedError, match="18 checked tokens"):
            await client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=200)
    assert world.gateway.payments[-1] == (price(18), 18)


async def test_create_gateway_refuses_job_gives_the_input_back_as_credit(world: World) -> None:
    world.gateway.refuse["/v1/jobs"] = [Fault(code="busy", text="all lanes are full", retry=True)]
    async with world.client() as client:
        with pytest.raises(BusyError):
            await client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=200)
        state = world.gateway.book.channels()[0]
        assert (state.voucher.message.cumulative, state.credit) == (price(0), price(0))
        await client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=200)
    state = world.gateway.book.channels()[0]
    assert (state.voucher.message.cumulative, state.credit) == (price(TOKENS), 0)


async def test_create_gateway_restarts_before_last_voucher_nothing_is_lost(world: World) -> None:
    world.gateway.refuse["/v1/vouchers"] = [0, httpx.ConnectError, httpx.ConnectError, httpx.ReadTimeout]
    async with world.client() as client:
        answer = await client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=200)
    assert answer.acknowledged
    assert world.gateway.payments[-1] == (price(TOKENS), TOKENS)


async def test_create_gateway_fails_inside_asks_again(world: World) -> None:
    world.gateway.refuse["/v1/jobs"] = [Fault(code="internal", text="disk full", retry=True), 502]
    world.gateway.refuse["events"] = [Fault(code="stopped", text="going down", retry=True)]
    world.gateway.refuse["/v1/vouchers"] = [0, Fault(code="rpc_down", text="no chain", retry=True)]
    async with world.client() as client:
        answer = await client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=200)
    assert answer.acknowledged
    assert world.gateway.payments[0] == (price(0), 0)


async def test_create_after_a_lost_voucher_sends_it_first(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plait.client.purse._PATIENCE", (0.0,))
    world.gateway.refuse["/v1/vouchers"] = [0, httpx.ConnectError, httpx.ConnectError]
    async with world.client() as client:
        answer = await client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=200)
    assert answer.choices[0].message.content == ANSWER
    assert not answer.acknowledged
    assert world.gateway.payments[-1] == (price(65), 65)
    async with world.client() as client:
        again = await client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=200)
    assert again.acknowledged
    assert world.gateway.payments[2:4] == [(price(TOKENS), TOKENS), (price(0), 0)]
    assert world.gateway.book.channels()[0].voucher.message.jobs == 2
