"""The payer's money: session key, channels, and payments that a gateway acknowledges in order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from plait.client.edge import ChainEdge
from plait.client.errors import GatewayDownError
from plait.client.gateway import Acknowledged, GatewayClient
from plait.client.settings import Settings
from plait.ledger.journal import Journal
from plait.ledger.keys import load_key, new_key_file
from plait.ledger.payer import PaidJob, PayerBook, PayerChannel
from plait.protocol.checks import check_fresh_signer
from plait.protocol.codec import Payment
from plait.protocol.errors import (
    BusyError,
    ChannelExitingError,
    DepositTooSmallError,
    PlaitError,
    StaleVoucherError,
    VerificationError,
)
from plait.protocol.ids import Address, Hash, to_hex
from plait.protocol.receipts import ReceiptLeaf
from plait.protocol.typed import Key

Send = Callable[[Payment], Awaitable[Acknowledged]]

_PATIENCE = (0.2, 0.5, 1.0, 1.0, 1.0, 1.0, 3.0)  # between tries while a gateway restarts, or another takes its place


class Purse:
    """All that one wallet signs away on one deployment. Its session key lives in the folder, the wallet's does not."""

    def __init__(self, settings: Settings, edge: ChainEdge, folder: Path, clock: Callable[[], float]) -> None:
        self._settings, self._edge, self._clock = settings, edge, clock
        self.payer = settings.payer().address
        path = folder / "session.key"
        self.session: Key = load_key(path) if path.exists() else new_key_file(path)
        self._journal = Journal(folder / "journal.sqlite")
        self._journal.bind(edge.identity)
        self._book = PayerBook(self._journal, edge.domain, self.session, self.payer, clock=clock)
        self._locks: dict[Address, asyncio.Lock] = {}
        self._settled: set[Address] = set()  # payees with whom this client compared vouchers
        self._deposits: dict[Address, int] = {}
        self._reserved: dict[Address, dict[Hash, int]] = {}  # what running requests may still cost

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()

    def job(self, request: Hash) -> PaidJob | None:
        """Return what was paid for a request, None when nothing was."""
        return self._book.job(request)

    def channel(self, payee: Address) -> PayerChannel:
        """Return the book's side of the channel to a payee."""
        return self._book.channel(payee)

    def release(self, payee: Address, request: Hash) -> None:
        """Forget what a request that ended could have cost."""
        self._reserved.get(payee, {}).pop(request, None)

    async def fund(self, gateway: GatewayClient, request: Hash, price: int) -> None:
        """Open the channel or top it up for a request of `price` base units; raise a `RefusedError`."""
        async with self._lock(gateway.owner):
            slot = await self._edge.channel(gateway.owner, self.session.address)
            if slot.exit_at:
                raise ChannelExitingError(
                    f"you are leaving the channel to {to_hex(gateway.owner)} (withdraw from {slot.exit_at} on); "
                    "withdraw first, or name another gateway"
                )
            book = self.channel(gateway.owner)
            reserved = self._reserved.setdefault(gateway.owner, {})
            open_ = sum(max(0, most - book.paid(each).amount) for each, most in reserved.items())
            needed = max(book.cumulative + open_ + price - book.credit, slot.claimed)
            missing = needed - slot.deposit
            if missing > 0:
                amount = await self._affordable(missing)
                act = self._edge.top_up if slot.deposit > slot.claimed else self._edge.open_channel
                await act(gateway.owner, self.session.address, amount)
                slot = await self._edge.channel(gateway.owner, self.session.address)
                if slot.deposit < needed:
                    raise DepositTooSmallError(f"the channel holds {slot.deposit} base units, {needed} are needed")
            self._deposits[gateway.owner] = slot.deposit
            reserved[request] = price

    async def pay(
        self, gateway: GatewayClient, request: Hash, amount: int, *, to: int, send: Send | None = None
    ) -> Acknowledged:
        """Sign `amount` base units in all for a request and have it acknowledged."""
        async with self._lock(gateway.owner):
            await self._compare(gateway)
            deposit = self._deposits.get(gateway.owner)
            payment = self.channel(gateway.owner).pay(request, amount, to, deposit=deposit)
            return await self._deliver(gateway, payment, send or gateway.pay)

    async def end(self, gateway: GatewayClient, request: Hash, leaf: ReceiptLeaf, *, to: int) -> bool:
        """End a request with its leaf; return False when the gateway did not confirm: the next payment repeats it."""
        async with self._lock(gateway.owner):
            payment = self.channel(gateway.owner).end_job(request, leaf, to=to)
            for pause in (*_PATIENCE, None):
                try:
                    await self._deliver(gateway, payment, gateway.pay)
                except GatewayDownError:
                    self._settled.discard(gateway.owner)
                    if pause is None:
                        return False
                    await asyncio.sleep(pause)
                else:
                    return True
            return False

    async def _deliver(self, gateway: GatewayClient, payment: Payment, send: Send) -> Acknowledged:
        try:
            acknowledged = await send(payment)
        except StaleVoucherError:
            await self._catch_up(gateway, until=payment)
            acknowledged = await send(payment)
        except BusyError:
            raise  # it kept nothing, and takes the same payment later: there is nothing new to compare
        except PlaitError:
            self._settled.discard(gateway.owner)
            raise
        if acknowledged.ack.message.voucher != payment.voucher.struct_hash():
            raise VerificationError("ack", "the gateway acknowledged another voucher than was sent")
        await check_fresh_signer(
            self._edge.domain,
            self._edge.directory,
            acknowledged.ack,
            owner=gateway.owner,
            now=self._clock(),
            check="ack",
        )
        return acknowledged

    async def _compare(self, gateway: GatewayClient) -> None:
        if gateway.owner not in self._settled:
            await self._catch_up(gateway)
            self._settled.add(gateway.owner)

    async def _catch_up(self, gateway: GatewayClient, until: Payment | None = None) -> None:
        """Send what the gateway lacks, oldest first: a crash may have come between signing and sending."""
        channel = self.channel(gateway.owner)
        voucher = await gateway.channel_state(self.payer, self.session.address)
        ahead = voucher is not None and voucher.message.cumulative > channel.cumulative
        leaves = await gateway.ended(channel.id, voucher.message.jobs) if voucher is not None and ahead else []
        for payment in channel.recover(voucher, leaves):
            if until is not None and payment.voucher == until.voucher:
                return
            await gateway.pay(payment)

    async def _affordable(self, missing: int) -> int:
        deposit, balance = self._settings.deposit, await self._edge.balance()
        if deposit < missing:
            raise DepositTooSmallError(
                f"this answer needs {missing} base units more than the channel holds, deposit is {deposit}; "
                f"pass deposit={missing} or more, or lower max_tokens"
            )
        if balance < missing:
            raise DepositTooSmallError(
                f"the channel needs {missing} base units and wallet {to_hex(self.payer)} holds {balance}; fund it"
            )
        return min(deposit, balance)

    def _lock(self, payee: Address) -> asyncio.Lock:
        return self._locks.setdefault(payee, asyncio.Lock())
