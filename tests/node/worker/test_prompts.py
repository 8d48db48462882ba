"""Prompts that came off chain: opened with the worker's own prekeys, and whatever else was brought is dropped."""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.node.wire.peers import DOMAIN

from plait.protocol.errors import PlaitError
from plait.protocol.ids import Address, Hash
from plait.protocol.messages import Prekey
from plait.protocol.pb import gateway_pb2
from plait.protocol.sealing import HYBRID, X25519, ContentKey, seal_capsule, seal_prompt
from plait.protocol.typed import Key, Signed
from plait_node.broker import MemoryBroker
from plait_node.worker import PrekeyRing, PromptBox

NODE, OTHER = Address(b"\x07" * 20), Address(b"\x09" * 20)
REQUEST, SECOND = Hash(b"\x08" * 32), Hash(b"\x0a" * 32)
IDS, KEY = [1, 70_000, 3], ContentKey(b"\x05" * 32)
NOW = 1_700_000_000.0


@pytest.fixture
async def broker() -> AsyncIterator[MemoryBroker]:
    made = MemoryBroker(lambda: NOW)
    yield made
    await made.close()


def ring_of(folder: Path, kem: int = X25519) -> PrekeyRing:
    return PrekeyRing(folder / "prekeys.json", key=Key.generate(), domain=DOMAIN, node=NODE, clock=lambda: NOW, kem=kem)


def sealed(
    prekey: Signed[Prekey],
    *,
    request: Hash = REQUEST,
    sealed_to: Hash = REQUEST,
    node: Address = NODE,
    key: ContentKey = KEY,
    stop: tuple[str, ...] = (),
) -> gateway_pb2.PromptCall:
    public = prekey.message
    capsule = seal_capsule(KEY, prekey_public=public.key, kem=public.kem, request=sealed_to, node=node)
    named = gateway_pb2.PromptCapsule(node=node, prekey=prekey.struct_hash(), sealed=capsule)
    return gateway_pb2.PromptCall(request=request, capsules=[named], prompt=seal_prompt(key, sealed_to, IDS, stop))


@pytest.mark.parametrize("kem", [X25519, HYBRID])
async def test_prompt_sealed_to_the_ring_s_prekey_is_opened_once(
    tmp_path: Path, broker: MemoryBroker, kem: int
) -> None:
    ring = ring_of(tmp_path, kem)
    box = PromptBox(broker, prekeys=ring, owner=NODE)
    call = sealed(ring.current())
    call.capsules.insert(0, gateway_pb2.PromptCapsule(node=OTHER, prekey=bytes(32), sealed=bytes(80)))
    await broker.bring_prompt(REQUEST, call)

    ((ids, key),) = await box.opened(REQUEST)

    assert (ids, key.secret_bytes(), box.dropped) == (IDS, KEY.secret_bytes(), 0)
    assert await box.opened(REQUEST) == []
    box.keep([REQUEST])
    assert await box.opened(REQUEST) == []
    box.keep([SECOND])
    assert len(await box.opened(REQUEST)) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"sealed_to": SECOND},
        {"node": OTHER},
        {"key": ContentKey(b"\x06" * 32)},
        {"stop": ("stop",)},
    ],
)
async def test_prompt_of_no_use_is_dropped_counted_and_kept_out_of_the_log(
    tmp_path: Path, broker: MemoryBroker, caplog: pytest.LogCaptureFixture, wrong: dict[str, object]
) -> None:
    ring = ring_of(tmp_path)
    box = PromptBox(broker, prekeys=ring, owner=NODE)
    await broker.bring_prompt(REQUEST, sealed(ring.current(), **wrong))  # type: ignore[arg-type]
    await broker.bring_prompt(REQUEST, sealed(ring.current()))

    with caplog.at_level(logging.DEBUG):
        found = await box.opened(REQUEST)

    assert ([ids for ids, _ in found], box.dropped) == ([IDS], 1)
    (line,) = [each for each in caplog.records if "prompt dropped" in each.getMessage()]
    assert line.levelno == logging.DEBUG


async def test_prompt_sealed_to_a_prekey_that_is_gone_is_dropped(tmp_path: Path, broker: MemoryBroker) -> None:
    (tmp_path / "other").mkdir()
    box = PromptBox(broker, prekeys=ring_of(tmp_path), owner=NODE)
    await broker.bring_prompt(REQUEST, sealed(ring_of(tmp_path / "other").current()))

    assert (await box.opened(REQUEST), box.dropped) == ([], 1)


def test_bytes_of_any_kind_are_dropped(tmp_path_factory: pytest.TempPathFactory) -> None:
    ring = ring_of(tmp_path_factory.mktemp("ring"))
    honest = sealed(ring.current())
    box = PromptBox(MemoryBroker(lambda: NOW), prekeys=ring, owner=NODE)

    @settings(max_examples=100, deadline=None)
    @given(capsule=st.binary(max_size=100), prompt=st.binary(max_size=1_100), prekey=st.booleans())
    def run(capsule: bytes, prompt: bytes, *, prekey: bool) -> None:
        named = gateway_pb2.PromptCapsule(
            node=NODE, prekey=honest.capsules[0].prekey if prekey else secrets.token_bytes(32), sealed=capsule
        )
        call = gateway_pb2.PromptCall(request=REQUEST, capsules=[named], prompt=prompt)
        with pytest.raises(PlaitError):
            box._open(REQUEST, call)
        for zeros in (bytes(80), bytes(32) + capsule[:48].ljust(48, b"\0")):
            named.sealed = zeros  # a point of small order as the ephemeral key
            with pytest.raises(PlaitError):
                box._open(REQUEST, call)

    run()
