"""The engine and plait's sampler with a real vLLM; runs where tools/vllm_env.sh has made its environment."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace

import httpx
import pytest
import torch
from bench.peers.models import folder
from bench.peers.vllm import INSTALLED, VllmPeer
from tests.model.smollm2 import PATH, TIE, built, greedy_answers

from plait.protocol.ids import HASH_ZERO, Hash, keccak
from plait.protocol.messages import Sampling
from plait_model.reference import load_reference
from plait_model.sampler import SampledToken, sample
from plait_node.engine.vllm import TOKENS_ONLY, VllmEngine, VllmServer, flags

pytestmark = [
    pytest.mark.xdist_group("vllm"),  # one server for all of them
    pytest.mark.skipif(
        not INSTALLED.is_file(), reason="no vLLM here: run tools/vllm_env.sh (3.4 GB) to try the real one"
    ),
    pytest.mark.timeout(700),  # a server starts in one to two minutes, on a busy machine in five
]
NEW = 24
SEED = keccak(b"seed")
GREEDY = Sampling(temperature=0, top_p=1_000_000, top_k=0, stop=HASH_ZERO)
DRAWN = Sampling(temperature=900_000, top_p=950_000, top_k=50, stop=HASH_ZERO)
# A draw that was won by less than this may fall otherwise: vLLM adds up in another order.
UNSURE = 1e-3


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    weights = folder("smollm2-135m", PATH, dtype="float32")
    chosen = flags({"weights": "fp32", "compiled": False, "chunked-prefill": 256, "batching": 16})
    with VllmPeer(weights, model="smollm2-135m", dtype="float32", flags=chosen) as peer:
        yield peer.url


def engine(url: str) -> VllmEngine:
    manifest = replace(built().manifest, profiles=(TOKENS_ONLY,))
    return VllmEngine(VllmServer(url=url, model="plait"), manifest, profile=TOKENS_ONLY)


async def answer(
    made: VllmEngine,
    prompt: Sequence[int],
    *,
    sampling: Sampling = GREEDY,
    request: Hash = HASH_ZERO,
    start: int = 0,
    new: int = NEW,
    end_tokens: Sequence[int] = (),
) -> list[int]:
    stream = made.generate(
        prompt, max_tokens=new, sampling=sampling, seed=SEED, request=request, start=start, end_tokens=end_tokens
    )
    async with aclosing(stream):
        return [one async for ids in stream for one in ids]


def draws(prompt: Sequence[int], tokens: Sequence[int], request: Hash) -> list[SampledToken]:
    """Draw every token again, from the reference's logits over vLLM's own tokens."""
    model = load_reference(PATH, built().manifest)
    with torch.inference_mode():
        logits = model(torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 : -1].numpy()
    return [
        sample(row, seed=SEED, request=request, position=position, sampling=DRAWN)
        for position, row in enumerate(logits)
    ]


async def test_vllm_answers_as_the_reference_and_draws_as_the_sampler(url: str) -> None:
    asked = greedy_answers()[:4]
    requests = [keccak(bytes([number])) for number in range(4)]
    async with engine(url) as made:
        await made.check()
        assert (made.max_steps, made.draws) == (2_048, True)
        pairs = zip(asked, requests, strict=True)
        together = [answer(made, one.prompt, sampling=DRAWN, request=request) for one, request in pairs]
        tokens = await asyncio.gather(*(answer(made, one.prompt) for one in asked), *together)
        greedy, drawn = tokens[:4], tokens[4:]
        again = await answer(made, [*asked[0].prompt, *drawn[0][:9]], sampling=DRAWN, request=requests[0], start=9)

    for one, got in zip(asked, greedy, strict=True):
        clear = next((at for at, gap in enumerate(one.gaps[:NEW]) if gap < TIE), NEW)
        assert got[:clear] == one.answer[:clear]
    for one, got, request in zip(asked, drawn, requests, strict=True):
        for token, wanted in zip(got, draws(one.prompt, got, request), strict=True):
            assert token == wanted.id or wanted.margin < UNSURE
    assert len({tuple(got) for got in tokens}) == 8
    assert again[: NEW - 9] == drawn[0][9:]


async def test_vllm_ends_at_an_end_token_and_aborts_what_nobody_reads(url: str) -> None:
    one = greedy_answers()[0]
    async with engine(url) as made:
        await made.check()
        assert await answer(made, one.prompt, end_tokens=[one.answer[3]]) == one.answer[:4]
        stream = made.generate(
            one.prompt, max_tokens=1_500, sampling=GREEDY, seed=SEED, request=HASH_ZERO, end_tokens=[]
        )
        async with aclosing(stream):
            assert await anext(stream) == one.answer[:1]
            assert await running(url) == 1
        for _ in range(100):
            if not await running(url):
                return
            await asyncio.sleep(0.1)
    pytest.fail("vLLM still computes an answer whose reader left")


async def running(url: str) -> float:
    async with httpx.AsyncClient(trust_env=False) as client:
        text = (await client.get(f"{url}/metrics")).text
    lines = [line for line in text.splitlines() if line.startswith("vllm:num_requests_running")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)
