"""A gateway that is to stop takes nothing new; an operator says whom it serves, and with what."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.node.gateway.stand import Stand, fault
from tests.sdk.swarm import KnownKey, Node

from plait.ledger import JournalFullError
from plait.protocol.ids import Hash, address, hash32
from plait.protocol.pb import gateway_pb2
from plait.protocol.typed import Key
from plait_node.gateway.shelf import ModelShelf
from plait_node.gateway.store import JobStore
from plait_node.policy import Guests

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_closed_gateway_delivers_what_it_has_and_takes_nothing_new(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    async with stand.running() as client:
        asked = await stand.submitted(client)
        quote = await stand.quote(client)
        assert stand.gateway is not None
        await stand.gateway.close()
        assert stand.gateway.busy
        refused = await stand.submit(client, stand.ask(quote))
        assert (refused.status_code, fault(refused).code) == (503, "stopped")
        assert int(refused.headers["Retry-After"]) >= 1
        call = gateway_pb2.QuoteCall(model=stand.swarm.manifest.model_id)
        assert (await client.post("/v1/quotes", content=call.SerializeToString())).status_code == 503
        await stand.work(asked)
        assert (await stand.follow(client, asked))[-1].kind == "receipt"
        assert not stand.gateway.busy


async def test_gateway_on_a_full_disk_takes_no_money_and_the_same_call_later_is_taken(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    async with stand.running() as client:
        running = await stand.submitted(client)
        asked = stand.ask(await stand.quote(client))
        stand.full = True
        refused = await stand.submit(client, asked)
        assert (refused.status_code, fault(refused).code, fault(refused).retry) == (503, "busy", True)
        await stand.work(running)
        assert (await stand.follow(client, running))[-1].kind == "receipt"  # what it had goes on

        stand.full = False
        assert (await stand.submit(client, asked)).status_code == 200


async def test_gateway_that_cannot_journal_a_voucher_says_so_and_takes_it_once_there_is_room(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    async with stand.running() as client:
        asked = await stand.submitted(client)
        channel, amount = stand.payer.channel(stand.me), asked.payment.pay.message.amount
        pages = stand.journal.one("PRAGMA page_count")
        assert pages is not None
        stand.journal.run(f"PRAGMA max_page_count = {pages[0]}")  # SQLite then answers as on a full disk
        for more in range(1, 200):
            payment = channel.pay(asked.name, amount + more, more)
            refused = await stand.send(client, payment)
            if refused.status_code != 200:
                break
        assert (refused.status_code, fault(refused).code) == (503, "journal_full")
        assert int(refused.headers["Retry-After"]) >= 1

        stand.journal.run("PRAGMA max_page_count = 100000")
        for _ in range(2):  # once more is nothing new
            assert (await stand.send(client, payment)).status_code == 200
            state = stand.book.state(stand.payer.payer, stand.payer.signer)
            assert state is not None
            assert state.voucher.message.cumulative == amount + more


async def test_store_on_a_full_disk_keeps_all_of_a_change_or_nothing(tmp_path: Path) -> None:
    store = JobStore(tmp_path / "gateway.sqlite")
    pages = store.one("PRAGMA page_count")
    assert pages is not None
    store.run(f"PRAGMA max_page_count = {pages[0]}")  # SQLite then answers as on a full disk
    names = [Hash(number.to_bytes(32, "big")) for number in range(1_000)]
    with pytest.raises(JournalFullError, match="full"), store.write():
        for name in names:
            store.set_ended(name)
    assert not any(map(store.ended, names))
    store.run("PRAGMA max_page_count = 100000")
    with store.write():
        store.set_ended(names[0])
    assert store.ended(names[0])
    store.close()


async def test_payer_that_the_operator_refuses_pays_nothing(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    async with stand.running() as client:
        await stand.offer()
        asked = stand.ask(await stand.quote(client))
        assert stand.gateway is not None
        stand.gateway._intake._payers = Guests(refused=frozenset({stand.payer.payer}))
        refused = await stand.submit(client, asked)
        assert (refused.status_code, fault(refused).code) == (400, "not_served")
        assert stand.book.state(stand.payer.payer, stand.payer.signer) is None
        stand.gateway._intake._payers = Guests(refused=frozenset({address(bytes(20))}))
        assert (await stand.submit(client, asked)).status_code == 200


async def test_models_that_the_operator_does_not_name_are_not_here(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    model = stand.swarm.manifest.model_id
    assert ModelShelf(tmp_path / "models", stand.clock, only=(model,)).manifest(model) is not None
    other = ModelShelf(tmp_path / "models", stand.clock, only=(hash32(bytes(32)),))
    assert other.manifest(model) is None
    assert other.manifests() == {}


async def test_worker_of_another_operator_is_not_quoted(tmp_path: Path) -> None:
    """All workers of a quote have one owner: a later attempt is believed on its number alone (SECURITY.md)."""
    stand = Stand(tmp_path)
    async with stand.running() as client:
        stranger = Node(owner=address(b"\x07" * 20), service=Key.generate())
        stand.swarm.directory.keys[stranger.service.address] = KnownKey(owner=stranger.owner)
        stand.swarm.worker = stranger
        stand.prekey = stand.swarm.prekey()
        await stand.offer()
        call = gateway_pb2.QuoteCall(model=stand.swarm.manifest.model_id)
        refused = await client.post("/v1/quotes", content=call.SerializeToString())
        assert (refused.status_code, fault(refused).code) == (503, "no_route")
