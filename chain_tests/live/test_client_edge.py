"""What the client reads from and sends to a real chain."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from chain_tests.anvil import LocalChain

from plait import AsyncPlait
from plait.chain import GATEWAY, ChainReader, ChainWriter, Deployment, Order
from plait.client.edge import Asked, Ending, Fulfilment, RpcEdge, asked_from
from plait.client.settings import Settings, settle
from plait.errors import SettingsError, WrongChainError, WrongCodeError
from plait.ledger.journal import Journal
from plait.ledger.payer import PayerBook
from plait.protocol.commitments import ids_bytes
from plait.protocol.ids import Address, Hash, to_hex
from plait.protocol.receipts import RECEIPT, ClaimRow, ReceiptLeaf
from plait.protocol.typed import Key

MODEL, PROFILE = Hash(b"\x01" * 32), Hash(b"\x02" * 32)
STAKE = 150_000_000


@dataclass(slots=True, kw_only=True)
class Town:
    gateway: ChainWriter
    service: Key
    payer: Key
    edge: RpcEdge


async def town(chain: LocalChain, reader: ChainReader, tmp_path: Path) -> Town:
    """Stake a gateway, publish a model, and give a payer tokens."""
    gateway, service, payer = ChainWriter(reader, chain.new_key()), chain.new_key(), chain.new_key()
    await gateway.mint(gateway.account, STAKE)
    await gateway.mint(payer.address, 10_000)
    await gateway.register_node(GATEWAY, "http://127.0.0.1:1", bytes(range(32)))
    await gateway.add_service_key(service)
    await gateway.stake(STAKE)
    await gateway.publish_model(MODEL, 3, [PROFILE], "")
    edge = RpcEdge(reader, settings(chain, tmp_path, payer))
    return Town(gateway=gateway, service=service, payer=payer, edge=edge)


def settings(chain: LocalChain, tmp_path: Path, key: Key | None) -> Settings:
    return settle(rpc=chain.url, deployment=chain.deployment, key=key, home=tmp_path, environ={})


async def test_edge_reads_gateways_models_and_balances(chain: LocalChain, reader: ChainReader, tmp_path: Path) -> None:
    there = await town(chain, reader, tmp_path)
    assert [node.owner for node in await there.edge.gateways()] == [there.gateway.account]
    node = await there.edge.node(there.gateway.account)
    assert node is not None
    assert node.stake == STAKE
    assert await there.edge.reputation(there.gateway.account) == 0
    model = await there.edge.model(MODEL)
    assert model is not None
    assert model.blocks == 3
    assert await there.edge.model(PROFILE) is None
    assert await there.edge.balance() == 10_000


async def test_edge_channel_opened_topped_up_claimed(chain: LocalChain, reader: ChainReader, tmp_path: Path) -> None:
    there = await town(chain, reader, tmp_path)
    payee, session = there.gateway.account, Key.generate()
    await there.edge.open_channel(payee, session.address, 1_000)
    await there.edge.top_up(payee, session.address, 500)
    slot = await there.edge.channel(payee, session.address)
    assert (slot.deposit, slot.claimed, slot.jobs) == (1_500, 0, 0)

    book = PayerBook(Journal(tmp_path / "journal"), chain.deployment.domain, session, there.payer.address)
    leaf = ReceiptLeaf(kind=RECEIPT, hash=Hash(b"\x09" * 32), hop_amount=700, windows_paid=3)
    payment = book.channel(payee).end_job(Hash(b"\x08" * 32), leaf)
    voucher = payment.voucher.message
    row = ClaimRow(
        payer=there.payer.address,
        cumulative=voucher.cumulative,
        jobs=voucher.jobs,
        receipts_root=voucher.receipts_root,
        signature=payment.voucher.signature,
    )
    sent = await there.gateway.claim(payee, [row])
    (claim,) = await there.edge.claims(book.channel(payee).id)
    assert (claim.jobs, claim.root) == (1, voucher.receipts_root)
    assert (claim.transaction, claim.block, claim.gas_used) == (sent.hash, sent.block, sent.gas_used)

    head, final = await there.edge.heads()
    assert head.number >= claim.block >= final


async def asked(chain: LocalChain, there: Town) -> tuple[int, Asked]:
    """Ask through the edge; return the request's number and what it asks for."""
    order = Order(
        gateway=there.gateway.account,
        model=MODEL,
        profile=PROFILE,
        max_tokens=8,
        fee=100,
        exclusive_until=chain.anvil.timestamp() + 300,
        deadline=chain.anvil.timestamp() + 600,
    )
    event = (await there.edge.submit_request(order, [1, 2, 3])).event("Requested")
    assert event is not None
    return event["id"], asked_from(event)


async def test_edge_request_fulfilled_gives_the_ids_of_the_transaction(
    chain: LocalChain, reader: ChainReader, tmp_path: Path
) -> None:
    there = await town(chain, reader, tmp_path)
    number, made = await asked(chain, there)
    assert await there.edge.ended(number) is None
    assert await there.edge.asked(number) == made
    assert await there.edge.asked(number + 1) is None

    answered = await ChainWriter(reader, there.service).fulfil(number, made.parameters, Hash(b"\x07" * 32), [9, 8, 7])
    found = await there.edge.ended(number)
    assert isinstance(found, Fulfilment)
    assert (found.output, found.receipt, found.model) == (ids_bytes([9, 8, 7]), b"\x07" * 32, MODEL)
    assert (found.transaction, found.gas_used) == (answered.hash, answered.gas_used)


@pytest.mark.parametrize(("after_s", "how"), [(301, "cancelled"), (601, "refunded")])
async def test_edge_request_taken_back_says_how(
    chain: LocalChain, reader: ChainReader, tmp_path: Path, after_s: int, how: str
) -> None:
    there = await town(chain, reader, tmp_path)
    number, made = await asked(chain, there)
    assert await there.edge.balance() == 9_900
    chain.anvil.increase_time(after_s)

    take_back = there.edge.cancel if how == "cancelled" else there.edge.refund
    sent = await take_back(number, made.parameters)

    assert await there.edge.ended(number) == Ending(how=how, fee=100, transaction=sent.hash)  # type: ignore[arg-type]
    assert await there.edge.balance() == 10_000


async def test_edge_without_key_reads_but_does_not_write(
    chain: LocalChain, reader: ChainReader, tmp_path: Path
) -> None:
    edge = RpcEdge(reader, settings(chain, tmp_path, None))
    assert await edge.gateways() == []
    with pytest.raises(SettingsError, match="PLAIT_KEY"):
        await edge.open_channel(Address(b"\x01" * 20), Address(b"\x02" * 20), 1)


async def test_client_deployment_of_another_chain_says_so(chain: LocalChain, tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    chain.deployment.model_copy(update={"chain_id": 1}).save(file)
    async with AsyncPlait(rpc=chain.url, deployment=file, home=tmp_path) as client:
        with pytest.raises(WrongChainError, match="1"):
            await client.models.list()
    moved: dict[str, object] = {"contracts": {**chain.deployment.contracts}}
    channels = chain.deployment.contracts["Channels"]
    moved["contracts"]["Channels"] = channels.model_copy(update={"address": b"\x05" * 20})
    chain.deployment.model_copy(update=moved).save(file)
    assert Deployment.load(file).address("Channels") == b"\x05" * 20
    async with AsyncPlait(rpc=chain.url, deployment=file, home=tmp_path) as client:
        with pytest.raises(WrongCodeError, match=to_hex(b"\x05" * 20)):
            await client.models.list()
