"""Sealed prompts of on-chain requests: passed on for an open request of this gateway, whatever they hold."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from tests.node.gateway.stand import Stand, fault
from tests.sdk.swarm import tokenizer

from plait.protocol.ids import Address, Hash
from plait.protocol.pb import gateway_pb2
from plait.protocol.sealing import CAPSULE_BYTES, HYBRID, X25519, ContentKey, seal_capsule, seal_prompt
from plait_node.gateway.limits import PROMPT_BODY_BYTES, PROMPTS_BURST, PROMPTS_PER_S

pytestmark = pytest.mark.asyncio(loop_scope="session")

NUMBER, REQUEST = 7, Hash(b"\x07" * 32)
WORDS = "The quokka paints violet lighthouses."
IDS = tuple(tokenizer().encode(WORDS))


@pytest_asyncio.fixture(loop_scope="session")
async def stand(tmp_path: Path) -> Stand:
    made = Stand(tmp_path)
    made.on_chain.open[NUMBER] = (made.me, REQUEST)
    return made


def sealed(stand: Stand, ids: tuple[int, ...] = IDS, *, stop: tuple[str, ...] = ()) -> gateway_pb2.PromptCall:
    """Return a prompt as its payer seals it."""
    key, prekey, worker = ContentKey.generate(), stand.prekey, stand.swarm.worker.owner
    capsule = seal_capsule(key, prekey_public=prekey.message.key, kem=prekey.message.kem, request=REQUEST, node=worker)
    named = gateway_pb2.PromptCapsule(node=worker, prekey=prekey.struct_hash(), sealed=capsule)
    prompt = seal_prompt(key, REQUEST, ids, stop)
    return gateway_pb2.PromptCall(request=REQUEST, capsules=[named], prompt=prompt)


async def bring(
    client: httpx.AsyncClient, call: gateway_pb2.PromptCall | bytes, number: object = NUMBER
) -> httpx.Response:
    body = call if isinstance(call, bytes) else call.SerializeToString()
    return await client.post(f"/v1/requests/{number}/prompt", content=body)


async def test_prompt_of_an_open_request_is_passed_on_and_the_same_again_is_harmless(
    stand: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    call = sealed(stand)
    async with stand.running() as client:
        answers = [await bring(client, call) for _ in range(2)]
        assert [(each.status_code, each.content) for each in answers] == [(202, b"")] * 2
        assert "plait_gateway_prompts_total 2.0" in (await client.get("/metrics")).text

    assert {each.call.SerializeToString() for each in await stand.broker.prompts(REQUEST)} == {call.SerializeToString()}
    for path in stand.folder.rglob("*"):
        assert not path.is_file() or WORDS.encode() not in path.read_bytes()
    assert WORDS not in caplog.text


async def test_prompt_of_the_most_tokens_for_the_most_workers_of_the_largest_kind_passes(stand: Stand) -> None:
    call = sealed(stand, (0xFFFFFFFF,) * 4_096)
    for _ in range(7):
        call.capsules.add(
            node=secrets.token_bytes(20), prekey=bytes(32), sealed=secrets.token_bytes(CAPSULE_BYTES[HYBRID])
        )
    assert len(call.SerializeToString()) < PROMPT_BODY_BYTES
    async with stand.running() as client:
        assert (await bring(client, call)).status_code == 202


async def test_prompt_brought_after_garbage_is_there_as_well(stand: Stand) -> None:
    honest, garbage = sealed(stand), sealed(stand)
    garbage.prompt = secrets.token_bytes(len(garbage.prompt))
    garbage.capsules[0].sealed = secrets.token_bytes(CAPSULE_BYTES[X25519])
    async with stand.running() as client:
        for call in (garbage, honest, garbage):
            assert (await bring(client, call)).status_code == 202

    assert [each.call for each in await stand.broker.prompts(REQUEST)] == [garbage, honest, garbage]


@pytest.mark.parametrize(
    ("number", "request_digest", "owner"),
    [
        (8, REQUEST, None),
        (NUMBER, Hash(b"\x08" * 32), None),
        (NUMBER, REQUEST, Address(b"\x01" * 20)),
    ],
    ids=["unknown or settled", "another digest", "another gateway"],
)
async def test_prompt_of_no_open_request_of_ours_is_refused(
    stand: Stand, number: int, request_digest: Hash, owner: Address | None
) -> None:
    stand.on_chain.open[NUMBER] = (owner or stand.me, REQUEST)
    call = sealed(stand)
    call.request = request_digest
    async with stand.running() as client:
        response = await bring(client, call, number)

    assert (response.status_code, fault(response).code, fault(response).retry) == (404, "unknown_job", False)
    assert await stand.broker.prompts(request_digest) == []


def changed(**values: bytes) -> Callable[[gateway_pb2.PromptCall], None]:
    def change(call: gateway_pb2.PromptCall) -> None:
        for name, value in values.items():
            setattr(call if name in {"request", "prompt"} else call.capsules[0], name, value)

    return change


def doubled(call: gateway_pb2.PromptCall) -> None:
    call.capsules.append(call.capsules[0])


def crowded(call: gateway_pb2.PromptCall) -> None:
    for number in range(8):
        call.capsules.add(node=bytes([number]) * 20, prekey=bytes(32), sealed=bytes(CAPSULE_BYTES[X25519]))


@pytest.mark.parametrize(
    "change",
    [
        changed(request=bytes(31)),
        changed(request=b""),
        changed(prompt=b""),
        changed(prompt=bytes(16)),
        changed(prompt=bytes(1_024)),
        changed(prompt=bytes(1_041)),
        changed(node=bytes(21)),
        changed(prekey=bytes(31)),
        changed(sealed=b""),
        changed(sealed=bytes(CAPSULE_BYTES[X25519] + 1)),
        lambda call: call.ClearField("capsules"),
        doubled,
        crowded,
    ],
)
async def test_prompt_of_another_shape_is_refused_before_the_chain_is_asked(
    stand: Stand, change: Callable[[gateway_pb2.PromptCall], None]
) -> None:
    stand.on_chain.down = True
    call = sealed(stand)
    change(call)
    async with stand.running() as client:
        response = await bring(client, call)

    assert (response.status_code, fault(response).code) == (400, "malformed")
    assert await stand.broker.prompts(REQUEST) == []


async def test_prompt_body_too_large_or_unreadable_is_refused(stand: Stand) -> None:
    async with stand.running() as client:
        large = await bring(client, bytes(PROMPT_BODY_BYTES + 1))
        garbage = await bring(client, b"\xff" * 100)
        words = await bring(client, sealed(stand), "seven")
        negative = await bring(client, sealed(stand), -7)

    assert (large.status_code, fault(large).code) == (413, "too_large")
    assert (garbage.status_code, fault(garbage).code) == (400, "malformed")
    assert [(each.status_code, fault(each).code) for each in (words, negative)] == [(400, "bad_request")] * 2


async def test_prompt_while_chain_or_broker_is_away_may_be_brought_again(stand: Stand) -> None:
    async with stand.running() as client:
        stand.on_chain.down = True
        chain = await bring(client, sealed(stand))
        stand.on_chain.down = False
        await stand.broker.close()
        broker = await bring(client, sealed(stand))

    assert (chain.status_code, fault(chain).code) == (503, "rpc_down")
    assert (broker.status_code, fault(broker).code, fault(broker).retry) == (503, "broker_away", True)


async def test_prompts_from_one_address_are_bounded_and_other_calls_are_not(stand: Stand) -> None:
    async with stand.running() as client:
        codes = [(await bring(client, sealed(stand))).status_code for _ in range(int(PROMPTS_BURST) + 1)]
        assert codes == [202] * int(PROMPTS_BURST) + [429]
        assert (await client.get("/v1/models")).status_code == 200
        stand.now += 1
        codes = [(await bring(client, sealed(stand))).status_code for _ in range(int(PROMPTS_PER_S) + 1)]
        assert codes == [202] * int(PROMPTS_PER_S) + [429]
