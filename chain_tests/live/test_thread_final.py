"""From claimed to final, release and exit: on a copy of the chain, whose clock no node sees moving."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from chain_tests.anvil import Anvil
from chain_tests.live.network import MODEL, TOKEN, LiveNetwork, talk, until

from plait import AsyncPlait
from plait.chain import ChainReader, ChainWriter
from plait.chain.abi import artifact
from plait.errors import ContractError
from plait.protocol.ids import Address, to_hex
from plait.protocol.typed import Key
from plait_audit import audit

pytestmark = pytest.mark.timeout(900)

CLOSES_AFTER_S = 1_800
REQUEST_S = 200
STAKE_LEFT = 40  # base units; half of it is less than one short answer earns
FINAL_BLOCKS = 70  # anvil calls a block final that is 64 deep


@dataclass(slots=True, kw_only=True)
class Clock:
    """The client's clock, moved together with the chain's."""

    ahead_s: float = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


async def claimed_job(net: LiveNetwork, home: Path, key: Key) -> str:
    """Have a question answered, paid and claimed on the live network."""
    async with net.payer(home, key=key, timeout=REQUEST_S) as client:
        answer = await client.chat.completions.create(model=MODEL, messages=talk("Hi."), max_tokens=8, temperature=0)
        await net.settled((await client.purse()).channel(net.owner("gateway")).id)
        return answer.id


async def test_claimed_job_becomes_final_money_matures_and_the_payer_leaves_with_the_rest(
    net: LiveNetwork, tmp_path: Path
) -> None:
    key, clock, payee = await net.wallet(), Clock(), net.owner("gateway")
    request = await claimed_job(net, tmp_path, key)
    state = await net.call("anvil_dumpState")
    with Anvil() as copy:
        assert copy.rpc("anvil_loadState", state)
        settings = {"rpc": copy.url, "deployment": net.deployment, "home": tmp_path, "clock": clock}
        async with (
            AsyncPlait(key=key, **settings) as client,
            await ChainReader.connect(copy.url, net.deployment) as reader,
        ):
            assert (await client.jobs.get(request)).status == "claimed"

            copy.mine(FINAL_BLOCKS)
            assert (await client.jobs.get(request)).status == "claimed"  # deep enough, and open to dispute
            clock.ahead_s = REQUEST_S + CLOSES_AFTER_S + 5
            copy.increase_time(int(clock.ahead_s))
            copy.mine(FINAL_BLOCKS)
            final = await client.jobs.get(request)
            assert final.status == "final"
            assert final.paid > 0

            session = (await client.purse()).session.address
            await release(net, copy, reader)
            await leave(copy, ChainWriter(reader, key), payee, session, paid=final.paid)
            assert (await audit(reader)).findings == ()


async def release(net: LiveNetwork, copy: Anvil, reader: ChainReader) -> None:
    """Pay the gateway what is mature, at most half of its stake in one epoch."""
    payee, anyone = net.owner("gateway"), Key.generate()
    copy.fund(anyone.address)
    writer = ChainWriter(reader, anyone)
    before, earnings, node = await reader.token_balance(payee), await reader.earnings(payee), await reader.node(payee)
    assert node is not None
    assert earnings.maturing == 0  # three epochs have gone by
    assert earnings.mature > STAKE_LEFT
    assert earnings.mature + earnings.fee + earnings.released == earnings.earned

    unbond = artifact("NodeRegistry").functions["unbond"].encode(node.stake - STAKE_LEFT)
    await send_as(copy, payee, reader.deployment.address("NodeRegistry"), unbond)
    for epoch in (1, 2):
        released = (await writer.release(payee)).event("Released")
        assert released is not None
        assert released["amount"] == STAKE_LEFT // 2
        assert await reader.token_balance(payee) == before + epoch * STAKE_LEFT // 2
        with pytest.raises(ContractError, match="Channels_NothingToRelease"):
            await writer.release(payee)
        copy.increase_time(reader.deployment.parameters.epoch_length)
    assert (await reader.earnings(payee)).mature == earnings.mature - STAKE_LEFT


async def send_as(copy: Anvil, account: Address, to: Address, data: bytes) -> None:
    """Send a transaction of an account whose key the local network keeps to itself."""
    copy.rpc("anvil_impersonateAccount", to_hex(account))
    sent = copy.rpc("eth_sendTransaction", {"from": to_hex(account), "to": to_hex(to), "data": "0x" + data.hex()})
    await until(lambda: copy.rpc("eth_getTransactionReceipt", sent) is not None, "the transaction is in no block")
    assert copy.rpc("eth_getTransactionReceipt", sent)["status"] == "0x1"


async def leave(copy: Anvil, writer: ChainWriter, payee: Address, signer: Address, *, paid: int) -> None:
    """Exit the channel and take out what the answer did not cost."""
    reader = writer.reader
    slot = await reader.channel(writer.account, payee, signer)
    assert slot.claimed == paid
    before = await reader.token_balance(writer.account)
    assert before + slot.deposit == 10 * TOKEN
    await writer.exit(payee, signer)
    with pytest.raises(ContractError, match="Channels_ExitNotDue"):
        await writer.withdraw(payee, signer)
    copy.increase_time(reader.deployment.parameters.exit_delay)
    await writer.withdraw(payee, signer)
    assert await reader.token_balance(writer.account) == 10 * TOKEN - paid
    rest = await reader.channel(writer.account, payee, signer)
    assert (rest.deposit, rest.claimed, rest.exit_at) == (paid, paid, 0)
