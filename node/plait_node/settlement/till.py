"""Take payments of the hop before: journal first, then acknowledge."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol
from weakref import WeakValueDictionary

from plait.ledger import WrongPartyError
from plait.protocol.codec import Payment, amount_bytes, signed_to_pb
from plait.protocol.ids import Address, Hash, channel_id, to_hex
from plait.protocol.messages import Ack, Voucher
from plait.protocol.pb import signed_pb2
from plait.protocol.typed import Domain, Key, Signed

_FRESH_S = 15.0  # an exit runs for a day: this old a look at the channel is good enough
_LOOK_S = 0.5  # between looks at a channel whose deposit may be on its way
_MOST = 4_096


class ChannelFacts(Protocol):
    """A channel as the chain stores it; amounts in base units, times in Unix seconds."""

    @property
    def deposit(self) -> int:
        """Return what the payer put in, ever."""
        ...

    @property
    def claimed(self) -> int:
        """Return what was taken out by vouchers, ever."""
        ...

    @property
    def exit_at(self) -> int:
        """Return when the payer may take the rest, 0 while no exit runs."""
        ...


class Channels(Protocol):
    """The part of the chain reader that a payee asks."""

    async def channel(self, payer: Address, payee: Address, signer: Address, /) -> ChannelFacts:
        """Return a channel; all zero when it was never opened."""
        ...


class Accepted(Protocol):
    """What a payee book answers to a payment it has journalled; amounts in base units."""

    @property
    def channel(self) -> Hash:
        """Return the channel's id."""
        ...

    @property
    def new_amount(self) -> int:
        """Return what the request is paid more than before."""
        ...

    @property
    def paid(self) -> int:
        """Return what the request is paid in all on this channel."""
        ...

    @property
    def credit(self) -> int:
        """Return what is prepaid and not yet used on the channel."""
        ...

    @property
    def voucher(self) -> Hash:
        """Return the voucher's struct hash."""
        ...


class Standing(Protocol):
    """Where a channel stands."""

    @property
    def voucher(self) -> Signed[Voucher]:
        """Return the last voucher that was accepted."""
        ...


class Payees(Protocol):
    """The part of `PayeeBook` that a payee uses."""

    def accept(self, payment: Payment, /, *, deposit: int, claimed: int, exit_at: int, now: float) -> Accepted:
        """Check and journal a payment."""
        ...

    def state(self, payer: Address, signer: Address, /) -> Standing | None:
        """Return where a channel stands, None before its first payment."""
        ...

    def earn(self, channel: Hash, request: Hash, amount: int, /) -> None:
        """Journal what our work on a request is worth so far, in base units."""
        ...


@dataclass(slots=True, kw_only=True)
class Till:
    """Checks payments of the hop before and has them journalled."""

    owner: Address
    key: Key
    domain: Domain
    channels: Channels
    payees: Payees
    clock: Callable[[], float]
    unpaid_s: float  # how long a deposit on its way is waited for
    _slots: dict[tuple[Address, Address], tuple[float, ChannelFacts]] = field(
        default_factory=dict[tuple[Address, Address], tuple[float, ChannelFacts]]
    )
    _turns: WeakValueDictionary[Hash, asyncio.Lock] = field(default_factory=WeakValueDictionary[Hash, asyncio.Lock])

    async def take(self, payment: Payment, earned: Callable[[Hash], int]) -> Accepted:
        """Journal a payment; raise what the payee book refuses.

        `earned` tells what the request is worth so far on this channel: it cannot end below what was paid of that. A
        channel that is not open yet, or not topped up yet, is waited for as long as a payment on its way is.
        """
        voucher, pay = payment.voucher.message, payment.pay.message
        if voucher.payee != self.owner:
            raise WrongPartyError(f"the voucher pays another node than {to_hex(self.owner)}")
        signer = payment.voucher.signer(self.domain)
        channel = channel_id(voucher.payer, self.owner, signer)
        # Vouchers of a channel are journalled in the order they came; nobody waits for another payer's channel.
        async with self._turns.setdefault(channel, asyncio.Lock()):
            slot = await self._slot(voucher.payer, signer, needed=voucher.cumulative)
            if amount := earned(channel):
                self.payees.earn(channel, pay.request, amount)
            return self.payees.accept(
                payment, deposit=slot.deposit, claimed=slot.claimed, exit_at=slot.exit_at, now=self.clock()
            )

    def ack(self, accepted: Accepted) -> signed_pb2.Acknowledgement:
        """Return the acknowledgement of a journalled payment."""
        ack = self.key.signed(self.domain, Ack(voucher=accepted.voucher, at=int(self.clock())))
        return signed_pb2.Acknowledgement(ack=signed_to_pb(ack), credit=amount_bytes(accepted.credit))

    def stands(self, payment: Payment) -> Signed[Voucher] | None:
        """Return the last voucher that was accepted on a payment's channel."""
        state = self.payees.state(payment.voucher.message.payer, payment.voucher.signer(self.domain))
        return state.voucher if state is not None else None

    async def _slot(self, payer: Address, signer: Address, *, needed: int) -> ChannelFacts:
        now = self.clock()
        known = self._slots.get((payer, signer))
        if known is not None and now - known[0] < _FRESH_S and known[1].deposit >= max(1, needed):
            return known[1]
        if len(self._slots) >= _MOST:
            self._slots.clear()
        slot = await self._funded(payer, signer, needed=max(1, needed))
        self._slots[payer, signer] = (now, slot)
        return slot

    async def _funded(self, payer: Address, signer: Address, *, needed: int) -> ChannelFacts:
        """Return the channel once it holds `needed` base units, or as it is when we have waited long enough."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self.unpaid_s
        while True:
            slot = await self.channels.channel(payer, self.owner, signer)
            if slot.deposit >= needed or loop.time() >= until:
                return slot
            await asyncio.sleep(min(_LOOK_S, self.unpaid_s))
