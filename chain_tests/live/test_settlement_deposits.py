"""The opener on a real chain: channels opened and topped up once, through crashes, outages and limits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from chain_tests.anvil import LocalChain, switch
from chain_tests.channel_cases import eventually, request

from plait.chain import ChainReader, ChainWriter, JournalTransaction, Patience, RpcDownError, TxResult
from plait.ledger import Journal, PayerBook
from plait.protocol.ids import Address
from plait.protocol.typed import Key
from plait_node.settlement import Limits, Opener

QUICK = Patience(deadline_s=60.0, bump_after_s=0.4, poll_s=0.02, slowest_poll_s=0.1)
HASTY = Patience(deadline_s=0.5, bump_after_s=5.0, poll_s=0.02, slowest_poll_s=0.1)
DEPOSIT = 1_000
LIMITS = Limits(deposit=DEPOSIT, most=10 * DEPOSIT, share=0.25)


@dataclass(slots=True, kw_only=True)
class Wallet:
    """A worker's service key that holds tokens, its book and its opener."""

    reader: ChainReader
    key: Key
    book: PayerBook
    journal: Journal
    funded: list[Address] = field(default_factory=list[Address])

    def opener(
        self,
        limits: Limits = LIMITS,
        *,
        patience: Patience = QUICK,
        watch_s: float = 60.0,
        writer: ChainWriter | None = None,
    ) -> Opener:
        writer = writer or ChainWriter(self.reader, self.key, patience=patience)
        made = Opener(
            self.journal,
            writer,
            limits,
            promised=lambda payee: self.book.channel(payee).cumulative,
            watch_s=watch_s,
        )

        async def tell(payee: Address) -> None:
            self.funded.append(payee)

        made.on_funded = tell
        return made

    def promise(self, payee: Address, amount: int, number: int = 1) -> int:
        """Sign a payment of `amount` base units in all for a request; return the channel's total."""
        self.book.channel(payee).pay(request(number), amount, 0)
        return self.book.channel(payee).cumulative

    async def deposit(self, payee: Address) -> int:
        return (await self.reader.channel(self.key.address, payee, self.key.address)).deposit


@pytest.fixture
async def wallet(chain: LocalChain, reader: ChainReader, tmp_path: Path) -> AsyncGenerator[Wallet]:
    key, journal = chain.new_key(), Journal(tmp_path / "worker.db")
    await ChainWriter(reader, chain.deployer).mint(key.address, 100 * DEPOSIT)
    book = PayerBook(journal, chain.deployment.domain, key)
    yield Wallet(reader=reader, key=key, book=book, journal=journal)
    journal.close()


@asynccontextmanager
async def running(opener: Opener) -> AsyncGenerator[None]:
    task = asyncio.create_task(opener.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


class Cut(ChainWriter):
    """A writer whose endpoint goes away as soon as it is to open a channel."""

    def __init__(self, reader: ChainReader, key: Key, cut: Callable[[], None]) -> None:
        super().__init__(reader, key, patience=QUICK)
        self._cut = cut

    async def open_channel(
        self, payee: Address, signer: Address, amount: int, *, journal: JournalTransaction | None = None
    ) -> TxResult:
        self._cut()
        return await super().open_channel(payee, signer, amount, journal=journal)


def stranger() -> Address:
    return Key.generate().address


async def test_channel_is_opened_once_it_is_paid_on(wallet: Wallet) -> None:
    payee, opener = stranger(), wallet.opener()
    assert opener.hesitation_s(payee) > 0
    async with running(opener):
        assert not opener.covers(payee, wallet.promise(payee, 100))
        await eventually(lambda: wallet.funded == [payee])

    assert opener.covers(payee, 100)
    assert opener.hesitation_s(payee) == 0
    assert await wallet.deposit(payee) == DEPOSIT + 100  # what is promised, and a deposit beyond it
    assert [each.status for each in opener.deposits()] == ["done"]


async def test_channel_is_topped_up_below_its_share_and_not_before(wallet: Wallet) -> None:
    payee, opener = stranger(), wallet.opener()
    opener.covers(payee, 0)
    await opener.settle()
    assert opener.covers(payee, wallet.promise(payee, 750))
    await opener.settle()
    assert await wallet.deposit(payee) == DEPOSIT

    assert opener.covers(payee, wallet.promise(payee, 751))
    await opener.settle()

    assert await wallet.deposit(payee) == DEPOSIT + 751
    assert [each.amount for each in opener.deposits()] == [DEPOSIT, 751]


async def test_deposit_sent_and_not_seen_is_not_made_twice(
    wallet: Wallet, chain: LocalChain, reader: ChainReader
) -> None:
    """The process that sent a top-up dies before any block took it; the next one waits for it."""
    payee, first = stranger(), wallet.opener()
    first.covers(payee, 0)
    await first.settle()
    wallet.promise(payee, 900)
    chain.anvil.automine(on=False)
    first.covers(payee, 900)
    dying = asyncio.create_task(first.settle())
    await eventually(lambda: len(first.deposits()) == 2 and chain.anvil.sent(wallet.key.address) == 2)
    await asyncio.sleep(0.2)
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)

    second = wallet.opener()
    second.covers(payee, 900)
    going_on = asyncio.create_task(second.settle())
    await asyncio.sleep(0.3)
    chain.anvil.automine(on=True)
    chain.anvil.mine()
    await going_on

    assert await wallet.deposit(payee) == DEPOSIT + 900
    assert [each.status for each in second.deposits()] == ["done", "done"]
    assert await reader.token_balance(wallet.key.address) == 100 * DEPOSIT - DEPOSIT - 900


async def test_deposit_that_no_block_takes_in_time_stays_the_only_one(wallet: Wallet, chain: LocalChain) -> None:
    payee, opener = stranger(), wallet.opener(patience=HASTY)
    chain.anvil.automine(on=False)
    async with running(opener):
        opener.covers(payee, 0)
        await asyncio.sleep(1.5)
        chain.anvil.automine(on=True)
        chain.anvil.mine()
        await eventually(lambda: bool(wallet.funded))

    assert await wallet.deposit(payee) == DEPOSIT
    assert len(opener.deposits()) == 1


async def test_deposit_that_was_never_signed_is_decided_anew(wallet: Wallet, chain: LocalChain) -> None:
    """The endpoint goes away between the decision and the signature; meanwhile the channel was opened by hand."""
    payee = stranger()
    async with switch(chain.url) as (url, turn), await ChainReader.connect(url, chain.deployment) as relayed:
        here = Wallet(reader=relayed, key=wallet.key, book=wallet.book, journal=wallet.journal)
        opener = here.opener(writer=Cut(relayed, wallet.key, lambda: turn(False)))
        opener.covers(payee, 0)
        with pytest.raises(RpcDownError):
            await opener.settle()
    await ChainWriter(wallet.reader, wallet.key).open_channel(payee, wallet.key.address, 5 * DEPOSIT)

    again = wallet.opener()
    again.covers(payee, 0)
    await again.settle()

    assert await wallet.deposit(payee) == 5 * DEPOSIT
    assert [each.status for each in again.deposits()] == ["moot"]
    assert again.covers(payee, 5 * DEPOSIT)


async def test_most_in_all_channels_is_kept_until_others_claimed(
    wallet: Wallet, chain: LocalChain, caplog: pytest.LogCaptureFixture
) -> None:
    opener = wallet.opener(Limits(deposit=DEPOSIT, most=2 * DEPOSIT + 10, share=0.25), watch_s=0.3)
    payees = [stranger() for _ in range(3)]
    with caplog.at_level(logging.WARNING):
        for payee in payees:
            opener.covers(payee, 0)
            await opener.settle()

    assert [await wallet.deposit(payee) for payee in payees] == [DEPOSIT, DEPOSIT, 0]
    assert opener.bound() == 2 * DEPOSIT
    assert "channels_most allows" in caplog.text
    assert opener.hesitation_s(payees[2]) > opener.hesitation_s(stranger()) > opener.hesitation_s(payees[0])
    again = wallet.opener(Limits(deposit=DEPOSIT, most=2 * DEPOSIT + 10, share=0.25))
    again.covers(payees[2], 0)
    await again.settle()  # what lies in channels is known after a restart as well
    assert await wallet.deposit(payees[2]) == 0


async def test_account_without_tokens_is_named_and_tried_again(
    wallet: Wallet, chain: LocalChain, caplog: pytest.LogCaptureFixture
) -> None:
    payee, opener = stranger(), wallet.opener(watch_s=0.3)
    writer = ChainWriter(wallet.reader, wallet.key)
    await writer.transfer(chain.deployer.address, 100 * DEPOSIT)
    with caplog.at_level(logging.WARNING):
        async with running(opener):
            opener.covers(payee, 0)
            await eventually(lambda: "send it more" in caplog.text)
            await ChainWriter(wallet.reader, chain.deployer).transfer(wallet.key.address, DEPOSIT)
            await eventually(lambda: bool(wallet.funded))
    assert await wallet.deposit(payee) == DEPOSIT


async def test_channel_that_is_being_left_is_not_topped_up(wallet: Wallet) -> None:
    payee, opener = stranger(), wallet.opener()
    opener.covers(payee, 0)
    await opener.settle()
    await ChainWriter(wallet.reader, wallet.key).exit(payee, wallet.key.address)
    opener.covers(payee, wallet.promise(payee, 900))

    await opener.settle()

    assert await wallet.deposit(payee) == DEPOSIT


async def test_deposits_go_on_after_the_endpoint_was_down(wallet: Wallet, chain: LocalChain) -> None:
    payee = stranger()
    async with switch(chain.url) as (url, turn), await ChainReader.connect(url, chain.deployment) as relayed:
        here = Wallet(reader=relayed, key=wallet.key, book=wallet.book, journal=wallet.journal)
        opener = here.opener()
        turn(False)
        async with running(opener):
            opener.covers(payee, 0)
            await asyncio.sleep(0.3)
            turn(True)
            await eventually(lambda: here.funded == [payee])
    assert await wallet.deposit(payee) == DEPOSIT
