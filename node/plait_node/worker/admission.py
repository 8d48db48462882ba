"""What a worker checks of a job before it touches it, and what it then holds."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from plait.protocol import errors
from plait.protocol.checks import NodeDirectory, check_fresh_signer, check_request, terms_of
from plait.protocol.codec import payment_from_pb, signed_from_pb
from plait.protocol.commitments import prompt_commitment, stop_commitment
from plait.protocol.ids import Address, Hash, to_hex
from plait.protocol.messages import Cancel, Pay, Quote, Request, Terms
from plait.protocol.money import job_price
from plait.protocol.sealing import ContentKey, open_prompt
from plait.protocol.typed import Domain, Signed, digest
from plait_node.policy import EVERYBODY, Guests

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plait.protocol.manifest import Manifest
    from plait.protocol.pb import gateway_pb2
    from plait_node.worker.prekeys import PrekeyRing


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A request that this worker may serve, opened. Without quote and Pay: one from the chain."""

    request: Request
    digest: Hash
    content_key: ContentKey = field(repr=False)
    ids: tuple[int, ...] = field(repr=False)
    stop: tuple[str, ...] = field(repr=False)
    quote: Signed[Quote] | None = None
    signed_request: Signed[Request] | None = None
    pay: Signed[Pay] | None = None
    signer: Address | None = None  # whose Pays and Cancels count

    @property
    def gateway(self) -> Address:
        """Return who relays the answer."""
        return self.request.gateway

    def terms(self, profile: Hash) -> Terms | None:
        """Return what the payer pays under a profile; None on the on-chain path, where the fee is the price."""
        return terms_of(self.quote.message, profile) if self.quote is not None else None

    def price(self, profile: Hash, output_tokens: int) -> int:
        """Return the price of the input and this many output tokens, in base units."""
        terms = self.terms(profile)
        if terms is None:
            return self.request.max_price
        return job_price(terms, input_tokens=self.request.input_tokens, output_tokens=output_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """The checks of one worker."""

    owner: Address
    domain: Domain
    directory: NodeDirectory
    prekeys: PrekeyRing
    manifest: Manifest
    payers: Guests = EVERYBODY
    least: tuple[int, int] = (0, 0)  # of a million tokens in and out, in base units
    share: int = 0  # least of the payer's amount that a gateway of another owner is to pay us, in millionths

    async def admit(self, call: gateway_pb2.JobCall, *, now: float) -> Task:
        """Return the opened task; raise a `RefusedError`, `ProtocolError` or `PrekeyError`."""
        quote = signed_from_pb(call.quote, Quote)
        signed = signed_from_pb(call.request, Request)
        request = signed.message
        self._check_model(request)
        self.payers.check(request.payer, "payer")
        self._check_price(quote.message)
        check_request(quote.message, request, now=min(now, quote.message.expires))
        if not now < request.deadline:
            raise errors.DeadlineError("the deadline has passed; send a new request")
        await check_fresh_signer(self.domain, self.directory, quote, owner=request.gateway, now=now, check="quote")
        request_digest = digest(self.domain, request)
        signer = signed.signer(self.domain)
        payment = payment_from_pb(call.payment)
        content_key = self._open(quote.message, call, request_digest)
        ids, stop = open_prompt(content_key, request_digest, call.prompt)
        check_commitments(request, content_key, ids, stop)
        task = Task(
            request=request,
            digest=request_digest,
            content_key=content_key,
            ids=tuple(ids),
            stop=tuple(stop),
            quote=quote,
            signed_request=signed,
            pay=payment.pay,
            signer=signer,
        )
        check_pay(self.domain, task, payment.pay)
        return task

    def admit_on_chain(self, request: Request, ids: Sequence[int], content_key: ContentKey) -> Task:
        """Return the task of a request from the chain; the key is the public one where its prompt is."""
        self._check_model(request)
        self.payers.check(request.payer, "payer")
        check_commitments(request, content_key, ids, ())
        if len(request.profiles) != 1 or request.gateway != self.owner:
            raise errors.BadRequestError("a request from the chain names this node and one profile")
        return Task(
            request=request, digest=digest(self.domain, request), content_key=content_key, ids=tuple(ids), stop=()
        )

    def _check_model(self, request: Request) -> None:
        if request.model != self.manifest.model_id:
            raise errors.UnknownModelError(
                f"this worker serves {to_hex(self.manifest.model_id)}, not {to_hex(request.model)}"
            )

    def _check_price(self, quote: Quote) -> None:
        """Check that neither a profile nor our share is quoted below what we ask; raise `PriceTooLowError`."""
        for terms in quote.terms:
            if terms.input_price < self.least[0] or terms.output_price < self.least[1]:
                raise errors.PriceTooLowError(
                    f"this worker asks {self.least[0]} and {self.least[1]} base units per 1,000,000 tokens in and out, "
                    f"the quote says {terms.input_price} and {terms.output_price}; ask for a new quote"
                )
        ours = [worker.share for worker in quote.workers if worker.node == self.owner]
        if quote.gateway != self.owner and min(ours, default=0) < self.share:
            raise errors.PriceTooLowError(
                f"this worker asks {self.share} millionths of the price, the quote says {min(ours, default=0)}; "
                "ask for a new quote"
            )

    def _open(self, quote: Quote, call: gateway_pb2.JobCall, request: Hash) -> ContentKey:
        # Several workers may be of one owner, each with its own prekeys: whose capsule is whose shows when one opens.
        prekeys = {worker.prekey for worker in quote.workers if worker.node == self.owner}
        sealed = [capsule.sealed for capsule in call.capsules if capsule.node == self.owner][: len(prekeys)]
        if not prekeys or not sealed:
            raise errors.BadRequestError(f"the quote or the capsules do not name worker {to_hex(self.owner)}")
        _, secret = self.prekeys.held(prekeys)
        for capsule in sealed[:-1]:
            with contextlib.suppress(errors.SealingError):
                return secret.open(capsule, request=request, node=self.owner)
        return secret.open(sealed[-1], request=request, node=self.owner)


def check_commitments(request: Request, content_key: ContentKey, ids: Sequence[int], stop: Sequence[str]) -> None:
    """Check that prompt and stop strings are what the request commits to; raise `BadRequestError`."""
    if len(ids) != request.input_tokens or request.prompt != prompt_commitment(content_key, ids):
        raise errors.BadRequestError("the sealed prompt is not what the request commits to; seal the same ids")
    if request.sampling.stop != stop_commitment(content_key, stop):
        raise errors.BadRequestError("the sealed stop strings are not what the request commits to")


def check_pay(domain: Domain, task: Task, pay: Signed[Pay], *, unpaid: int = 0) -> None:
    """Check that a Pay is the payer's own for this request and pays for what it covers, but `unpaid` tokens.

    Raise `BadRequestError`.
    """
    if pay.message.request != task.digest or pay.signer(domain) != task.signer:
        raise errors.BadRequestError("the Pay is not the payer's own for this request")
    tokens = max(0, pay.message.to - unpaid)
    least = min((task.price(profile, tokens) for profile in task.request.profiles), default=0)
    if pay.message.amount < least:
        raise errors.BadRequestError(
            f"the Pay is over {pay.message.amount} base units, {tokens} tokens cost {least}; pay the difference"
        )


def is_cancel(domain: Domain, task: Task, signed: Signed[Cancel]) -> bool:
    """Tell whether a Cancel is the payer's own for this request."""
    return signed.message.request == task.digest and signed.signer(domain) == task.signer
