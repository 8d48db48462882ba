"""Requests that come from the chain: a public prompt, no vouchers of the payer, the same receipt."""

from __future__ import annotations

import asyncio
import time
from math import inf
from pathlib import Path

import pytest
from tests.node.stage.coded import answer_ids
from tests.node.stage.network import PROFILE
from tests.node.stage.tiny import MANIFEST
from tests.node.wire.peers import DOMAIN
from tests.node.worker.world import World, until, world

from plait.protocol.commitments import RunningHash, prompt_commitment
from plait.protocol.errors import BadRequestError, DeadlineError
from plait.protocol.ids import HASH_ZERO, Hash, address
from plait.protocol.manifest import FP32_STRICT
from plait.protocol.messages import Finish, Request, Sampling
from plait.protocol.money import stage_fee_of
from plait.protocol.sealing import ContentKey
from plait.protocol.typed import digest
from plait_node.worker import WorkerConfig
from plait_node.worker.serving import Done

PROMPT = [token % 60 for token in range(100)]


def public_request(made: World, **changed: object) -> Request:
    values: dict[str, object] = {
        "payer": address(b"\x05" * 20),
        "gateway": made.who.owner,
        "quote": HASH_ZERO,
        "model": MANIFEST.model_id,
        "profiles": (PROFILE,),
        "prompt": prompt_commitment(ContentKey.public(), PROMPT),
        "sampling": Sampling(temperature=0, top_p=1_000_000, top_k=0, stop=HASH_ZERO),
        "input_tokens": len(PROMPT),
        "max_tokens": 90,
        "max_price": 12_345,
        "seed": Hash(b"\x06" * 32),
        "nonce": Hash(b"\x06" * 32),
        "deadline": int(time.time()) + 600,
    }
    return Request(**(values | changed))  # type: ignore[arg-type]


async def open_on_chain(request: Request, name: Hash) -> bool:
    return digest(DOMAIN, request) == name


@pytest.mark.parametrize("key", [ContentKey.public(), ContentKey(b"\x07" * 32)], ids=["public", "by commitment"])
async def test_worker_answers_a_request_from_the_chain_beyond_its_credit_line(tmp_path: Path, key: ContentKey) -> None:
    async with world(tmp_path, on_chain=open_on_chain) as made:
        request = public_request(made, prompt=prompt_commitment(key, PROMPT))
        done = await made.role.run_onchain(request, PROMPT, key, begin_before=inf)
        name = digest(DOMAIN, request)
        assert list(done.ids) == answer_ids(request, name, PROMPT, 90, profile=FP32_STRICT)
        receipt = done.receipt.message
        assert (receipt.request, receipt.price, receipt.finish) == (name, 12_345, Finish.LENGTH)
        assert receipt.output_tokens == 90
        running = RunningHash(key, name)
        assert receipt.tokens == running.extend(done.ids)
        assert done.receipt_digest == done.receipt.digest(DOMAIN)
        found = await made.lookup.receipt(name, made.who.owner)
        assert found is not None
        assert found.covers(DOMAIN, done.receipt)

        await until(lambda: not made.role.busy)
        for job in made.book.jobs():
            node = next(node for node in made.net.nodes if node.identity.owner == job.payee)
            assert job.leaf is not None
            assert job.leaf.hash == done.receipt_digest
            assert job.leaf.hop_amount == stage_fee_of(node.stage, len(PROMPT) + 89)


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"prompt": Hash(b"\x01" * 32)}, "commits to"),
        ({"prompt": prompt_commitment(ContentKey(b"\x07" * 32), PROMPT)}, "commits to"),
        ({"gateway": address(b"\x09" * 20)}, "names this node"),
        ({"profiles": (PROFILE, Hash(b"\x08" * 32))}, "one profile"),
    ],
)
async def test_worker_refuses_a_request_from_the_chain_that_is_not_its_own(
    tmp_path: Path, changed: dict[str, object], text: str
) -> None:
    async with world(tmp_path, on_chain=open_on_chain) as made:
        with pytest.raises(BadRequestError, match=text):
            await made.role.run_onchain(public_request(made, **changed), PROMPT, ContentKey.public(), begin_before=inf)


async def test_worker_without_room_in_time_does_not_begin(tmp_path: Path) -> None:
    async with world(tmp_path, on_chain=open_on_chain) as made:
        public = ContentKey.public()

        def run(number: int, begin_before: float) -> asyncio.Task[Done]:
            request = public_request(made, nonce=Hash(bytes([number]) * 32))
            return asyncio.create_task(made.role.run_onchain(request, PROMPT, public, begin_before=begin_before))

        running = [run(number, inf) for number in range(WorkerConfig(group=b"").parallel_jobs)]
        await asyncio.sleep(0)
        late = run(9, time.time() + 0.05)

        with pytest.raises(DeadlineError, match="no room in time"):
            await late
        assert all(done.receipt.message.finish == Finish.LENGTH for done in await asyncio.gather(*running))
