"""The pure checks behind L0, shared by SDK, gateway, worker and stages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from plait.protocol import errors, sealing
from plait.protocol.errors import BadSignatureError, VerificationError
from plait.protocol.ids import HASH_ZERO, Address, Hash, to_hex
from plait.protocol.messages import Job, Leaf, Prekey, Quote, Request, Stage, Terms
from plait.protocol.money import MILLION, job_price
from plait.protocol.typed import Domain, Signed, struct_hash
from plait.protocol.windows import Window

CLOCK_TOLERANCE_S = 30
MAX_DEADLINE_S = 3_600
CLOSES_AFTER_S = 1_800
REVOCATION_GRACE_S = 5_400
PREKEY_LIFE_S = 86_400


class ServiceKeyInfo(Protocol):
    """What `NodeRegistry` keeps of a service key for ever; `revoked_at` is 0 while it is valid."""

    @property
    def owner(self) -> Address:
        """Return the node's owner."""
        ...

    @property
    def valid_from(self) -> int:
        """Return when it was added."""
        ...

    @property
    def revoked_at(self) -> int:
        """Return when it was revoked, or 0."""
        ...


class NodeDirectory(Protocol):
    """What the chain says about nodes."""

    async def service_key(self, key: Address, /) -> ServiceKeyInfo | None:
        """Return what the chain keeps of a service key, or None when it never was one."""
        ...

    async def active(self, owner: Address, /) -> bool:
        """Say whether a node is staked enough and not jailed."""
        ...


def key_counts(key: ServiceKeyInfo, *, deadline: int, closes_at: int) -> bool:
    """Say whether evidence under a service key counts for a request."""
    revoked_late = key.revoked_at == 0 or closes_at <= key.revoked_at + REVOCATION_GRACE_S
    return key.valid_from <= deadline and revoked_late


def key_valid(key: ServiceKeyInfo, now: float) -> bool:
    """Say whether a service key may sign something new now."""
    return key.valid_from <= now + CLOCK_TOLERANCE_S and key.revoked_at == 0


def closes_at(request: Request) -> int:
    """Return until when a request's job can be disputed."""
    return request.deadline + CLOSES_AFTER_S


def terms_of(quote: Quote, profile: Hash) -> Terms | None:
    """Return what the quote asks under a profile."""
    return next((terms for terms in quote.terms if terms.profile == profile), None)


def dearest_price(quote: Quote, profiles: Iterable[Hash], *, input_tokens: int, output_tokens: int) -> int:
    """Return the most that a request can cost under any of its profiles."""
    wanted = set(profiles)
    prices = [
        job_price(terms, input_tokens=input_tokens, output_tokens=output_tokens)
        for terms in quote.terms
        if terms.profile in wanted
    ]
    return max(prices, default=0)


async def check_signer(
    domain: Domain,
    directory: NodeDirectory,
    signed: Signed[Any],
    *,
    owner: Address,
    request: Request,
    check: str,
) -> None:
    """Check that a service key of `owner` signed, and that it counts as evidence for the request."""
    info = await directory.service_key(_recovered(domain, signed, check))
    if info is None or info.owner != owner:
        raise VerificationError(check, f"it is not signed by a service key of {to_hex(owner)}")
    if not key_counts(info, deadline=request.deadline, closes_at=closes_at(request)):
        raise VerificationError(check, f"the service key of {to_hex(owner)} does not count for this request's time")


async def check_fresh_signer(
    domain: Domain, directory: NodeDirectory, signed: Signed[Any], *, owner: Address, now: float, check: str
) -> None:
    """Check that a service key of `owner`, valid now, signed, and that the node is active."""
    info = await directory.service_key(_recovered(domain, signed, check))
    if info is None or info.owner != owner or not key_valid(info, now):
        raise VerificationError(check, f"it is not signed by a valid service key of {to_hex(owner)}")
    if not await directory.active(owner):
        raise VerificationError(check, f"node {to_hex(owner)} has no stake or is jailed")


async def check_quote(
    domain: Domain,
    directory: NodeDirectory,
    quote: Signed[Quote],
    prekeys: Sequence[Signed[Prekey]],
    *,
    gateway: Address,
    model: Hash,
    now: float,
) -> None:
    """Check a gateway's quote and its workers' prekeys; raise `VerificationError`."""
    terms = quote.message
    if terms.gateway != gateway or terms.model != model:
        raise VerificationError("quote", "it names another gateway or model than asked for")
    if not now - CLOCK_TOLERANCE_S <= terms.expires <= now + PREKEY_LIFE_S:
        raise VerificationError("quote", "it has expired or lasts too long; check this machine's clock")
    if not terms.terms or not terms.workers or terms.max_input == 0 or terms.max_output == 0:
        raise VerificationError("quote", "it offers no profile, no worker or no room")
    if len({each.profile for each in terms.terms}) != len(terms.terms):
        raise VerificationError("quote", "it names a profile twice")
    await check_fresh_signer(domain, directory, quote, owner=gateway, now=now, check="quote")
    by_hash = {prekey.struct_hash(): prekey for prekey in prekeys}
    for worker in terms.workers:
        if worker.share > MILLION:
            raise VerificationError("quote", "a worker's share exceeds the whole")
        prekey = by_hash.get(worker.prekey)
        if prekey is None or prekey.message.node != worker.node:
            raise VerificationError("prekey", f"the quote's prekey of {to_hex(worker.node)} did not come with it")
        _check_prekey(prekey.message, now)
        await check_fresh_signer(domain, directory, prekey, owner=worker.node, now=now, check="prekey")


def check_request(quote: Quote, request: Request, *, now: float) -> None:
    """Check a request against its quote, as whoever receives it; raise a `RefusedError`."""
    if request.quote != struct_hash(quote) or request.gateway != quote.gateway or request.model != quote.model:
        raise errors.BadRequestError("the request does not name this quote's hash, gateway and model; ask again")
    if quote.expires < now - CLOCK_TOLERANCE_S:
        raise errors.QuoteExpiredError("the quote has expired; ask for a new one")
    if not now - CLOCK_TOLERANCE_S < request.deadline <= now + MAX_DEADLINE_S + CLOCK_TOLERANCE_S:
        raise errors.DeadlineError(f"the deadline lies between now and {MAX_DEADLINE_S} s from now; check the clock")
    _check_room(quote, request)
    if not request.profiles or any(terms_of(quote, profile) is None for profile in request.profiles):
        raise errors.BadRequestError("the request allows a profile that the quote does not offer")
    if not 1 <= request.sampling.top_p <= MILLION:
        raise errors.BadRequestError("top_p lies above 0 and is at most 1")
    price = dearest_price(quote, request.profiles, input_tokens=request.input_tokens, output_tokens=request.max_tokens)
    if request.max_price < price:
        raise errors.PriceTooLowError(
            f"this request can cost {price}, its maximum is {request.max_price} base units; "
            "raise max_price or lower max_tokens"
        )


def check_route(route: Sequence[Stage], blocks: int) -> None:
    """Check that stages tile [0, blocks) exactly; raise `VerificationError`."""
    at = 0
    for stage in route:
        if stage.first != at or stage.last <= stage.first:
            raise VerificationError("route", f"the stages do not follow one another at block {at}")
        at = stage.last
    if at != blocks:
        raise VerificationError("route", f"the stages end at block {at}, the model has {blocks}")


def check_job(quote: Quote, request: Request, job: Job, *, request_digest: Hash, blocks: int) -> None:
    """Check what a job record says against quote and request; raise `VerificationError`."""
    if job.request != request_digest:
        raise VerificationError("job", "it belongs to another request")
    if all(worker.node != job.worker for worker in quote.workers):
        raise VerificationError("job", f"worker {to_hex(job.worker)} is not in the quoted group")
    if job.profile not in request.profiles or terms_of(quote, job.profile) is None:
        raise VerificationError("job", "its profile is not one the payer allowed")
    if job.closes_at != closes_at(request):
        raise VerificationError("job", "its closesAt is not the request's deadline + 1,800 s")
    if job.start > request.max_tokens or job.row > request.input_tokens + job.start:
        raise VerificationError("job", "it starts past the last token asked for, or past its own rows")
    check_route(job.route, blocks)


def check_leaf_chain(
    domain: Domain,
    leaf: Leaf,
    *,
    job: Hash,
    stage: int,
    window: Window,
    upstream: Signed[Leaf] | None,
    previous: Signed[Leaf] | None,
) -> None:
    """Check a leaf's place: job, stage, window, the upstream leaf it embeds, the stage's own leaf before."""
    if leaf.job != job or leaf.stage != stage:
        raise VerificationError("leaf", f"it belongs to another job or stage than stage {stage} of this one")
    if (leaf.window, leaf.start, leaf.count) != (window.index, window.start, window.count):
        raise VerificationError("leaf", f"stage {stage} does not sign window {window.index} as the job is cut")
    if leaf.up_leaf != (HASH_ZERO if upstream is None else upstream.digest(domain)):
        raise VerificationError("upLeaf", f"stage {stage}, window {window.index}: another upstream leaf is embedded")
    if upstream is not None and leaf.in_root != upstream.message.out_root:
        raise VerificationError("inRoot", f"stage {stage}, window {window.index}: input differs from upstream's output")
    if leaf.prev_leaf != (HASH_ZERO if previous is None else previous.digest(domain)):
        raise VerificationError("prevLeaf", f"stage {stage}, window {window.index}: the stage's chain is broken")
    if leaf.print != HASH_ZERO:
        raise VerificationError("print", f"stage {stage}, window {window.index}: no profile defines a print yet")


def _recovered(domain: Domain, signed: Signed[Any], check: str) -> Address:
    try:
        return signed.signer(domain)
    except BadSignatureError as error:
        raise VerificationError(check, error.text) from error


def _check_room(quote: Quote, request: Request) -> None:
    if request.input_tokens > quote.max_input:
        raise errors.PromptTooLongError(
            f"the prompt has {request.input_tokens} tokens, the route has room for {quote.max_input}; shorten it"
        )
    if not 1 <= request.max_tokens <= quote.max_output:
        raise errors.PromptTooLongError(
            f"max_tokens is {request.max_tokens}, the route gives 1 to {quote.max_output}; lower it"
        )
    if request.input_tokens == 0:
        raise errors.BadRequestError("a prompt has at least one token")


def _check_prekey(prekey: Prekey, now: float) -> None:
    if len(prekey.key) != sealing.PUBLIC_BYTES.get(prekey.kem):
        raise VerificationError("prekey", f"kem {prekey.kem:#06x} is unknown or its key has another length")
    if prekey.expires - prekey.valid_from > PREKEY_LIFE_S or prekey.expires < prekey.valid_from:
        raise VerificationError("prekey", "a prekey lives at most a day")
    if not prekey.valid_from - CLOCK_TOLERANCE_S <= now <= prekey.expires + CLOCK_TOLERANCE_S:
        raise VerificationError("prekey", "it is not valid now; check this machine's clock")
