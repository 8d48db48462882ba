"""What this worker offers, told to gateways through the broker as long as a route can serve it."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from plait.protocol.codec import signed_to_pb, to_pb
from plait.protocol.ids import HASH_ZERO, Address, Group, Hash
from plait.protocol.messages import Record, Terms
from plait.protocol.money import MILLION, worker_share_rounded_down
from plait.protocol.pb import gateway_pb2
from plait_node.swarm.records import sign_record

if TYPE_CHECKING:
    from collections.abc import Callable

    from plait.protocol.typed import Domain, Key
    from plait_node.broker import Broker
    from plait_node.worker.membership import Membership
    from plait_node.worker.plan import Planner
    from plait_node.worker.prekeys import PrekeyRing

OFFER_KIND = 4
OFFER_VERSION = 1
_OFFER_S = 15.0
_LIFE_S = 60

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferTerms:
    """What an operator asks and allows."""

    model: Hash
    terms: tuple[Terms, ...]
    max_input: int  # tokens
    max_output: int
    share: int = MILLION  # of the payer's amount, in millionths
    parallel_jobs: int = 2

    def max_route_price(self) -> int:
        """Return what a route may cost per 1,000,000 steps, so that no step costs more than it earns."""
        cheapest = min(min(each.input_price, each.output_price) for each in self.terms)
        return worker_share_rounded_down(cheapest, self.share)


class OfferKeeper:
    """Puts the offer again and again, and takes it back while no route exists."""

    def __init__(
        self,
        offer: OfferTerms,
        *,
        broker: Broker,
        planner: Planner,
        membership: Membership,
        prekeys: PrekeyRing,
        key: Key,
        domain: Domain,
        node: Address,
        clock: Callable[[], float],
    ) -> None:
        """Offer for `node`, signed with its service key."""
        self._offer = offer
        self._broker = broker
        self._planner = planner
        self._membership = membership
        self._prekeys = prekeys
        self._key = key
        self._domain = domain
        self._node = node
        self._clock = clock
        self._closed = False
        self._turn = asyncio.Lock()

    async def put(self) -> bool:
        """Put the offer as it is now; tell whether there is one."""
        async with self._turn:
            return not self._closed and await self._put()

    async def close(self) -> None:
        """Take the offer back for good; raise `BrokerError` when the broker does not answer: it lapses then."""
        self._closed = True
        async with self._turn:
            await self._withdraw(self._membership.group)

    async def _put(self) -> bool:
        offer = self._offer
        price, group = offer.max_route_price(), self._membership
        room = await self._planner.room(price)
        before = group.group
        if room < 2:
            await self._withdraw(before)
            return False
        now_in = await group.observe(room=room, step_s=await self._planner.pace_s(price))
        max_output = min(offer.max_output, room // 2)
        body = gateway_pb2.OfferBody(
            version=OFFER_VERSION,
            prekey=signed_to_pb(self._prekeys.current()),
            model=offer.model,
            hardware=group.hardware,
            tier=group.tier,
            cohort=group.cohort,
            terms=[to_pb(terms) for terms in offer.terms],
            max_input=min(offer.max_input, room - max_output),
            max_output=max_output,
            share=offer.share,
            room=offer.parallel_jobs,
        ).SerializeToString(deterministic=True)
        now = self._clock()
        record = Record(
            kind=OFFER_KIND,
            topic=offer.model,
            node=self._node,
            sequence=int(now * 1_000),
            expires=int(now) + _LIFE_S,
            body=HASH_ZERO,
        )
        stored = sign_record(self._key, self._domain, record, body)
        message = gateway_pb2.WorkerOffer(record=signed_to_pb(stored.record), body=body)
        await self._broker.offer(self._node, offer.model, message, group=now_in)
        if before != now_in:
            await self._withdraw(before)
        return True

    async def _withdraw(self, group: Group | None) -> None:
        if group is not None:
            await self._broker.withdraw_offer(self._node, self._offer.model, group=group)

    async def run(self) -> None:
        """Put the offer for ever; until a route is found it is looked for every second."""
        while True:
            offered = False
            try:
                offered = await self.put()
            except Exception as error:  # noqa: BLE001  one failed turn must not end the ones after it
                _log.warning("offer failed error=%s", error)
            await asyncio.sleep(_OFFER_S if offered else 1.0)
