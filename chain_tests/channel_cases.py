"""A payer and a staked payee with an open channel on a local chain."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from chain_tests.anvil import LocalChain

from plait.chain import GATEWAY, STAGE, WORKER, ChainReader, ChainWriter
from plait.ledger import Journal, PayeeBook, PayerBook, PayerChannel
from plait.protocol.ids import Address, Hash, keccak
from plait.protocol.receipts import RECEIPT, ReceiptLeaf
from plait.protocol.typed import Key

STAKE = 200_000_000
DEPOSIT = 1_000_000


def request(number: int) -> Hash:
    """Return a request's digest."""
    return keccak(b"request", number.to_bytes(4, "big"))


def leaf(number: int, amount: int) -> ReceiptLeaf:
    """Return the leaf of a request that ended with a receipt."""
    digest = keccak(b"receipt", number.to_bytes(4, "big"))
    return ReceiptLeaf(kind=RECEIPT, hash=digest, hop_amount=amount, windows_paid=1)


async def eventually(holds: Callable[[], bool], *, within_s: float = 60.0) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(within_s):
        while not holds():  # noqa: ASYNC110 what is waited for happens in a database or another process
            await asyncio.sleep(0.02)


@dataclass(slots=True, kw_only=True)
class Trade:
    """Both ends of one channel, and what sends their transactions."""

    chain: LocalChain
    reader: ChainReader
    node: ChainWriter
    payer: ChainWriter
    service: Key
    session: Key
    payer_journal: Journal
    payee_journal: Journal

    @property
    def payee(self) -> Address:
        return self.node.account

    @property
    def book(self) -> PayeeBook:
        return PayeeBook(self.payee_journal, self.chain.deployment.domain, self.payee)

    @property
    def channel(self) -> PayerChannel:
        domain = self.chain.deployment.domain
        return PayerBook(self.payer_journal, domain, self.session, self.payer.account).channel(self.payee)

    async def job(self, number: int, price: int = 1_000) -> None:
        """Run one job's payments: some at the start, the rest and the leaf at its end."""
        for payment in (
            self.channel.pay(request(number), price // 2, 0),
            self.channel.end_job(request(number), leaf(number, price)),
        ):
            slot = await self.reader.channel_by_id(self.channel.id)
            self.book.accept(
                payment,
                deposit=slot.deposit,
                claimed=slot.claimed,
                exit_at=slot.exit_at,
                now=self.chain.anvil.timestamp(),
            )

    def close(self) -> None:
        self.payer_journal.close()
        self.payee_journal.close()


async def open_trade(chain: LocalChain, reader: ChainReader, folder: Path) -> Trade:
    """Register and stake a node, fund a payer, open a channel between them."""
    node, payer = ChainWriter(reader, chain.new_key()), ChainWriter(reader, chain.new_key())
    service, session = chain.new_key(), Key.generate()
    await node.mint(node.account, STAKE)
    await node.register_node(GATEWAY | WORKER | STAGE, "http://127.0.0.1:1")
    await node.add_service_key(service)
    await node.stake(STAKE)
    await payer.mint(payer.account, 10 * DEPOSIT)
    await payer.open_channel(node.account, session.address, DEPOSIT)
    return Trade(
        chain=chain,
        reader=reader,
        node=node,
        payer=payer,
        service=service,
        session=session,
        payer_journal=Journal(folder / "payer.db"),
        payee_journal=Journal(folder / "payee.db"),
    )
