"""Live workers as they offer themselves in the broker, each checked, and quotes made of them."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from plait.protocol import codec
from plait.protocol.checks import CLOCK_TOLERANCE_S, PREKEY_LIFE_S, check_fresh_signer
from plait.protocol.errors import (
    BusyError,
    NoRouteError,
    PlaitError,
    ProtocolError,
    UnknownModelError,
    VerificationError,
)
from plait.protocol.ids import Address, Group, Hash, group_id, keccak, to_hex
from plait.protocol.messages import MAX_PROFILES, MAX_WORKERS, Prekey, Quote, Record, Terms, Worker
from plait.protocol.money import MILLION
from plait.protocol.pb import gateway_pb2
from plait.protocol.typed import Signed
from plait_node.broker import BrokerError
from plait_node.gateway.errors import BrokerAwayError
from plait_node.gateway.faces import Outside
from plait_node.gateway.shelf import ModelShelf

_LOG = logging.getLogger(__name__)
OFFER_KIND = 4
_VERSION = 1
_FRESH_S = 1.0
_QUOTE_LIFE_S = 300
_OFFER_LIFE_S = 60
_MOST_ROOM = 1_000
# Jobs that may wait for each one that the group takes at once.
_WAITING_A_ROOM = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A worker that is live, and on what terms; `room` counts the jobs it takes at once."""

    worker: Address
    model: Hash
    group: Group
    prekey: Signed[Prekey]
    terms: tuple[Terms, ...]
    max_input: int
    max_output: int
    share: int
    room: int


class OfferBook:
    """Reads the bucket of offers at most once a second."""

    def __init__(self, outside: Outside, shelf: ModelShelf) -> None:
        self._shelf = shelf
        self._broker, self._directory, self._clock = outside.broker, outside.directory, outside.clock
        self._domain, self._me, self._key = outside.domain, outside.me, outside.key
        self._offers: tuple[Offer, ...] = ()
        self._read_at = float("-inf")

    async def live(self) -> tuple[Offer, ...]:
        """Return the checked offers for models whose manifest is here; raise `BrokerAwayError`."""
        now = self._clock()
        if now - self._read_at >= _FRESH_S:
            try:
                received = await self._broker.offers()
            except BrokerError as error:
                raise BrokerAwayError(f"the gateway cannot reach its workers now ({error}); try again") from error
            checked = [await self._check(offer, now) for offer in received]
            self._offers = tuple(offer for offer in checked if offer is not None)
            self._read_at = now
        return self._offers

    async def quote(self, model: Hash) -> tuple[Signed[Quote], list[Signed[Prekey]]]:
        """Return a signed quote over the best group for a model; raise `UnknownModelError` or `NoRouteError`."""
        offers = [offer for offer in await self.live() if offer.model == model]
        if not offers:
            raise await self._unknown(model)
        groups: defaultdict[Group, list[Offer]] = defaultdict(list)
        for offer in offers:
            groups[offer.group].append(offer)
        made = [quote for group in sorted(groups) if (quote := self._quote(model, group, groups[group]))]
        if not made:
            raise NoRouteError("the workers of this model agree on no terms now; try again in a minute")
        quote = min(made, key=lambda quote: (sum(each.output_price for each in quote.terms), -len(quote.workers)))
        prekeys = {offer.prekey.struct_hash(): offer.prekey for offer in offers}
        return self._key.signed(self._domain, quote), [prekeys[worker.prekey] for worker in quote.workers]

    async def ensure_capacity(self, quote: Quote) -> None:
        """Raise `NoRouteError` when no quoted worker is live, `BusyError` when too many jobs wait for them."""
        quoted = {worker.node for worker in quote.workers}
        live = [offer for offer in await self.live() if offer.group == quote.group and offer.worker in quoted]
        if not live:
            raise NoRouteError("no worker of the quoted group is live now; ask for a new quote")
        room = sum(offer.room for offer in live)
        try:
            backlog = await self._broker.backlog(quote.group)
        except BrokerError as error:
            raise BrokerAwayError(f"the gateway cannot reach its workers now ({error}); try again") from error
        if backlog >= room * (1 + _WAITING_A_ROOM):
            raise BusyError(f"{backlog} jobs wait for this group already; try again in a moment")

    async def listing(self) -> gateway_pb2.ModelListing:
        """Return the models that live workers offer."""
        listing = gateway_pb2.ModelListing()
        offers = await self.live()
        for model in sorted({offer.model for offer in offers}):
            manifest = self._shelf.manifest(model)
            quote, _ = await self.quote(model)
            listing.models.add(
                model=model,
                name=manifest.name if manifest else "",
                terms=[codec.to_pb(terms) for terms in quote.message.terms],
                max_input=quote.message.max_input,
                max_output=quote.message.max_output,
            )
        return listing

    def _quote(self, model: Hash, group: Group, offers: Sequence[Offer]) -> Quote | None:
        """Make a quote that every worker of the group agrees with: the dearest price, the least room."""
        chosen = sorted(offers, key=lambda offer: offer.worker)[:MAX_WORKERS]
        common = {terms.profile for terms in chosen[0].terms}
        for offer in chosen[1:]:
            common &= {terms.profile for terms in offer.terms}
        asked = [terms for offer in chosen for terms in offer.terms]
        terms = [
            Terms(
                profile=profile,
                input_price=max(each.input_price for each in asked if each.profile == profile),
                output_price=max(each.output_price for each in asked if each.profile == profile),
            )
            for profile in sorted(common)[:MAX_PROFILES]
        ]
        if not terms:
            return None
        return Quote(
            gateway=self._me,
            model=model,
            group=group,
            terms=tuple(terms),
            workers=tuple(
                Worker(node=offer.worker, prekey=offer.prekey.struct_hash(), share=offer.share) for offer in chosen
            ),
            max_input=min(offer.max_input for offer in chosen),
            max_output=min(offer.max_output for offer in chosen),
            expires=min(int(self._clock()) + _QUOTE_LIFE_S, *(offer.prekey.message.expires for offer in chosen)),
        )

    async def _unknown(self, model: Hash) -> PlaitError:
        manifest = self._shelf.manifest(model)
        if manifest is not None:
            return NoRouteError(f"no worker serves {manifest.name} now; try again in a minute")
        served = sorted({offer.model for offer in await self.live()})
        names = [f"{known.name} ({to_hex(each)})" for each in served if (known := self._shelf.manifest(each))]
        text = f"this gateway serves {', '.join(names)}" if names else "this gateway serves no model now"
        return UnknownModelError(f"model {to_hex(model)} is not served here; {text}")

    async def _check(self, received: gateway_pb2.WorkerOffer, now: float) -> Offer | None:
        try:
            return await self._checked(received, now)
        except (ProtocolError, VerificationError) as error:
            _LOG.warning("offer refused reason=%s", error.text)
            return None

    async def _checked(self, received: gateway_pb2.WorkerOffer, now: float) -> Offer | None:
        signed = codec.signed_from_pb(received.record, Record)
        record = signed.message
        body = codec.parse(gateway_pb2.OfferBody, received.body)
        if (record.kind, record.topic, record.body) != (OFFER_KIND, body.model, keccak(received.body)):
            raise VerificationError("offer", "its record names another kind, model or body")
        if not now < record.expires <= now + _OFFER_LIFE_S + CLOCK_TOLERANCE_S:
            raise VerificationError("offer", "it has expired or lasts too long; check the worker's clock")
        # A worker of another operator would have to be paid over a channel of its own.
        if record.node != self._me or body.version != _VERSION or self._shelf.manifest(record.topic) is None:
            return None
        prekey = codec.signed_from_pb(body.prekey, Prekey)
        _check_prekey(prekey.message, record.node, now)
        for each in (signed, prekey):
            await check_fresh_signer(self._domain, self._directory, each, owner=record.node, now=now, check="offer")
        return _offer(record, body, prekey)


def _check_prekey(prekey: Prekey, node: Address, now: float) -> None:
    if prekey.node != node or not prekey.valid_from - CLOCK_TOLERANCE_S <= now < prekey.expires:
        raise VerificationError("prekey", "it is another node's, or not valid now")
    if prekey.expires - prekey.valid_from > PREKEY_LIFE_S:
        raise VerificationError("prekey", "a prekey lives at most a day")


def _offer(record: Record, body: gateway_pb2.OfferBody, prekey: Signed[Prekey]) -> Offer:
    terms = tuple(codec.from_pb(each, Terms) for each in body.terms[: MAX_PROFILES + 1])
    if not 1 <= len(terms) <= MAX_PROFILES or len({each.profile for each in terms}) != len(terms):
        raise VerificationError("offer", "it names no profile, too many, or one twice")
    if not body.max_input or not body.max_output or body.share > MILLION or not 1 <= body.room <= _MOST_ROOM:
        raise VerificationError("offer", "its limits, share or room are out of range")
    if len(body.hardware) > 64 or not body.hardware.isprintable():
        raise VerificationError("offer", "its class is at most 64 printable characters")
    return Offer(
        worker=record.node,
        model=record.topic,
        group=group_id(record.topic, body.hardware, body.tier, body.cohort),
        prekey=prekey,
        terms=terms,
        max_input=body.max_input,
        max_output=body.max_output,
        share=body.share,
        room=body.room,
    )
