"""Nodes and their keys on a real chain: register, prove a key, stake, leave."""

from __future__ import annotations

import pytest
from chain_tests.anvil import LocalChain

from plait.chain import GATEWAY, STAGE, WORKER, CachedDirectory, ChainReader, ChainWriter, NodeRegistryError, TokenError
from plait.protocol.typed import Key

STAKE = 150_000_000


async def staked(chain: LocalChain, reader: ChainReader, *, roles: int = STAGE) -> tuple[ChainWriter, Key]:
    writer = ChainWriter(reader, chain.new_key())
    await writer.mint(writer.account, 10 * STAKE)
    await writer.register_node(roles, "dht://127.0.0.1:1", bytes(range(32)))
    service = Key.generate()
    await writer.add_service_key(service)
    await writer.stake(STAKE)
    return writer, service


async def test_node_registered_and_staked_is_read_back(chain: LocalChain, reader: ChainReader) -> None:
    writer, service = await staked(chain, reader, roles=GATEWAY | WORKER)

    node = await reader.node(writer.account)

    assert node is not None
    assert (node.owner, node.roles, node.stake) == (writer.account, GATEWAY | WORKER, STAKE)
    assert (node.active, node.jailed) == (True, False)
    assert (node.endpoint, node.dht_key) == ("dht://127.0.0.1:1", bytes(range(32)))
    assert node.service_key == service.address
    assert [each.owner for each in await reader.nodes(WORKER)] == [writer.account]
    assert await reader.nodes(STAGE) == []


async def test_node_unknown_is_none(chain: LocalChain, reader: ChainReader) -> None:
    stranger = Key.generate().address

    assert await reader.node(stranger) is None
    assert await reader.service_key(stranger) is None
    assert not await reader.active(stranger)


async def test_node_without_stake_is_not_listed(chain: LocalChain, reader: ChainReader) -> None:
    writer = ChainWriter(reader, chain.new_key())
    await writer.register_node(STAGE, "")

    assert await reader.nodes(STAGE) == []
    node = await reader.node(writer.account)
    assert node is not None
    assert not node.active


async def test_service_key_revoked_keeps_its_owner(chain: LocalChain, reader: ChainReader) -> None:
    writer, service = await staked(chain, reader)
    await writer.revoke_service_key(service.address)

    known = await reader.service_key(service.address)

    assert known is not None
    assert known.owner == writer.account
    assert 0 < known.valid_from <= known.revoked_at
    assert await reader.service_keys_of(writer.account) == (service.address,)


async def test_service_key_of_another_node_is_refused_with_values(chain: LocalChain, reader: ChainReader) -> None:
    first, service = await staked(chain, reader)
    second = ChainWriter(reader, chain.new_key())
    await second.register_node(STAGE, "")

    with pytest.raises(NodeRegistryError) as caught:
        await second.add_service_key(service)

    assert caught.value.error == "NodeRegistry_KeyTaken"
    assert caught.value.values == {"key": service.address, "owner": first.account}
    assert "make a new service key" in caught.value.text


async def test_stake_without_tokens_says_what_is_missing(chain: LocalChain, reader: ChainReader) -> None:
    writer = ChainWriter(reader, chain.new_key())
    await writer.register_node(STAGE, "")

    with pytest.raises(TokenError) as caught:
        await writer.stake(STAKE)

    assert caught.value.error == "ERC20InsufficientBalance"
    assert caught.value.values["needed"] == STAKE


async def test_unbonding_leaves_after_its_delay(chain: LocalChain, reader: ChainReader) -> None:
    writer, _ = await staked(chain, reader)
    before = await reader.token_balance(writer.account)
    await writer.unbond(STAKE)
    with pytest.raises(NodeRegistryError) as caught:
        await writer.withdraw_unbonded()
    assert caught.value.error == "NodeRegistry_StillUnbonding"

    chain.anvil.increase_time(chain.deployment.parameters.unbonding_delay + 1)
    await writer.withdraw_unbonded()

    assert await reader.token_balance(writer.account) == before + STAKE
    assert not await reader.active(writer.account)


async def test_directory_answers_from_memory_until_its_time_is_over(chain: LocalChain, reader: ChainReader) -> None:
    now = 0.0
    directory = CachedDirectory(reader, 15.0, clock=lambda: now)
    writer, service = await staked(chain, reader)
    assert await directory.active(writer.account)
    key = await directory.service_key(service.address)
    assert key is not None
    assert key.owner == writer.account
    await writer.unbond(STAKE)

    now = 14.9
    assert await directory.active(writer.account)
    now = 15.0
    assert not await directory.active(writer.account)
