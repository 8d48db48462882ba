"""What comes back: the reference's own tokens, by either path, and no word of it where it must not be."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from chain_tests.live.network import MODEL, LiveNetwork, talk
from chain_tests.live.overhearing import Overheard, broker_overheard
from tests.model.smollm2 import PATH, built, chat_ids

from plait import AsyncPlait
from plait.client.stream import AsyncStream
from plait.protocol.commitments import ids_bytes
from plait.protocol.ids import hash32, to_hex
from plait_audit import audit
from plait_model.reference import load_reference

pytestmark = pytest.mark.timeout(900)

QUESTION = "What is the capital of France, and what is it known for?"
TOKENS = 32


async def read(client: AsyncPlait, question: str, *, tokens: int) -> AsyncStream:
    stream = await client.chat.completions.create(
        model=MODEL, messages=talk(question), max_tokens=tokens, temperature=0, stream=True
    )
    async for _ in stream:
        pass
    return stream


def ids_of(stream: AsyncStream) -> tuple[int, ...]:
    return stream._run.verifier.ids


def reference_ids(prompt: tuple[int, ...], count: int) -> list[int]:
    """Return what transformers' own generate answers greedily, on the whole model in fp32."""
    torch.set_num_threads(1)
    model = load_reference(PATH, built().manifest)
    ids = torch.tensor([prompt])
    done = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=count, pad_token_id=0
    )
    return done[0, len(prompt) :].tolist()


async def test_greedy_answer_through_three_processes_is_the_reference_s_token_for_token(
    net: LiveNetwork, tmp_path: Path
) -> None:
    async with net.payer(tmp_path) as client:
        stream = await read(client, QUESTION, tokens=TOKENS)
        route = stream.completion.job.route
        assert [(stage.first, stage.last) for stage in route] == [(0, 10), (10, 20), (20, 30)]
        assert len({stage.node for stage in route}) == 3
        assert len(ids_of(stream)) == TOKENS
        prompt = stream._run.prepared.prompt
    assert list(prompt)[-len(chat_ids(QUESTION)) :] == chat_ids(QUESTION)
    assert list(ids_of(stream)) == await asyncio.to_thread(reference_ids, prompt, TOKENS)


async def test_request_on_chain_is_answered_in_a_transaction_with_the_same_tokens(
    net: LiveNetwork, tmp_path: Path
) -> None:
    fee, key = 10_000, await net.wallet()
    async with net.payer(tmp_path, key=key) as client, net.reader() as reader:
        earned = (await reader.earnings(net.owner("gateway"))).earned
        number = await client.requests.submit(model=MODEL, messages=talk(QUESTION), fee=fee, max_tokens=16)
        assert await reader.token_balance(key.address) == 10_000_000 - fee
        answer = await client.requests.wait(number, timeout=200)
        sent = await net.call("eth_getTransactionByHash", answer.transaction)
        assert sent["from"] == to_hex(net.service_key("worker").address)
        assert ids_bytes(answer.ids).hex() in sent["input"]
        assert any(hash32(answer.receipt))
        assert (await reader.earnings(net.owner("gateway"))).earned >= earned + fee
        assert await reader.open_request(number) is None

        stream = await read(client, QUESTION, tokens=16)
        assert answer.ids == ids_of(stream)
        assert answer.content == stream.completion.choices[0].message.content
        assert (await audit(reader)).findings == ()


async def test_no_word_of_prompt_or_answer_is_left_at_the_gateway_or_the_broker(
    net: LiveNetwork, tmp_path: Path
) -> None:
    question, spy = "Repeat after me: the quokka paints violet lighthouses on Thursdays.", Overheard()
    async with broker_overheard(net.broker) as on_broker, net.payer(tmp_path, transport=spy) as client:
        stream = await client.chat.completions.create(
            model=MODEL, messages=talk(question), max_tokens=24, temperature=0, stream=True
        )
        kept: dict[Path, bytes] = {}
        async for _ in stream:
            if not kept and stream.usage.completion_tokens > 8:
                kept = files(net)  # while the job runs: the broker lets go of what was acknowledged
        text = stream.completion.choices[0].message.content
        prompt, ids, request = stream._run.prepared.prompt, ids_of(stream), hash32(stream.id)
    assert len(text) > 20
    for everything in (kept, files(net), spy.heard(), on_broker):
        # The search would find what is there: the request's name is no secret.
        assert any(request in data for data in everything.values())
        for secret in secrets_of(question, text, prompt, ids):
            assert [path for path, data in everything.items() if secret in data] == []


async def test_request_by_commitment_is_answered_and_its_prompt_is_nowhere_but_at_the_worker(
    net: LiveNetwork, tmp_path: Path
) -> None:
    question = "Repeat after me: the walrus mends purple umbrellas on Sundays."
    async with net.payer(tmp_path) as client, net.reader() as reader:
        prompt = await client.requests.prepare(model=MODEL, messages=talk(question))
        number = await client.requests.submit(
            model=MODEL, messages=talk(question), fee=10_000, max_tokens=16, publish_prompt=False
        )
        kept = files(net)
        answer = await client.requests.wait(number, timeout=200)
        asked = await (await client.edge()).asked(number)
        assert asked is not None
        stream = await read(client, question, tokens=16)
        assert answer.ids == ids_of(stream)
        assert await reader.open_request(number) is None
        assert (await audit(reader)).findings == ()
        blocks = [
            await net.call("eth_getBlockByNumber", hex(at), True) for at in range((await reader.block()).number + 1)
        ]

    everywhere = [kept, files(net), {Path(str(at)): calldata(block) for at, block in enumerate(blocks)}]
    # The searches would find what is there: the request's name lies at the broker, the answer's ids in a transaction.
    assert any(asked.request.hex().encode() in data for data in kept.values())
    assert any(ids_bytes(answer.ids) in data for data in everywhere[2].values())
    words = [question, question[:26], "walrus", "umbrellas"]
    for secret in forms_of(words, (prompt.ids[-20:-8], prompt.ids[-8:])):
        assert [path for everything in everywhere for path, data in everything.items() if secret in data] == []


def calldata(block: dict[str, Any]) -> bytes:
    """Return all that the transactions of a block carry."""
    return b"\0".join(bytes.fromhex(each["input"][2:]) for each in block["transactions"])


def files(net: LiveNetwork) -> dict[Path, bytes]:
    """Return every file that the gateway and the broker keep, and every log."""
    folders = [net.nodes["gateway"].home, net.folder_of("broker"), net.folder_of("logs")]
    return {path: path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}


def secrets_of(question: str, text: str, prompt: tuple[int, ...], ids: tuple[int, ...]) -> list[bytes]:
    """Return the words and tokens of a question and its answer as they may lie somewhere."""
    words = [question, question[:24], "quokka", "lighthouses", text, text[:20]]
    return forms_of(words, (prompt[4:12], prompt[-8:], ids[:4], ids[4:8]))


def forms_of(words: Sequence[str], runs: Sequence[tuple[int, ...]]) -> list[bytes]:
    """Return words, and runs of token ids, in the forms that they may travel and lie in."""
    packed = [ids_bytes(run) for run in runs]
    varints = [b"".join(_varint(each) for each in run) for run in runs]
    little = [b"".join(each.to_bytes(4, "little") for each in run) for run in runs]
    raw = [each.encode() for each in words] + packed + varints + little
    listed = [mark.join(str(each) for each in run).encode() for run in runs for mark in (", ", ",")]
    return raw + listed + [each.hex().encode() for each in raw] + [form for each in raw for form in _base64(each)]


def _base64(data: bytes) -> list[bytes]:
    """Return how bytes look in base64 wherever in a text they begin; what others share a letter with is left off."""
    return [base64.b64encode(bytes(before) + data)[4 * (before > 0) : -4] for before in range(3)]


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
