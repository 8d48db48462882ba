"""The opener: channels to stages are opened and topped up in the background, within what the operator allows.

The chain's slot is the truth: it is read before each transaction, which is journalled before an endpoint sees it and
brought to its end, after a restart as well, before the next one is signed. So no deposit is made twice.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from plait.chain import ChannelSlot, ContractError, NonceTakenError
from plait.ledger import Intent, Journal, Outbox
from plait.protocol.ids import Address, channel_id, to_hex
from plait_node.settlement.outages import OUTAGES, outage

if TYPE_CHECKING:
    from plait.chain import ChainWriter, TxResult

log = logging.getLogger(__name__)

_PURPOSE = "hop-deposit"
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 60.0
_AT_ONCE = 8
# What each step over a stage counts longer for a planner: a new pair costs a transaction and binds a deposit; one that
# the limits keep closed works no further than the stage's credit.
_NEW_PAIR_S, _CLOSED_PAIR_S = 0.02, 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an operator allows; amounts in base units."""

    deposit: int  # that a channel is opened with, and topped up to
    most: int  # in all channels together that nobody has claimed yet
    share: float  # a channel is topped up when less than this share of the deposit is left


@dataclass(frozen=True, slots=True, kw_only=True)
class Deposit:
    """One deposit and what became of it, as `Claim` has it for a claim; `amount` in base units."""

    payee: Address
    amount: int
    status: str
    note: str = ""


class Opener:
    """Keeps the channels of one account funded, with one writer. Start `run` once; `covers` tells it what is needed."""

    def __init__(
        self,
        journal: Journal,
        writer: ChainWriter,
        limits: Limits,
        *,
        promised: Callable[[Address], int],
        watch_s: float = 60.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Deposit from the writer's account, whose key signs the vouchers as well; `promised` is a channel's total."""
        self._writer = writer
        self._reader = writer.reader
        self._limits = limits
        self._promised = promised
        self._watch_s = watch_s
        self._outbox = Outbox(journal, clock=clock)
        self._slots: dict[Address, ChannelSlot] = {}
        self._wanted: set[Address] = set()
        self._put_off: dict[Address, str] = {}
        self._loaded = False
        self._wake = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        self.on_funded: Callable[[Address], Awaitable[None]] = _nothing

    def covers(self, payee: Address, cumulative: int, /) -> bool:
        """Tell whether the channel to a payee holds `cumulative` base units; see to it when it soon will not."""
        slot = self._slots.get(payee)
        left = slot.deposit - cumulative if slot else -1
        if (slot is None or left < self._least()) and payee not in self._put_off:
            self._wanted.add(payee)
            self._wake.set()
        return left >= 0

    def hesitation_s(self, payee: Address) -> float:
        """Return by how much a step over a stage is to count longer because its channel is not funded, in seconds."""
        slot = self._slots.get(payee)
        if slot is not None and slot.deposit and slot.deposit >= self._promised(payee):
            return 0.0
        return _CLOSED_PAIR_S if payee in self._put_off else _NEW_PAIR_S

    async def run(self) -> None:
        """Open and top up until cancelled; an endpoint that is down costs time, never a deposit."""
        pause, looked = _FIRST_PAUSE_S, time.monotonic()
        while True:
            self._wake.clear()
            if time.monotonic() - looked >= self._watch_s:
                looked = time.monotonic()
                self._wanted |= set(self._slots) | set(self._put_off)
                self._put_off.clear()
            try:
                await self.settle()
            except OUTAGES as error:
                log.warning("deposits wait, %s: %s", outage(error), error.text)
                wait, pause = pause, min(2 * pause, _LONGEST_PAUSE_S)
                await asyncio.sleep(wait)
                continue
            pause = _FIRST_PAUSE_S
            try:
                async with asyncio.timeout(self._watch_s):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def settle(self) -> None:
        """Finish what an earlier run began, then see to every channel that is asked for; raise `ChainError`."""
        async with self._one_at_a_time:
            for intent in self._outbox.open(_PURPOSE):
                await self._resume(intent)
            if not self._loaded:
                await self._read(self._body(each)[0] for each in self._outbox.intents(_PURPOSE) if self._is_ours(each))
                self._loaded = True
            for payee in sorted(self._wanted):
                self._wanted.discard(payee)  # now: what is asked for meanwhile is looked at again
                try:
                    await self._see_to(payee)
                except OUTAGES:
                    self._wanted.add(payee)
                    raise

    def deposits(self) -> list[Deposit]:
        """Return all deposits, oldest first."""
        found: list[Deposit] = []
        for intent in self._outbox.intents(_PURPOSE):
            payee, amount = self._body(intent)
            outcome = self._outbox.outcome(intent)
            status, note = (outcome.status, outcome.note) if outcome else ("sent", "")
            found.append(Deposit(payee=payee, amount=amount, status=status, note=note))
        return found

    def bound(self) -> int:
        """Return what lies in the known channels and nobody has claimed, in base units."""
        return sum(max(0, slot.deposit - slot.claimed) for slot in self._slots.values())

    def _least(self) -> float:
        return self._limits.share * self._limits.deposit

    async def _read(self, payees: Iterable[Address]) -> None:
        """Read slots at a block that is not before our last deposit: an endpoint that lacks it yet is waited for."""
        account, gate = self._writer.account, asyncio.Semaphore(_AT_ONCE)
        last = self._outbox.newest_done(b"", _PURPOSE)
        outcome = self._outbox.outcome(last) if last else None
        where = max((await self._reader.block()).number, outcome.block or 0 if outcome else 0)

        async def slot(payee: Address) -> None:
            async with gate:
                self._slots[payee] = await self._reader.channel(account, payee, account, where=where)

        await asyncio.gather(*(slot(payee) for payee in set(payees)))

    async def _see_to(self, payee: Address) -> None:
        await self._read([payee])
        slot, promised = self._slots[payee], self._promised(payee)
        left = slot.deposit - promised
        if left < self._least() or not slot.deposit:
            amount = self._limits.deposit - left
            if reason := await self._why_not(slot, amount):
                self._put_off[payee] = reason
                log.warning("channel not funded node=%s amount=%d reason=%s", to_hex(payee), amount, reason)
            else:
                await self._deposit(payee, slot, amount)
        if self._slots[payee].deposit:
            await self.on_funded(payee)

    async def _why_not(self, slot: ChannelSlot, amount: int) -> str:
        """Return what stands against a deposit, nothing when it may be made."""
        if slot.exit_at:
            return "the channel is being left"
        if self.bound() + amount > self._limits.most:
            await self._read(self._slots)  # others may have claimed since
        if self.bound() + amount > self._limits.most:
            return f"{self.bound()} base units lie in channels, channels_most allows {self._limits.most}"
        held = await self._reader.token_balance(self._writer.account)
        if held < amount:
            return f"the account {to_hex(self._writer.account)} holds {held} base units; send it more"
        return ""

    async def _deposit(self, payee: Address, slot: ChannelSlot, amount: int) -> None:
        number = len(self._outbox.intents(_PURPOSE)).to_bytes(8, "big")
        body = self._channel(payee) + payee + amount.to_bytes(12, "big")
        intent = self._outbox.intend(_PURPOSE, number, body)
        send = self._writer.top_up if slot.deposit else self._writer.open_channel
        signer, journal = self._writer.account, self._outbox.recorder(intent)
        await self._finish(intent, send(payee, signer, amount, journal=journal))

    async def _resume(self, intent: Intent) -> None:
        """Bring a deposit to its end that was begun; what was never signed, or can never land, is decided anew."""
        payee, _ = self._body(intent)
        variants = self._outbox.variants(intent)
        if not self._is_ours(intent) or not variants:
            self._outbox.finish(intent, "moot", note="it was not sent, or by another key")
            return
        self._wanted.add(payee)
        await self._finish(intent, self._writer.resume(variants, journal=self._outbox.recorder(intent)))

    async def _finish(self, intent: Intent, sending: Awaitable[TxResult]) -> None:
        payee, amount = self._body(intent)
        try:
            result = await sending
        except NonceTakenError as error:
            self._outbox.finish(intent, "moot", note=error.text)
        except ContractError as error:
            log.warning("a deposit was refused node=%s amount=%d: %s", to_hex(payee), amount, error.text)
            self._outbox.finish(intent, "refused", note=error.text)
            self._put_off[payee] = error.text
        else:
            tx, gas = to_hex(result.hash), result.gas_used
            log.info("channel funded node=%s amount=%d tx=%s gas=%d", to_hex(payee), amount, tx, gas)
            self._outbox.finish(intent, "done", result=result)
            await self._read([payee])

    def _channel(self, payee: Address) -> bytes:
        return channel_id(self._writer.account, payee, self._writer.account)

    def _is_ours(self, intent: Intent) -> bool:
        """Tell whether a deposit was for a channel of the account that sends now."""
        return intent.body[:32] == self._channel(self._body(intent)[0])

    def _body(self, intent: Intent) -> tuple[Address, int]:
        return Address(intent.body[32:52]), int.from_bytes(intent.body[52:], "big")


async def _nothing(_: Address) -> None:
    """Tell nobody."""
