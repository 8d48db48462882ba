"""Channels as the chain has them, asked again when it matters, and the chain's clock against ours."""

from __future__ import annotations

from collections import OrderedDict

from plait.protocol.checks import CLOCK_TOLERANCE_S
from plait.protocol.errors import ClockError
from plait.protocol.ids import Address, Hash, channel_id
from plait_node.gateway.faces import Outside
from plait_node.settlement.till import ChannelFacts

_FRESH_S = 5.0
_CLOCK_FRESH_S = 15.0
_MOST = 10_000


class ChannelView:
    """The slots of channels that pay this node, at most a few seconds old."""

    def __init__(self, outside: Outside) -> None:
        self._chain, self._me, self._clock = outside.chain, outside.me, outside.clock
        self._slots: OrderedDict[Hash, tuple[float, ChannelFacts]] = OrderedDict()
        self._clock_checked = float("-inf")

    async def slot(self, payer: Address, signer: Address, *, needed: int = 0) -> ChannelFacts:
        """Return a channel's slot; an old one is read again when its deposit is below `needed` or an exit runs."""
        channel = channel_id(payer, self._me, signer)
        now = self._clock()
        known = self._slots.get(channel)
        if known is not None and now - known[0] < _FRESH_S:
            slot = known[1]
            if slot.deposit >= max(1, needed) and slot.exit_at == 0:
                return slot
        slot = await self._chain.channel(payer, self._me, signer)
        if len(self._slots) >= _MOST:
            self._slots.popitem(last=False)
        self._slots[channel] = (now, slot)
        return slot

    async def check_clock(self) -> None:
        """Raise `ClockError` when the chain's newest block lies in our future."""
        now = self._clock()
        if now - self._clock_checked < _CLOCK_FRESH_S:
            return
        ahead = (await self._chain.block()).timestamp - now
        if ahead > CLOCK_TOLERANCE_S:
            raise ClockError(
                f"this gateway's clock is {ahead:.0f} s behind the chain's; its operator must set it, ask another one"
            )
        self._clock_checked = now
