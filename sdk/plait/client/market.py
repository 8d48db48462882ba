"""Quotes: asked of up to three gateways, checked, and the cheapest taken."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from plait.client.catalogue import MOST_QUOTES, Served
from plait.client.edge import ChainEdge
from plait.client.errors import NoGatewayError, SettingsError
from plait.client.gateway import GatewayClient
from plait.protocol.checks import check_quote, dearest_price
from plait.protocol.errors import PlaitError, PriceTooLowError, PromptTooLongError, RefusedError
from plait.protocol.ids import Hash
from plait.protocol.manifest import Manifest, Profile
from plait.protocol.messages import Prekey, Quote
from plait.protocol.typed import Signed

DEFAULT_MAX_TOKENS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a quote must cover; `max_price` in base units, `profiles` the best one first."""

    input_tokens: int
    max_tokens: int | None
    max_price: int | None
    profiles: tuple[Profile, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A checked quote, and what the request costs at most under it; `price` in base units."""

    gateway: GatewayClient
    quote: Signed[Quote]
    prekeys: tuple[Signed[Prekey], ...]
    profiles: tuple[Hash, ...]
    max_tokens: int
    price: int


async def best_offer(edge: ChainEdge, served: Served, wanted: Wanted, clock: Callable[[], float]) -> Offer:
    """Return the cheapest offer that fits; raise what all gateways said, or `NoGatewayError`."""
    asked = served.gateways[:MOST_QUOTES]
    answers = await asyncio.gather(
        *(_offer(edge, gateway, served, wanted, clock) for gateway in asked), return_exceptions=True
    )
    offers = [each for each in answers if isinstance(each, Offer)]
    if offers:
        return min(offers, key=lambda offer: offer.price)
    errors: list[PlaitError] = []
    for each in answers:
        if isinstance(each, PlaitError):
            errors.append(each)
        elif isinstance(each, BaseException):
            raise each
    raise _joined(errors)


def _joined(errors: Sequence[PlaitError]) -> PlaitError:
    if isinstance(errors[0], RefusedError) and all(type(each) is type(errors[0]) for each in errors):
        joined: PlaitError = errors[0]
    else:
        joined = NoGatewayError("no gateway gives a usable quote", [each.text for each in errors])
    # Whoever is back first may have one.
    joined.retry_after_s = min((each.retry_after_s for each in errors if each.retry_after_s > 0), default=0.0)
    return joined


async def _offer(
    edge: ChainEdge, gateway: GatewayClient, served: Served, wanted: Wanted, clock: Callable[[], float]
) -> Offer:
    model = served.manifest.model_id
    quote, prekeys = await gateway.quote(model, input_tokens=wanted.input_tokens, output_tokens=wanted.max_tokens or 0)
    await check_quote(edge.domain, edge.directory, quote, prekeys, gateway=gateway.owner, model=model, now=clock())
    terms = quote.message
    offered = {each.profile for each in terms.terms}
    profiles = tuple(each.profile_id for each in wanted.profiles if each.profile_id in offered)
    if not profiles:
        raise NoGatewayError(f"gateway {gateway.url} offers none of {', '.join(each.name for each in wanted.profiles)}")
    max_tokens = _room(terms, wanted, served.manifest.context)
    price = dearest_price(terms, profiles, input_tokens=wanted.input_tokens, output_tokens=max_tokens)
    if wanted.max_price is not None and price > wanted.max_price:
        raise PriceTooLowError(
            f"this request can cost {price} base units at {gateway.url}, max_price is {wanted.max_price}; "
            "raise max_price or lower max_tokens"
        )
    return Offer(
        gateway=gateway,
        quote=quote,
        prekeys=tuple(prekeys),
        profiles=profiles,
        max_tokens=max_tokens,
        price=price,
    )


def allowed_profiles(manifest: Manifest, names: Sequence[str]) -> tuple[Profile, ...]:
    """Return a model's profiles of these names in that order, all for none; raise `SettingsError` if there is none."""
    if not names:
        return manifest.profiles
    known = {profile.name: profile for profile in manifest.profiles}
    if not (found := tuple(known[name] for name in names if name in known)):
        raise SettingsError(f"model {manifest.name} has no profile {', '.join(names)}; it has {', '.join(known)}")
    return found


def _room(quote: Quote, wanted: Wanted, context: int) -> int:
    most_input = min(quote.max_input, context - 1)
    if wanted.input_tokens > most_input:
        raise PromptTooLongError(
            f"the prompt has {wanted.input_tokens} tokens, the route has room for {most_input}; shorten it"
        )
    most = min(quote.max_output, context - wanted.input_tokens)
    if wanted.max_tokens is None:
        return min(DEFAULT_MAX_TOKENS, most)
    if wanted.max_tokens > most:
        raise PromptTooLongError(f"max_tokens is {wanted.max_tokens}, after this prompt at most {most} fit; lower it")
    return wanted.max_tokens
