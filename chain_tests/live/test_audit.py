"""The auditor over logs of a real chain: clean lives stay clean, a changed slot is found at the right log."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from chain_tests.anvil import LocalChain
from click.testing import Result
from typer.testing import CliRunner

from plait.chain import GATEWAY, STAGE, ChainReader, ChainWriter, Order, RequestParameters
from plait.protocol.ids import HASH_ZERO, channel_id, keccak, to_hex
from plait.protocol.messages import Sampling, Voucher
from plait.protocol.receipts import ClaimRow
from plait.protocol.typed import Key
from plait_audit import audit
from plait_audit.cli import app

STAKE = 150_000_000
GREEDY = Sampling(temperature=0, top_p=1_000_000, top_k=0, stop=HASH_ZERO)


async def member(chain: LocalChain, reader: ChainReader, *, roles: int = 0) -> ChainWriter:
    writer = ChainWriter(reader, chain.new_key())
    await writer.mint(writer.account, 10 * STAKE)
    if roles:
        await writer.register_node(roles, "dht://127.0.0.1:1")
        await writer.stake(STAKE)
    return writer


def row(
    chain: LocalChain, payer: ChainWriter, payee: ChainWriter, signer: Key, *, cumulative: int, jobs: int
) -> ClaimRow:
    voucher = Voucher(
        payer=payer.account, payee=payee.account, cumulative=cumulative, jobs=jobs, receipts_root=keccak(b"root")
    )
    return ClaimRow(
        payer=payer.account,
        cumulative=cumulative,
        jobs=jobs,
        receipts_root=voucher.receipts_root,
        signature=signer.sign(chain.deployment.domain, voucher),
    )


async def channel_life(chain: LocalChain, reader: ChainReader) -> tuple[ChainWriter, ChainWriter, Key]:
    """Open, top up, claim with one bad row among the good, exit, claim within the exit."""
    payer, payee = await member(chain, reader), await member(chain, reader, roles=GATEWAY | STAGE)
    signer, other = Key.generate(), Key.generate()
    await payer.open_channel(payee.account, signer.address, 1_000_000)
    await payer.open_channel(payee.account, other.address, 500)
    await payer.top_up(payee.account, signer.address, 1_000)
    rows = [
        row(chain, payer, payee, signer, cumulative=700, jobs=1),
        row(chain, payer, payee, Key.generate(), cumulative=10, jobs=1),
    ]
    await payee.claim(payee.account, [*rows, row(chain, payer, payee, other, cumulative=500, jobs=2)])
    await payer.exit(payee.account, signer.address)
    await payee.claim(payee.account, [row(chain, payer, payee, signer, cumulative=901_000, jobs=3)])
    return payer, payee, signer


async def test_audit_of_a_channel_s_whole_life_is_clean(chain: LocalChain, reader: ChainReader) -> None:
    payer, payee, signer = await channel_life(chain, reader)
    assert (await audit(reader)).findings == ()

    chain.anvil.increase_time(2_000)
    await payer.withdraw(payee.account, signer.address)
    await payee.release(payee.account)
    await payee.burn(payee.account)
    await payee.unbond(STAKE // 2)

    report = await audit(reader)
    assert report.findings == ()
    state = report.replay.state
    channel = state.channels[channel_id(payer.account, payee.account, signer.address)]
    assert (channel.deposit, channel.claimed, channel.exit_at, channel.jobs) == (901_000, 901_000, 0, 3)
    assert state.accounts[payee.account].earned == 901_500
    assert state.nodes[payee.account].unbonding == STAKE // 2


async def test_audit_of_requests_fulfilled_and_refunded_is_clean(chain: LocalChain, reader: ChainReader) -> None:
    payer, gateway = await member(chain, reader), await member(chain, reader, roles=GATEWAY)
    service = chain.new_key()
    await gateway.add_service_key(service)
    order = Order(
        gateway=gateway.account,
        model=keccak(b"model"),
        profile=keccak(b"profile"),
        sampling=GREEDY,
        max_tokens=4,
        fee=1_234,
        deadline=chain.anvil.timestamp() + 600,
    )
    first = (await payer.submit_request(order, [1, 2, 3])).event("Requested")
    second = (await payer.submit_request(order, [4])).event("Requested")
    assert first is not None
    assert second is not None
    node = ChainWriter(reader, service)
    await node.fulfil(first["id"], RequestParameters.from_event(first["params"]), keccak(b"receipt"), [7, 8])
    chain.anvil.increase_time(700)
    await payer.refund(second["id"], RequestParameters.from_event(second["params"]))

    report = await audit(reader)

    assert report.findings == ()
    assert [request.status for request in report.replay.state.requests.values()] == ["fulfilled", "refunded"]
    assert report.replay.state.accounts[gateway.account].earned == 1_234


async def test_audit_finds_changed_channel_slot_and_names_its_last_log(chain: LocalChain, reader: ChainReader) -> None:
    payer, payee, signer = await channel_life(chain, reader)
    number = channel_id(payer.account, payee.account, signer.address)
    channels = to_hex(chain.deployment.address("Channels"))
    slot = next(
        place
        for place in (keccak(number, at.to_bytes(32, "big")) for at in range(8))
        if int(chain.anvil.rpc("eth_getStorageAt", channels, to_hex(place), "latest"), 16)
    )
    held = int(chain.anvil.rpc("eth_getStorageAt", channels, to_hex(slot), "latest"), 16)
    chain.anvil.rpc("anvil_setStorageAt", channels, to_hex(slot), f"0x{held ^ 1:064x}")
    chain.anvil.mine()

    report = await audit(reader)

    assert [finding.check for finding in report.findings] == ["storage-equals-logs"]
    place = report.findings[0].place
    assert place is not None
    assert place == report.replay.state.channels[number].place
    receipt = chain.anvil.rpc("eth_getTransactionReceipt", to_hex(place.tx))
    assert place.index in [int(log["logIndex"], 16) for log in receipt["logs"]]


async def test_audit_finds_missing_tokens_and_ignores_a_gift(chain: LocalChain, reader: ChainReader) -> None:
    payer, payee, _ = await channel_life(chain, reader)
    channels = chain.deployment.address("Channels")
    await payer.transfer(channels, 1)
    assert (await audit(reader)).clean

    token = to_hex(chain.deployment.address("TestToken"))
    slot = next(
        place
        for place in (keccak(bytes(12) + channels, at.to_bytes(32, "big")) for at in range(8))
        if int(chain.anvil.rpc("eth_getStorageAt", token, to_hex(place), "latest"), 16)
    )
    chain.anvil.rpc("anvil_setStorageAt", token, to_hex(slot), f"0x{5:064x}")
    chain.anvil.mine()

    checks = {finding.check for finding in (await audit(reader)).findings}
    assert checks == {"tokens-back-debts", "token"}
    assert payee.account


@pytest.mark.parametrize("broken", [False, True])
async def test_audit_command_exits_by_what_it_found(
    chain: LocalChain, reader: ChainReader, tmp_path: Path, *, broken: bool
) -> None:
    await channel_life(chain, reader)
    if broken:
        count = chain.deployment.address("Requests")
        for at in range(4):
            chain.anvil.rpc("anvil_setStorageAt", to_hex(count), hex(at), f"0x{9:064x}")
        chain.anvil.mine()
    file = tmp_path / "deployment.json"
    chain.deployment.save(file)

    result = await _invoke(["--rpc", chain.url, "--deployment", str(file), "--json"])

    report = json.loads(result.stdout)
    assert (result.exit_code, report["clean"]) == (1, False) if broken else (0, True)
    assert report["counts"]["channels"] == 2
    table = await _invoke(["--rpc", chain.url, "--deployment", str(file)])
    assert ("finding(s)" if broken else "clean") in table.stdout


async def _invoke(arguments: list[str]) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, app, arguments)


async def test_audit_command_finds_the_deployment_of_the_chain_by_itself(
    chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain.deployment.save(tmp_path / "deployments" / f"{chain.deployment.chain_id}.json")
    monkeypatch.chdir(tmp_path)

    assert (await _invoke(["--rpc", chain.url])).exit_code == 0
    monkeypatch.chdir(tmp_path / "deployments")
    assert "deployments/31337.json" in str((await _invoke(["--rpc", chain.url])).exception)


async def test_audit_to_an_older_block_sees_only_what_was_then(chain: LocalChain, reader: ChainReader) -> None:
    await member(chain, reader, roles=STAGE)
    before = (await reader.block()).number
    await channel_life(chain, reader)

    report = await audit(reader, last=before)

    assert report.clean
    assert len(report.replay.state.nodes) == 1
    assert report.replay.state.channels == {}
    assert report.replay.block.number == before
