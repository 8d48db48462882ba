"""The opener before a chain that lags or refuses; on a real one it is in `chain_tests/live`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.node.disks import small_disk

from plait.chain import ChannelsError, ChannelSlot, JournalTransaction, RpcRefusedError, Transaction, TxResult
from plait.ledger import Journal
from plait.protocol.ids import Address, Hash, address
from plait_node.settlement import Limits, Opener

ME, PAYEE, OTHER = (address(bytes([number]) * 20) for number in (1, 2, 3))
LIMITS = Limits(deposit=100, most=1_000, share=0.5)


class Chain:
    """Reader and writer of one account; `seen` is the block up to which the endpoint has caught up."""

    def __init__(self) -> None:
        self.account = ME
        self.reader = self
        self.head = self.seen = 1
        self.slots: dict[Address, list[tuple[int, int]]] = {}  # block, deposit from there on
        self.sent = 0
        self.refuses = False

    async def block(self) -> SimpleNamespace:
        return SimpleNamespace(number=self.seen)

    async def channel(self, payer: Address, payee: Address, signer: Address, *, where: int) -> ChannelSlot:
        assert payer == signer == ME
        if where > self.seen:
            raise RpcRefusedError("http://node", method="eth_call", number=-32_000, message="header not found")
        deposit = max((amount for at, amount in self.slots.get(payee, []) if at <= where), default=0)
        return ChannelSlot(deposit=deposit, claimed=0, exit_at=0, jobs=0)

    async def token_balance(self, _: Address) -> int:
        return 10**9

    async def open_channel(
        self, payee: Address, signer: Address, amount: int, *, journal: JournalTransaction
    ) -> TxResult:
        if self.refuses:
            raise ChannelsError("Channels_BadSigner", {}, "use another signer")
        self.sent += 1
        self.head += 1
        self.slots.setdefault(payee, []).append((self.head, amount + self.deposit(payee)))
        made = Hash(bytes([self.sent]) * 32)
        journal(
            Transaction(
                sender=ME, nonce=self.sent, to=OTHER, data=b"", value=0, gas=1, max_fee=1, tip=1, hash=made, raw=b""
            )
        )
        return TxResult(hash=made, block=self.head, gas_used=1, fee_wei=1, events=())

    top_up = open_channel

    def deposit(self, payee: Address) -> int:
        return max((amount for _, amount in self.slots.get(payee, [])), default=0)


def opener_of(chain: Chain, folder: Path, promised: Callable[[Address], int] = lambda _: 0, **changed: Any) -> Opener:
    return Opener(Journal(folder / "worker.db"), chain, LIMITS, promised=promised, **changed)  # type: ignore[arg-type]


async def test_opener_whose_disk_is_full_deposits_nothing_and_goes_on_once_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        chain = Chain()
        opener = opener_of(chain, disk.path)
        disk.fill()
        opener.covers(PAYEE, 0)
        running = asyncio.create_task(opener.run())
        await asyncio.sleep(0.1)
        assert not running.done()
        assert chain.sent == 0
        disk.make_room()
        async with asyncio.timeout(60):
            while chain.sent == 0:  # noqa: ASYNC110 - nobody calls: it looks by itself
                await asyncio.sleep(0.02)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_opener_waits_for_an_endpoint_that_has_not_seen_its_deposit(tmp_path: Path) -> None:
    """One of several nodes behind the endpoint lags: what it says of the channel is from before the deposit."""
    chain = Chain()
    promised = 0
    opener = opener_of(chain, tmp_path, lambda _: promised)
    opener.covers(PAYEE, 0)
    for _ in range(3):
        with pytest.raises(RpcRefusedError):
            await opener.settle()
        opener.covers(PAYEE, 0)
    assert (chain.sent, chain.deposit(PAYEE)) == (1, 100)

    chain.seen = chain.head
    await opener.settle()
    assert opener.covers(PAYEE, 100)

    promised = 60
    opener.covers(PAYEE, promised)
    with pytest.raises(RpcRefusedError):
        await opener.settle()
    chain.seen = chain.head
    await opener.settle()
    assert (chain.sent, chain.deposit(PAYEE)) == (2, 160)


async def test_opener_puts_a_refused_channel_off_and_serves_the_others(tmp_path: Path) -> None:
    chain = Chain()
    opener = opener_of(chain, tmp_path)
    chain.refuses = True
    opener.covers(PAYEE, 0)
    await opener.settle()
    assert [each.status for each in opener.deposits()] == ["refused"]
    chain.refuses = False
    for _ in range(3):  # asked for again with every payment, but not sent again before the next look
        opener.covers(PAYEE, 5)
        await opener.settle()
    assert chain.sent == 0
    assert opener.hesitation_s(PAYEE) > opener.hesitation_s(OTHER) > 0


async def test_opener_of_another_key_begins_anew(tmp_path: Path) -> None:
    """A service key that was replaced leaves its channels behind: they are not those of the new one."""
    chain = Chain()
    opener = opener_of(chain, tmp_path)
    opener.covers(PAYEE, 0)
    with pytest.raises(RpcRefusedError):
        await opener.settle()
    chain.seen = chain.head
    fresh = Chain()
    fresh.seen = fresh.head = 50
    fresh.account = OTHER
    other = opener_of(fresh, tmp_path)
    await other.settle()
    assert other.bound() == 0
    assert not other.covers(PAYEE, 0)
