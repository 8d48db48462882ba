"""The auditor over logs of a real chain: clean lives stay clean, a changed slot is found at the right log."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
from chain_tests.anvil import LocalChain
from click.testing import Result
from eth_account import Account
from typer.testing import CliRunner

from plait.chain import (
    GATEWAY,
    LOCAL,
    STAGE,
    ChainReader,
    ChainWriter,
    NodeRegistryError,
    Order,
    RequestParameters,
    deploy,
)
from plait.protocol.ids import Hash, authorization_nonce, channel_id, keccak, to_hex
from plait.protocol.messages import Voucher
from plait.protocol.receipts import ClaimRow
from plait.protocol.typed import Key
from plait_audit import audit
from plait_audit.cli import app

STAKE = 150_000_000


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


async def asked(
    chain: LocalChain, payer: ChainWriter, gateway: ChainWriter, *, by_commitment: bool = False
) -> tuple[int, RequestParameters]:
    order = Order(
        gateway=gateway.account,
        model=keccak(b"model"),
        profile=keccak(b"profile"),
        max_tokens=4,
        fee=1_234,
        exclusive_until=chain.anvil.timestamp() + 300,
        deadline=chain.anvil.timestamp() + 600,
    )
    sent = payer.submit_commitment(order, keccak(b"prompt"), 3) if by_commitment else payer.submit_request(order, [4])
    event = (await sent).event("Requested")
    assert event is not None
    return event["id"], RequestParameters.from_event(event["params"])


async def test_audit_of_requests_of_every_fate_is_clean(chain: LocalChain, reader: ChainReader) -> None:
    payer, gateway = await member(chain, reader), await member(chain, reader, roles=GATEWAY)
    service = chain.new_key()
    await gateway.add_service_key(service)
    requests = [await asked(chain, payer, gateway, by_commitment=number == 1) for number in range(4)]
    await ChainWriter(reader, service).fulfil(*requests[0], keccak(b"receipt"), [7, 8])
    chain.anvil.increase_time(301)
    await payer.cancel(*requests[1])
    chain.anvil.increase_time(300)
    await payer.refund(*requests[2])
    await payer.cancel(*requests[3])
    await asked(chain, payer, gateway)
    await asked(chain, payer, gateway, by_commitment=True)

    report = await audit(reader)

    assert report.findings == ()
    state = report.replay.state
    fates = [request.status for request in state.requests.values()]
    assert fates == ["fulfilled", "cancelled", "refunded", "cancelled", "open", "open"]
    assert [request.public for request in state.requests.values()] == [True, False, True, True, True, False]
    assert state.accounts[gateway.account].earned == 1_234
    assert report.to_dict()["owed"]["Requests"] == str(2 * 1_234)


async def test_audit_finds_an_open_request_whose_parameters_are_not_those_in_storage(
    chain: LocalChain, reader: ChainReader
) -> None:
    payer, gateway = await member(chain, reader), await member(chain, reader, roles=GATEWAY)
    number, parameters = await asked(chain, payer, gateway)
    requests = to_hex(chain.deployment.address("Requests"))
    slot = next(
        place
        for place in (keccak(number.to_bytes(32, "big"), at.to_bytes(32, "big")) for at in range(8))
        if chain.anvil.rpc("eth_getStorageAt", requests, to_hex(place), "latest") == to_hex(parameters.hash())
    )
    chain.anvil.rpc("anvil_setStorageAt", requests, to_hex(slot), to_hex(keccak(b"others")))
    chain.anvil.mine()

    report = await audit(reader)

    (finding,) = report.findings
    assert finding.check == "storage-equals-logs"
    assert to_hex(parameters.hash()) in finding.text
    assert finding.place == report.replay.state.requests[number].place


async def test_audit_of_verdicts_and_jails_is_clean_and_halves_the_score(chain: LocalChain) -> None:
    arbiter = chain.keys[1]
    deployment = await deploy(chain.url, chain.keys[0], LOCAL.model_copy(update={"arbiter": arbiter.address}))
    judged = replace(chain, deployment=deployment)
    async with await ChainReader.connect(chain.url, deployment) as reader:
        _, payee, _ = await channel_life(judged, reader)
        score, judge = await reader.reputation(payee.account), ChainWriter(reader, arbiter)
        until = chain.anvil.timestamp() + deployment.parameters.unbonding_delay
        await judge.send("NodeRegistry", "slash", payee.account, 1_000)
        await judge.send("NodeRegistry", "slash", payee.account, 1)
        await judge.send("NodeRegistry", "jail", payee.account, until)
        with pytest.raises(NodeRegistryError, match="at most the unbonding delay"):
            await judge.send("NodeRegistry", "jail", payee.account, until + 1_000)

        report, node = await audit(reader), await reader.node(payee.account)

        assert report.findings == ()
        assert node is not None
        assert (node.verdicts, node.jailed_until, node.stake) == (2, until, STAKE - 1_001)
        assert report.replay.state.nodes[payee.account].verdicts == 2
        assert await reader.reputation(payee.account) == score // 4 > 0
        assert report.to_dict()["counts"]["verdicts"] == 2


async def test_audit_of_a_channel_opened_by_authorization_is_clean(chain: LocalChain, reader: ChainReader) -> None:
    payer, payee, carrier = [await member(chain, reader) for _ in range(3)]
    signer, salt, until = Key.generate(), keccak(b"salt"), chain.anvil.timestamp() + 600
    channel = channel_id(payer.account, payee.account, signer.address)
    authorization = await authorized(reader, payer.key, 5_000, nonce=authorization_nonce(channel, salt), until=until)

    parties = payer.account, payee.account, signer.address
    sent = await carrier.send("Channels", "openWithAuthorization", *parties, 5_000, (0, until, salt, *authorization))

    assert sent.event("AuthorizationUsed") is not None
    assert (await reader.channel_by_id(channel)).deposit == 5_000
    assert (await audit(reader)).findings == ()


async def authorized(
    reader: ChainReader, key: Key, amount: int, *, nonce: Hash, until: int
) -> tuple[int, bytes, bytes]:
    """Sign an EIP-3009 `ReceiveWithAuthorization` to `Channels`; return v, r, s."""
    _, name, version, chain_id, token, *_ = await reader.view("Token", "eip712Domain")
    fields = {"from": "address", "to": "address", "value": "uint256", "validAfter": "uint256"}
    fields |= {"validBefore": "uint256", "nonce": "bytes32"}
    signed = Account.sign_typed_data(
        key.secret_hex(),
        domain_data={"name": name, "version": version, "chainId": chain_id, "verifyingContract": to_hex(token)},
        message_types={"ReceiveWithAuthorization": [{"name": each, "type": kind} for each, kind in fields.items()]},
        message_data={
            "from": to_hex(key.address),
            "to": to_hex(reader.deployment.address("Channels")),
            "value": amount,
            "validAfter": 0,
            "validBefore": until,
            "nonce": nonce,
        },
    )
    return signed.v, signed.r.to_bytes(32, "big"), signed.s.to_bytes(32, "big")


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

    token = to_hex(chain.deployment.address("Token"))
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


async def test_audit_reads_of_the_token_only_what_touches_the_contracts(chain: LocalChain, reader: ChainReader) -> None:
    payer, payee, _ = await channel_life(chain, reader)
    before = (await audit(reader)).replay
    await payer.transfer(payee.account, 1)
    assert (await audit(reader)).replay.logs == before.logs
    await payer.transfer(chain.deployment.address("Channels"), 1)

    after = (await audit(reader)).replay

    assert after.logs == before.logs + 1
    assert set(after.state.balances) <= set(chain.deployment.addresses.values())


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
