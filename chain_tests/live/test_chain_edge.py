"""The edge itself: wrong endpoints, wrong deployments, nonces, fees, reverts, reorganisations."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest
from chain_tests.anvil import Anvil, LocalChain, deployer_key, switch
from chain_tests.channel_cases import eventually

from plait.chain import (
    LOCAL,
    ChainReader,
    ChainWriter,
    Checkpoint,
    ContractError,
    Deployment,
    GasMoneyError,
    Lane,
    NonceTakenError,
    Patience,
    PendingError,
    ReorgError,
    Rpc,
    RpcDownError,
    RpcRefusedError,
    TokenError,
    Transaction,
    WrongChainError,
    WrongCodeError,
    deploy,
    read_logs,
)
from plait.chain.plan import contract_address
from plait.protocol.ids import Address, Hash, keccak, to_hex
from plait.protocol.typed import Key

QUICK = Patience(deadline_s=4.0, bump_after_s=0.2, poll_s=0.02, slowest_poll_s=0.05)


async def test_deployment_on_another_chain_says_which(chain: LocalChain) -> None:
    with Anvil(chain_id=7) as other, pytest.raises(WrongChainError) as caught:
        await ChainReader.connect(other.url, chain.deployment)

    assert (caught.value.expected, caught.value.found) == (31_337, 7)
    assert "use an endpoint of chain 31337" in caught.value.text


async def test_deployment_on_a_restarted_chain_says_deploy_again(chain: LocalChain) -> None:
    with Anvil() as fresh:
        with pytest.raises(WrongCodeError) as caught:
            await ChainReader.connect(fresh.url, chain.deployment)
        assert "deploy again" in caught.value.text
        fresh.rpc("evm_increaseTime", 100)
        again = await deploy(fresh.url, deployer_key(), LOCAL)

        assert again.addresses == chain.deployment.addresses
        assert again.identity != chain.deployment.identity
        with pytest.raises(ReorgError):
            await ChainReader.connect(fresh.url, chain.deployment)


async def test_deployment_with_other_code_is_refused(chain: LocalChain) -> None:
    at = chain.deployment.address("Channels")
    chain.anvil.rpc("anvil_setCode", "0x" + at.hex(), "0x6000")

    with pytest.raises(WrongCodeError, match="other code than was deployed"):
        await ChainReader.connect(chain.url, chain.deployment)


async def test_deployment_survives_its_file(chain: LocalChain, tmp_path: Path) -> None:
    chain.deployment.save(tmp_path / "deep" / "31337.json")

    loaded = Deployment.load(tmp_path / "deep" / "31337.json")

    assert loaded == chain.deployment
    async with await ChainReader.connect(chain.url, loaded) as reader:
        assert (await reader.view("Channels", "feeBps"))[0] == LOCAL.fee_bps
        assert (await reader.view("NodeRegistry", "channels"))[0] == loaded.address("Channels")


async def test_deployment_twice_from_one_key_is_two_deployments(chain: LocalChain) -> None:
    first = await deploy(chain.url, chain.keys[0], LOCAL)
    second = await deploy(chain.url, chain.keys[0], LOCAL)

    assert set(first.addresses.values()).isdisjoint(second.addresses.values())
    assert second.address("Token") == contract_address(chain.keys[0].address, 6)


async def test_endpoint_down_names_itself_without_its_key(chain: LocalChain) -> None:
    async with switch(chain.url) as (url, turn):
        turn(False)
        with pytest.raises(RpcDownError) as caught:
            await ChainReader.connect(url + "/v3/secret-key?token=secret", chain.deployment, timeout_s=2.0)

    assert caught.value.url == url
    assert "secret" not in caught.value.text
    assert caught.value.retry


async def test_endpoint_that_never_answers_ends_at_the_deadline() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, Rpc(f"http://127.0.0.1:{port}", timeout_s=0.3) as rpc:
        async with asyncio.timeout(30.0):
            with pytest.raises(RpcDownError):
                await rpc.chain_id()


async def test_two_sends_at_once_get_two_nonces(chain: LocalChain, reader: ChainReader) -> None:
    writer = ChainWriter(reader, chain.new_key())
    chain.anvil.automine(on=False)
    tasks = [asyncio.create_task(writer.mint(writer.account, 10 + each)) for each in range(5)]
    await eventually(lambda: chain.anvil.sent(writer.account) == 5)
    chain.anvil.mine()

    results = await asyncio.gather(*tasks)

    assert len({each.hash for each in results}) == 5
    assert len({each.block for each in results}) == 1
    assert await reader.token_balance(writer.account) == 60


@pytest.mark.parametrize("automine", [True, False])
async def test_two_programs_with_one_key_both_get_through(
    chain: LocalChain, reader: ChainReader, automine: bool
) -> None:
    key = chain.new_key()
    chain.anvil.automine(on=automine)
    writers = [ChainWriter(reader, key), ChainWriter(reader, key)]
    # Different amounts: two equal transactions with one nonce are one transaction.
    tasks = [asyncio.create_task(writers[each % 2].mint(key.address, 1 << each)) for each in range(6)]
    await eventually(lambda: chain.anvil.sent(key.address) == 6)
    if not automine:
        chain.anvil.mine()

    results = await asyncio.gather(*tasks)

    assert len({each.hash for each in results}) == 6
    assert await reader.token_balance(key.address) == 63


async def test_transaction_that_no_block_takes_is_pending_and_bumped(chain: LocalChain, reader: ChainReader) -> None:
    writer = ChainWriter(reader, chain.new_key(), patience=QUICK)
    chain.anvil.automine(on=False)
    seen: list[Transaction] = []

    with pytest.raises(PendingError) as caught:
        await writer.send("Token", "mint", writer.account, 5, journal=seen.append)

    assert len(seen) >= 2
    assert {each.nonce for each in seen} == {0}
    assert all(later.max_fee >= earlier.max_fee * 11 // 10 for earlier, later in itertools.pairwise(seen))
    assert all(later.tip >= earlier.tip * 11 // 10 for earlier, later in itertools.pairwise(seen))
    assert caught.value.hashes == tuple(each.hash for each in seen)
    chain.anvil.automine(on=True)
    chain.anvil.mine()
    result = await writer.resume(seen)
    assert result.hash in caught.value.hashes
    assert await reader.token_balance(writer.account) == 5


async def test_resume_after_another_transaction_took_the_nonce_is_refused(
    chain: LocalChain, reader: ChainReader
) -> None:
    key = chain.new_key()
    writer = ChainWriter(reader, key)
    seen: list[Transaction] = []

    def stop(tx: Transaction) -> None:
        seen.append(tx)
        raise InterruptedError

    with pytest.raises(InterruptedError):
        await writer.send("Token", "mint", writer.account, 5, journal=stop)
    await writer.mint(writer.account, 7)

    with pytest.raises(NonceTakenError):
        await Lane(reader.rpc, key, 31_337).resume(seen)
    assert await reader.token_balance(writer.account) == 7


async def test_key_without_coins_says_so(chain: LocalChain, reader: ChainReader) -> None:
    poor = ChainWriter(reader, Key.generate())

    with pytest.raises(GasMoneyError) as caught:
        await poor.mint(poor.account, 1)

    assert caught.value.account == poor.account
    assert "send it the chain's own coin" in caught.value.text


async def test_revert_in_a_block_says_why(chain: LocalChain, reader: ChainReader) -> None:
    first, second = ChainWriter(reader, chain.new_key()), ChainWriter(reader, chain.new_key())
    await first.mint(first.account, 10)
    chain.anvil.automine(on=False)
    # Both are estimated while ten tokens are there; only the first finds them.
    everything = asyncio.create_task(first.transfer(second.account, 10))
    await eventually(lambda: chain.anvil.sent(first.account) == 2)
    chain.anvil.rpc("anvil_setStorageAt", *token_balance_slot(chain, first.account), "0x" + bytes(32).hex())
    chain.anvil.mine()

    with pytest.raises(TokenError) as caught:
        await everything

    assert caught.value.error == "ERC20InsufficientBalance"
    assert caught.value.values == {"sender": first.account, "balance": 0, "needed": 10}


def token_balance_slot(chain: LocalChain, account: Address) -> tuple[str, str]:
    """Return where OpenZeppelin's ERC-20 keeps a balance: the mapping is its first slot."""
    return to_hex(chain.deployment.address("Token")), to_hex(keccak(bytes(12) + account + bytes(32)))


async def test_call_of_a_contract_that_is_none_is_an_error(chain: LocalChain, reader: ChainReader) -> None:
    with pytest.raises(ContractError):
        await reader.rpc.call(chain.deployment.address("Channels"), b"\x01\x02\x03\x04")


async def test_method_the_endpoint_lacks_is_refused(chain: LocalChain, reader: ChainReader) -> None:
    with pytest.raises(RpcRefusedError) as caught:
        await reader.rpc.request("plait_nothing")

    assert caught.value.number == -32601


async def test_logs_in_ranges_are_all_logs(chain: LocalChain, reader: ChainReader) -> None:
    writer = ChainWriter(reader, chain.new_key())
    for amount in range(1, 8):
        await writer.mint(writer.account, amount)
    head = await reader.block()
    token = [chain.deployment.address("Token")]

    found = [part async for part in read_logs(reader.rpc, addresses=token, first=0, last=head.number, span=2)]

    assert [part.last for part in found][-1] == head.number
    assert all(part.last - part.first <= 1 for part in found)
    assert [int.from_bytes(log.data, "big") for part in found for log in part.logs] == list(range(1, 8))
    assert found[-1].checkpoint == Checkpoint(block=head.number, hash=head.hash)


async def test_logs_after_a_checkpoint_that_is_gone_raise(chain: LocalChain, reader: ChainReader) -> None:
    gone = Checkpoint(block=3, hash=Hash(bytes(32)))
    head = await reader.block()

    with pytest.raises(ReorgError) as caught:
        async for _ in read_logs(reader.rpc, addresses=[], first=4, last=head.number, after=gone):
            pass

    assert caught.value.block == 3
