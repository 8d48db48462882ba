"""Models on a real chain: published once, read by anybody."""

from __future__ import annotations

import pytest
from chain_tests.anvil import LocalChain

from plait.chain import ChainReader, ChainWriter, ModelRegistryError, RpcAnswerError
from plait.protocol.ids import keccak

MODEL, PROFILES = keccak(b"manifest"), (keccak(b"fp32"), keccak(b"bf16"))


async def test_model_published_is_read_back(chain: LocalChain, reader: ChainReader) -> None:
    writer = ChainWriter(reader, chain.new_key())
    await writer.publish_model(MODEL, 30, PROFILES, "http://127.0.0.1:1/manifest")

    model = await reader.model(MODEL)

    assert model is not None
    assert (model.id, model.publisher, model.blocks, model.profiles) == (MODEL, writer.account, 30, PROFILES)
    assert (model.uri, model.published_at) == ("http://127.0.0.1:1/manifest", chain.anvil.timestamp())
    assert await reader.models() == [MODEL]


async def test_model_unknown_is_none(chain: LocalChain, reader: ChainReader) -> None:
    assert await reader.model(MODEL) is None
    assert await reader.models() == []


async def test_model_published_twice_says_there_is_nothing_to_do(chain: LocalChain, reader: ChainReader) -> None:
    writer = ChainWriter(reader, chain.new_key())
    await writer.publish_model(MODEL, 30, PROFILES, "")

    with pytest.raises(ModelRegistryError, match="nothing to do") as caught:
        await ChainWriter(reader, chain.new_key()).publish_model(MODEL, 30, PROFILES, "")
    assert caught.value.values["publisher"] == writer.account


async def test_block_that_is_not_there_yet_is_an_error(chain: LocalChain, reader: ChainReader) -> None:
    head = await reader.block()

    with pytest.raises(RpcAnswerError, match=f"no block {head.number + 100}"):
        await reader.block(head.number + 100)


async def test_reputation_of_a_stranger_is_nothing(chain: LocalChain, reader: ChainReader) -> None:
    stranger = chain.new_key().address

    assert (await reader.reputation(stranger), await reader.tier(stranger)) == (0, 0)
    assert await reader.tiers([stranger]) == {stranger: 0}
