"""The claimer: each ended job's voucher becomes one claim on chain, once, whatever happens in between."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Literal

from plait.chain import (
    ChainWriter,
    ChannelSlot,
    ContractError,
    NonceTakenError,
    TxResult,
    skipped_rows,
)
from plait.ledger import ChannelState, Intent, Journal, Outbox, PayeeBook, Round
from plait.protocol.ids import Address, Hash, to_hex
from plait.protocol.receipts import ClaimRow
from plait_node.settlement.outages import OUTAGES, outage

log = logging.getLogger(__name__)

Policy = Literal["after-each-job", "threshold", "manual"]

# Two purposes, so that the rounds of "claim" stay in order: "last" takes whatever voucher a channel has.
_ROUND, _LAST = "claim", "claim-last"
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 60.0
_AT_ONCE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One claim and what became of it; amounts in base units.

    `status`: waiting (not sent), sent (not in a block yet), done, skipped (in a block, without effect), moot (paid
    already), refused, lost (a reorganisation undid it; it is sent again).
    """

    channel: Hash
    payer: Address
    cumulative: int
    jobs: int
    status: str
    tx: Hash | None = None
    block: int | None = None
    gas_used: int = 0
    fee_wei: int = 0
    note: str = ""


class Claimer:
    """Claims for one payee with one writer. Start `run` once; `notify` it when a payment was accepted."""

    def __init__(
        self,
        journal: Journal,
        writer: ChainWriter,
        me: Address,
        *,
        policy: Policy = "after-each-job",
        threshold: int = 0,
        watch_s: float = 15.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Claim by `policy`; with "threshold" once a channel owes `threshold` base units that were not claimed."""
        self._writer = writer
        self._reader = writer.reader
        self._me = me
        self._book = PayeeBook(journal, writer.reader.deployment.domain, me)
        self._outbox = Outbox(journal, clock=clock)
        self._policy: Policy = policy
        self._threshold = threshold
        self._watch_s = watch_s
        self._watched: float | None = None
        self._wake = asyncio.Event()
        # Whether a channel is this process's to claim for: of several gateways of one payee each has its own.
        self.owns: Callable[[Hash], bool] = lambda _: True
        self._one_at_a_time = asyncio.Lock()

    def notify(self) -> None:
        """Say that the journal may hold something new to claim."""
        self._wake.set()

    async def run(self) -> None:
        """Claim until cancelled; an endpoint that is down costs time, never a claim."""
        pause = _FIRST_PAUSE_S
        while True:
            self._wake.clear()
            # Both, whatever happens to the other: a claim that is stuck must not hide a payer who leaves.
            fine = [await self._try(step) for step in (self.settle, self._watch_when_due)]
            wait, pause = (self._watch_s, _FIRST_PAUSE_S) if all(fine) else (pause, min(2 * pause, _LONGEST_PAUSE_S))
            try:
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def settle(self) -> None:
        """Send what is due, one transaction for each ended job or large channel; finish what an earlier run began."""
        async with self._one_at_a_time:
            for intent in self._outbox.open(_ROUND, _LAST):
                await self._finish(intent)
            if self._policy == "after-each-job":
                for due in await self._unpaid(self._due()):
                    await self._finish(self._intend(_ROUND, due))
            if self._policy == "threshold":
                for due in self._large():
                    await self._finish(self._intend(_LAST, due))

    async def claim_now(self) -> None:
        """Claim the last voucher of every channel that is worth more than the chain has paid."""
        for state, slot in await self._slots():
            await self._claim_last(state, slot)

    async def watch(self) -> None:
        """Compare journal and contract: claim where a payer is leaving, and again what a reorganisation undid."""
        for state, slot in await self._slots():
            journalled = state.voucher.message.cumulative
            if slot.claimed > journalled:
                log.error(
                    "the chain paid more than the journal knows channel=%s claimed=%d journalled=%d",
                    to_hex(state.channel),
                    slot.claimed,
                    journalled,
                )
            self._reopen_lost(state.channel, slot)
            if slot.exit_at and journalled > slot.claimed:
                log.warning("a payer is leaving, claiming channel=%s exit_at=%d", to_hex(state.channel), slot.exit_at)
                await self._claim_last(state, slot)

    def claims(self) -> list[Claim]:
        """Return all claims, oldest first."""
        return [self._claim(intent) for intent in self._outbox.intents(_ROUND, _LAST)]

    def waiting(self) -> int:
        """Return how many ended jobs are not claimed yet."""
        return len(self._outbox.open(_ROUND)) + len(self._due())

    async def _try(self, step: Callable[[], Awaitable[None]]) -> bool:
        try:
            await step()
        except OUTAGES as error:
            log.warning("claims wait, %s: %s", outage(error), error.text)
            return False
        return True

    async def _watch_when_due(self) -> None:
        if self._watched is None or time.monotonic() - self._watched >= self._watch_s:
            await self.watch()
            self._watched = time.monotonic()

    def _due(self) -> list[Round]:
        newest = self._outbox.newest(_ROUND)
        return self._book.rounds(after=int.from_bytes(newest.subject, "big") if newest else 0)

    def _large(self) -> list[Round]:
        """Return the last voucher of each channel that owes the threshold beyond the last claim that was done."""
        found: list[Round] = []
        for state in self._book.channels():
            last, done = self._book.last_round(state.channel), self._outbox.newest_done(state.channel, _ROUND, _LAST)
            claimed = _body(done)[1].cumulative if done else 0
            if last and self.owns(state.channel) and last.voucher.message.cumulative - claimed >= self._threshold:
                found.append(last)
        return found

    async def _unpaid(self, due: list[Round]) -> list[Round]:
        """Leave out what another gateway claimed before its channel came here, but for each channel's last round."""
        last = {each.channel: each.seq for each in due}
        several = [each for each in due if each.seq != last[each.channel]]
        paid = {each: (await self._reader.channel_by_id(each)).claimed for each in {each.channel for each in several}}
        return [
            each
            for each in due
            if each.seq == last[each.channel] or each.voucher.message.cumulative > paid[each.channel]
        ]

    def _intend(self, purpose: str, due: Round) -> Intent:
        return self._outbox.intend(purpose, due.seq.to_bytes(8, "big"), due.channel + due.row().pack())

    async def _slots(self) -> list[tuple[ChannelState, ChannelSlot]]:
        gate = asyncio.Semaphore(_AT_ONCE)

        async def slot(state: ChannelState) -> tuple[ChannelState, ChannelSlot]:
            async with gate:
                return state, await self._reader.channel_by_id(state.channel)

        return await asyncio.gather(*(slot(state) for state in self._book.channels() if self.owns(state.channel)))

    async def _claim_last(self, state: ChannelState, slot: ChannelSlot) -> None:
        last = self._book.last_round(state.channel)
        if last and last.voucher.message.cumulative > slot.claimed:
            async with self._one_at_a_time:
                await self._finish(self._intend(_LAST, last))

    def _reopen_lost(self, channel: Hash, slot: ChannelSlot) -> None:
        newest = self._outbox.newest_done(channel, _ROUND, _LAST)
        if newest and _body(newest)[1].cumulative > slot.claimed:
            log.warning("a claim is no longer on chain, sending it again channel=%s", to_hex(channel))
            self._outbox.finish(newest, "lost", note="a reorganisation undid it")
            self._wake.set()

    async def _finish(self, intent: Intent) -> None:
        channel, row = _body(intent)
        if not self._outbox.is_open(intent) or not self.owns(channel):
            return
        try:
            result = await self._send(intent, channel, row)
        except ContractError as error:
            log.warning("a claim was refused channel=%s: %s", to_hex(channel), error.text)
            self._outbox.finish(intent, "refused", note=error.text)
            return
        if result is None:
            self._outbox.finish(intent, "moot", note="the chain had paid this voucher already")
        elif skipped_rows(result):
            note = await self._why_skipped(channel, row)
            log.warning("a claim's row was skipped channel=%s: %s", to_hex(channel), note)
            self._outbox.finish(intent, "skipped", result=result, note=note)
        else:
            tx, gas = to_hex(result.hash), result.gas_used
            log.info("claimed channel=%s cumulative=%d tx=%s gas=%d", to_hex(channel), row.cumulative, tx, gas)
            self._outbox.finish(intent, "done", result=result)

    async def _send(self, intent: Intent, channel: Hash, row: ClaimRow) -> TxResult | None:
        record = self._outbox.recorder(intent)
        if variants := self._outbox.variants(intent):
            try:
                return await self._writer.resume(variants, journal=record)
            except NonceTakenError as error:
                log.warning("a claim's transaction can never land, signing another: %s", error.text)
        if (await self._reader.channel_by_id(channel)).claimed >= row.cumulative:
            return None
        return await self._writer.claim(self._me, [row], journal=record)

    async def _why_skipped(self, channel: Hash, row: ClaimRow) -> str:
        slot = await self._reader.channel_by_id(channel)
        if slot.deposit == 0:
            return "no such channel: the payer never opened it with this signer"
        if row.cumulative > slot.deposit:
            return f"the voucher is for {row.cumulative} base units, the channel holds {slot.deposit}"
        return f"the chain had paid {slot.claimed} base units, the voucher is for {row.cumulative}"

    def _claim(self, intent: Intent) -> Claim:
        channel, row = _body(intent)
        named = Claim(channel=channel, payer=row.payer, cumulative=row.cumulative, jobs=row.jobs, status="waiting")
        if outcome := self._outbox.outcome(intent):
            return replace(
                named,
                status=outcome.status,
                tx=outcome.tx,
                block=outcome.block,
                gas_used=outcome.gas_used,
                fee_wei=outcome.fee_wei,
                note=outcome.note,
            )
        variants = self._outbox.variants(intent)
        return replace(named, status="sent", tx=variants[-1].hash) if variants else named


def _body(intent: Intent) -> tuple[Hash, ClaimRow]:
    return Hash(intent.body[:32]), ClaimRow.unpack(intent.body[32:])
