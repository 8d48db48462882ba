"""What the worker owes its stages: forwarded when the payer pays, settled when the job ends."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from plait.protocol.errors import PlaitError
from plait.protocol.ids import Address, Hash, to_hex
from plait.protocol.money import stage_fee_of
from plait.protocol.receipts import ReceiptLeaf
from plait_node.wire import WireError
from plait_node.worker.errors import StageFailure
from plait_node.worker.leaves import blocks_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from plait.protocol.codec import Payment
    from plait.protocol.messages import Pay, Stage
    from plait.protocol.typed import Signed
    from plait.protocol.windows import Window
    from plait_node.worker.desk import HopChannel, HopDesk

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Owed:
    """What one stage is owed for of one request: whole windows that the payer was told of."""

    steps: int = 0
    windows: int = 0


_NOTHING = Owed()


class HopPay:
    """The payments of one attempt, which add to what earlier attempts owe."""

    def __init__(
        self,
        desk: HopDesk,
        *,
        request: Hash,
        route: Sequence[Stage],
        row: int,
        own: Address,
        owed: Mapping[Address, Owed],
    ) -> None:
        """Pay all stages but those of the `own` operator, which need no hop, for the steps from `row` on."""
        self._desk = desk
        self._request = request
        self._route = route
        self._stages = [stage for stage in route if stage.node != own]
        self._row = row
        self._before = dict(owed)
        self._paid_end = 0
        self._to = 0

    def before(self, node: Address) -> Owed:
        """Return what earlier attempts owe a stage."""
        return self._before.get(node, _NOTHING)

    def owed(self, windows: Sequence[Window]) -> dict[Address, Owed]:
        """Return what each stage is owed when this attempt closed `windows`."""
        steps = sum(window.count for window in windows)
        before = {stage.node: self.before(stage.node) for stage in self._route}
        return {
            node: Owed(steps=each.steps + steps, windows=each.windows + len(windows)) for node, each in before.items()
        }

    async def cover(self, *, paid_end: int, to: int, payer: Signed[Pay] | None) -> None:
        """Pay every stage for the steps below `paid_end`, showing the payer's Pay; raise `StageFailure`."""
        if paid_end <= self._paid_end:
            return
        self._paid_end, self._to = paid_end, max(to, self._to)
        for stage in self._stages:
            fee = stage_fee_of(stage, max(0, self.before(stage.node).steps + paid_end - self._row))
            if not fee:
                continue
            try:
                await self._desk.send(stage.node, lambda channel, fee=fee: channel.pay(self._request, fee, to), payer)
            except WireError as error:
                raise StageFailure(stage.node, blocks_of(stage), error.text, unheard=True) from error

    async def acknowledged(self) -> None:
        """Wait until every stage has acknowledged; raise `StageFailure` blaming one that did not."""
        done = await asyncio.gather(*(self._desk.acknowledged(stage.node) for stage in self._stages))
        for stage, acknowledged in zip(self._stages, done, strict=True):
            if not acknowledged:
                raise self._late(stage)

    def check_overdue(self) -> None:
        """Raise `StageFailure` for a stage that lets a payment lie."""
        for stage in self._stages:
            if self._desk.overdue(stage.node):
                raise self._late(stage)

    async def settle(
        self,
        kind: int,
        leaf: Hash,
        windows: Sequence[Window],
        *,
        paid_end: int,
        payer: Signed[Pay] | None,
        skip: frozenset[Address] = frozenset(),
    ) -> None:
        """End the job on every hop but those to `skip` at the price of those `windows` that end by `paid_end`.

        A stage that is gone gets this when it is linked to again. What it was paid ahead it keeps: it may have signed
        for it just before its leaves were lost, and would refuse less, and with that every later voucher.
        """
        owed = self.owed([window for window in windows if window.end <= paid_end])
        for stage in (each for each in self._stages if each.node not in skip):
            due = owed[stage.node]
            fee = stage_fee_of(stage, due.steps)
            ended = ReceiptLeaf(kind=kind, hash=leaf, hop_amount=fee, windows_paid=due.windows)
            try:
                await self._desk.send(stage.node, lambda channel, ended=ended: self._end(channel, ended), payer)
            except PlaitError as error:
                _log.warning(
                    "hop not settled yet node=%s request=%s error=%s", to_hex(stage.node), to_hex(self._request), error
                )

    def _end(self, channel: HopChannel, leaf: ReceiptLeaf) -> Payment:
        amount = max(leaf.hop_amount, channel.paid(self._request).amount)
        return channel.end_job(self._request, replace(leaf, hop_amount=amount), to=self._to)

    def _late(self, stage: Stage) -> StageFailure:
        reason, unheard = self._desk.silence(stage.node)
        return StageFailure(stage.node, blocks_of(stage), reason, unheard=unheard)
