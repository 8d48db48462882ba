"""Live workers as they offer themselves in the broker, each checked, and quotes made of them."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from plait.protocol import codec
from plait.protocol.checks import CLOCK_TOLERANCE_S, PREKEY_LIFE_S, check_fresh_signer
from plait.protocol.errors import (
    BadRequestError,
    NoRouteError,
    PlaitError,
    ProtocolError,
    UnknownModelError,
    VerificationError,
)
from plait.protocol.ids import Address, Group, Hash, group_id, keccak, to_hex
from plait.protocol.manifest import Manifest
from plait.protocol.messages import MAX_PROFILES, MAX_WORKERS, Prekey, Quote, Record, Request, Terms, Worker
from plait.protocol.money import MILLION
from plait.protocol.pb import gateway_pb2
from plait.protocol.typed import Signed
from plait_node.broker import BrokerError
from plait_node.chain_tiers import ChainTiers
from plait_node.gateway.errors import BrokerAwayError
from plait_node.gateway.faces import Outside
from plait_node.gateway.hops import Strangers
from plait_node.gateway.limits import JOBS_BURST, JOBS_PER_S, CallLimiter
from plait_node.gateway.queues import GroupQueues, limit_of
from plait_node.gateway.shelf import ModelShelf
from plait_node.policy import NotServedError

_LOG = logging.getLogger(__name__)
OFFER_KIND = 4
_VERSION = 1
_FRESH_S = 1.0
_READ_S = 4.0  # payers leave a call for the models after 5 s: they are told to come back before that
_QUOTE_LIFE_S = 300
_OFFER_LIFE_S = 60
_MOST_ROOM = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A worker that is live, and on what terms; `room` counts the jobs it takes at once."""

    worker: Address
    model: Hash
    group: Group
    prekey: Signed[Prekey]
    terms: tuple[Terms, ...]
    tier: int
    max_input: int
    max_output: int
    share: int
    room: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a payer is about to ask for, in tokens; 0 for what it did not say."""

    input_tokens: int = 0
    output_tokens: int = 0


_ANY_NEEDS = Needs()


class OfferBook:
    """Reads the bucket of offers at most once a second."""

    def __init__(self, outside: Outside, shelf: ModelShelf, strangers: Strangers | None = None) -> None:
        """Without `strangers` only workers of the gateway's own owner are quoted."""
        self._shelf, self._strangers = shelf, strangers
        self._broker, self._directory, self._clock = outside.broker, outside.directory, outside.clock
        self._domain, self._me, self._key = outside.domain, outside.me, outside.key
        self._queues = GroupQueues(outside.broker, outside.clock)
        self._payers = CallLimiter(outside.clock, per_s=JOBS_PER_S, burst=JOBS_BURST)
        self._tiers = ChainTiers(outside.chain, clock=outside.clock)
        # Until when a worker that changed its class still takes the jobs of the group it left.
        self._left: dict[tuple[Hash, Group], float] = {}
        self._offers: tuple[Offer, ...] = ()
        self._read_at = float("-inf")

    async def live(self) -> tuple[Offer, ...]:
        """Return the checked offers for models whose manifest is here; raise `BrokerAwayError`."""
        now = self._clock()
        if now - self._read_at >= _FRESH_S:
            try:
                async with asyncio.timeout(_READ_S):
                    received = await self._broker.offers()
            except (BrokerError, TimeoutError) as error:
                why = str(error) or "its broker is silent"
                raise BrokerAwayError(f"the gateway cannot reach its workers now ({why}); try again") from error
            checked = [await self._check(offer, now) for offer in received]
            before, self._offers = self._offers, tuple(offer for offer in checked if offer is not None)
            self._note_moves(before, now)
            self._read_at = now
        return self._offers

    async def quote(self, model: Hash, needs: Needs = _ANY_NEEDS) -> tuple[Signed[Quote], list[Signed[Prekey]]]:
        """Return a signed quote over the best group for a model; raise `UnknownModelError` or `NoRouteError`.

        The best: one that can hold the job, then the cheapest, then one without a queue, then the one whose room is
        the closest fit, so that long rooms stay free for long jobs, then the highest tier.
        """
        offers = [offer for offer in await self.live() if offer.model == model]
        if not offers:
            raise await self._unknown(model)
        groups: defaultdict[Group, list[Offer]] = defaultdict(list)
        for offer in offers:
            groups[offer.group].append(offer)
        made = [quote for group in sorted(groups) if (quote := self._quote(model, group, groups[group]))]
        if not made:
            raise NoRouteError("the workers of this model agree on no terms now; try again in a minute")
        places = [await self._place_of(quote, groups[quote.group], needs) for quote in made]
        quote = made[min(range(len(made)), key=lambda at: places[at])]
        prekeys = {offer.prekey.struct_hash(): offer.prekey for offer in offers}
        return self._key.signed(self._domain, quote), [prekeys[worker.prekey] for worker in quote.workers]

    @asynccontextmanager
    async def place(self, quote: Quote, request: Request) -> AsyncGenerator[None]:
        """Hold a place in the quoted group's queue while a payer's job is published.

        Raise `BadRequestError`, `TooManyCallsError`, `NoRouteError` when no quoted worker is live that can hold the
        job, or `BusyError` when the queue is full.
        """
        manifest = self._shelf.manifest(quote.model)
        if manifest is not None and request.input_tokens + request.max_tokens > manifest.context:
            raise BadRequestError(
                f"prompt and answer may have {manifest.context} tokens together, the context of {manifest.name}; "
                "shorten the prompt or lower max_tokens"
            )
        name = f"payer {to_hex(request.payer)}"
        self._payers.check(name)
        self._payers.charge(name)
        quoted = {worker.node for worker in quote.workers}
        live = [offer for offer in await self.live() if offer.worker in quoted and self._takes(offer, quote.group)]
        if not live:
            raise NoRouteError("no worker of the quoted group is live now; ask for a new quote")
        # Any worker of the group may be the one that takes it.
        if not all(_holds(offer, request.input_tokens, request.max_tokens) for offer in live):
            raise NoRouteError("the quoted group has lost the room for this job meanwhile; ask for a new quote")
        async with self._queues.place(quote.group, sum(offer.room for offer in live)):
            yield

    def _note_moves(self, before: Sequence[Offer], now: float) -> None:
        """Remember which group a worker left for another class; one whose tier fell takes no job of it any more."""
        current = {_name_of(offer): offer for offer in self._offers}
        offered = {(_name_of(offer), offer.group) for offer in self._offers}
        self._left = {key: until for key, until in self._left.items() if until > now and key[0] in current}
        for old in before:
            name = _name_of(old)
            new = current.get(name)
            if new is None or (name, old.group) in offered:
                continue
            if new.tier < old.tier:
                self._left = {key: until for key, until in self._left.items() if key[0] != name}
            else:
                self._left[name, old.group] = now + _QUOTE_LIFE_S

    def _takes(self, offer: Offer, group: Group) -> bool:
        return offer.group == group or self._left.get((_name_of(offer), group), 0.0) > self._clock()

    async def _place_of(self, quote: Quote, offers: Sequence[Offer], needs: Needs) -> tuple[float, ...]:
        """Return a quote's place among the others, the lowest first."""
        room = sum(offer.room for offer in offers)
        return (
            not _holds(quote, needs.input_tokens, needs.output_tokens),
            sum(each.output_price for each in quote.terms),
            await self._queues.crowd(quote.group, room),
            quote.max_input + quote.max_output,
            -min(offer.tier for offer in offers),
            -len(quote.workers),
        )

    async def served(self, quote: Quote) -> bool:
        """Tell whether a worker that a quote names is live and takes jobs of its group; raise `BrokerAwayError`."""
        named = {each.node for each in quote.workers}
        return any(offer.worker in named and self._takes(offer, quote.group) for offer in await self.live())

    def queue_limit(self, group: bytes) -> int:
        """Return how many jobs of a group may wait or run, 0 for one whose workers are gone."""
        return limit_of(sum(offer.room for offer in self._offers if offer.group == group))

    async def listing(self) -> gateway_pb2.ModelListing:
        """Return the models that live workers offer; one that is kept here and has none now is named without terms."""
        listing = gateway_pb2.ModelListing()
        for model, manifest in sorted(self._shelf.manifests().items()):
            try:
                quote, _ = await self.quote(model)
            except NoRouteError:
                listing.models.add(model=model, name=manifest.name)
                continue
            listing.models.add(
                model=model,
                name=manifest.name,
                terms=[codec.to_pb(terms) for terms in quote.message.terms],
                max_input=quote.message.max_input,
                max_output=quote.message.max_output,
            )
        return listing

    def _quote(self, model: Hash, group: Group, offers: Sequence[Offer]) -> Quote | None:
        """Make a quote that every worker of the group agrees with: the dearest price, the least room."""
        vouched = self._strangers is not None and bool(self._strangers.workers.allowed)
        chosen = _agreeing(self._me, offers, vouched=vouched)
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
        manifest = self._shelf.manifest(record.topic)
        if body.version != _VERSION or manifest is None or not await self._may_serve(record.node, body.share):
            return None
        if body.tier and not await self._tiers.has(record.node, body.tier):
            raise VerificationError("offer", f"it claims tier {body.tier}, which its owner does not have on chain")
        prekey = codec.signed_from_pb(body.prekey, Prekey)
        _check_prekey(prekey.message, record.node, now)
        for each in (signed, prekey):
            await check_fresh_signer(self._domain, self._directory, each, owner=record.node, now=now, check="offer")
        return _offer(record, body, prekey, manifest)

    async def _may_serve(self, owner: Address, share: int) -> bool:
        """Tell whether an owner's worker is quoted at this share of the price; a stranger is paid over a channel."""
        if owner == self._me:
            return True
        if self._strangers is None or share > self._strangers.most_share:
            return False
        try:
            self._strangers.workers.check(owner, "worker")
        except NotServedError:
            return False
        return await self._directory.active(owner)


def _agreeing(me: Address, offers: Sequence[Offer], *, vouched: bool) -> list[Offer]:
    """Return the offers that one quote may be made of, at most `MAX_WORKERS`.

    Workers of several owners are named together only where the operator has `vouched` for them by name: one of a quote
    can take a job from another one. A worker of another owner then joins where it makes the quote no dearer and not
    much smaller than our own workers do, or than the cheapest worker does where there is none of ours: nobody spoils a
    group by joining it.
    """
    ours = [offer for offer in offers if offer.worker == me]
    base = ours or [min(offers, key=lambda each: (_dearest(each), -each.max_input - each.max_output, each.worker))]
    price = tuple(max(_dearest(each)[at] for each in base) for at in (0, 1))
    most = min(each.max_input for each in base), min(each.max_output for each in base)
    profiles = {terms.profile for terms in base[0].terms}.intersection(*({t.profile for t in b.terms} for b in base))

    def fits(each: Offer) -> bool:
        cheap = all(asked <= limit for asked, limit in zip(_dearest(each), price, strict=True))
        large = 2 * each.max_input >= most[0] and 2 * each.max_output >= most[1]
        return cheap and large and profiles <= {terms.profile for terms in each.terms}

    owners = {each.worker for each in base}
    others: list[Offer] = []
    for each in sorted(offers, key=lambda each: each.worker):
        if vouched and each.worker not in owners and fits(each):  # one of each owner, who has one channel
            owners.add(each.worker)
            others.append(each)
    return [*base, *others][:MAX_WORKERS]


def _dearest(offer: Offer) -> tuple[int, int]:
    return max(terms.output_price for terms in offer.terms), max(terms.input_price for terms in offer.terms)


def _name_of(offer: Offer) -> Hash:
    """Tell workers of one owner apart: each has prekeys of its own."""
    return offer.prekey.struct_hash()


def _holds(offered: Offer | Quote, input_tokens: int, output_tokens: int) -> bool:
    return input_tokens <= offered.max_input and output_tokens <= offered.max_output


def _check_prekey(prekey: Prekey, node: Address, now: float) -> None:
    if prekey.node != node or not prekey.valid_from - CLOCK_TOLERANCE_S <= now < prekey.expires:
        raise VerificationError("prekey", "it is another node's, or not valid now")
    if prekey.expires - prekey.valid_from > PREKEY_LIFE_S:
        raise VerificationError("prekey", "a prekey lives at most a day")


def _offer(record: Record, body: gateway_pb2.OfferBody, prekey: Signed[Prekey], manifest: Manifest) -> Offer:
    """Read an offer; what it promises beyond the model's context nobody can hold."""
    terms = tuple(codec.from_pb(each, Terms) for each in body.terms[: MAX_PROFILES + 1])
    if not 1 <= len(terms) <= MAX_PROFILES or len({each.profile for each in terms}) != len(terms):
        raise VerificationError("offer", "it names no profile, too many, or one twice")
    if any(manifest.profile(each.profile) is None for each in terms):
        raise VerificationError("offer", "it names a profile that the model's manifest does not have")
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
        tier=body.tier,
        max_input=min(body.max_input, manifest.context - 1),
        max_output=min(body.max_output, manifest.context - 1),
        share=body.share,
        room=body.room,
    )
