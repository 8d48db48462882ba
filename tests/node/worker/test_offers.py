"""Offers appear while a route can serve them, and go when none can."""

from __future__ import annotations

import time
from pathlib import Path

from tests.node.stage.tiny import MANIFEST
from tests.node.wire.peers import DOMAIN
from tests.node.worker.asked import TERMS
from tests.node.worker.world import World, world

from plait.protocol.codec import from_pb, signed_from_pb
from plait.protocol.ids import Address
from plait.protocol.messages import Prekey, Record, Terms
from plait.protocol.pb import gateway_pb2
from plait_node.swarm.records import StoredRecord, check_record
from plait_node.worker import Membership, OfferKeeper, OfferTerms
from plait_node.worker.offers import OFFER_KIND


class Tiers:
    async def tier(self, owner: Address) -> int:
        return 3


def keeper(made: World) -> OfferKeeper:
    return OfferKeeper(
        OfferTerms(model=MANIFEST.model_id, terms=(TERMS,), max_input=300, max_output=100),
        broker=made.broker,
        planner=made.planner,
        membership=Membership(
            MANIFEST.model_id,
            "cpu",
            owner=made.who.owner,
            tiers=Tiers(),
            clock=time.time,
            path=made.net.folder / "groups.json",
        ),
        prekeys=made.prekeys,
        key=made.who.key,
        domain=DOMAIN,
        node=made.who.owner,
        clock=time.time,
    )


async def test_offer_is_signed_and_says_what_is_served(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        assert await keeper(made).put()
        (offer,) = await made.broker.offers()
        record = signed_from_pb(offer.record, Record)
        await check_record(
            StoredRecord(record=record, body=offer.body),
            domain=DOMAIN,
            keys=made.net.directory,
            kind=OFFER_KIND,
            topic=MANIFEST.model_id,
            node=made.who.owner,
            now=time.time(),
        )
        body = gateway_pb2.OfferBody.FromString(offer.body)
        assert signed_from_pb(body.prekey, Prekey) == made.prekeys.current()
        assert from_pb(body.terms[0], Terms) == TERMS
        assert (body.max_input, body.max_output) == (300, 100)
        assert (body.hardware, body.tier) == ("cpu-short-fast", 3)


async def test_offer_shrinks_to_the_routes_room(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        await made.announce(made.net.nodes[1], free_steps=120)
        assert await keeper(made).put()
        body = gateway_pb2.OfferBody.FromString((await made.broker.offers())[0].body)
        assert body.max_input + body.max_output == 120


async def test_offer_is_taken_back_when_no_route_is_left(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        keeping = keeper(made)
        assert await keeping.put()
        await made.announce(made.net.nodes[1], price=10**9)  # beyond what the terms can pay
        await made.swarm.refresh(MANIFEST.model_id)
        assert not await keeping.put()
        assert await made.broker.offers() == []


async def test_offer_is_taken_back_for_good_when_the_worker_closes(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        keeping = keeper(made)
        assert await keeping.put()
        await keeping.close()
        assert await made.broker.offers() == []
        assert not await keeping.put()
        assert await made.broker.offers() == []
