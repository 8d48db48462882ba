"""A JobCall as it came over HTTP, or as another gateway of this operator took it: read and range-checked."""

from __future__ import annotations

from dataclasses import dataclass

from plait.protocol import codec
from plait.protocol.codec import Payment
from plait.protocol.errors import MalformedMessageError
from plait.protocol.ids import Address, Hash, channel_id, keccak
from plait.protocol.messages import MAX_WORKERS, Quote, Request
from plait.protocol.pb import gateway_pb2
from plait.protocol.typed import Domain, Signed, struct_hash
from plait_node.gateway.store import StoredJob

_MOST_CAPSULE = 4_096


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What a JobCall says; `name` is the request's digest, `content` tells calls under one request apart."""

    quote: Signed[Quote]
    request: Signed[Request]
    payment: Payment
    name: Hash
    content: Hash
    raw: gateway_pb2.JobCall


def read_call(raw: gateway_pb2.JobCall, domain: Domain) -> Call:
    """Read a call, its signatures unchecked; raise `MalformedMessageError`."""
    quote = codec.signed_from_pb(raw.quote, Quote)
    request = codec.signed_from_pb(raw.request, Request)
    payment = codec.payment_from_pb(raw.payment)
    quoted = [worker.node for worker in quote.message.workers]
    sealed_for = [capsule.node for capsule in raw.capsules]
    if len(sealed_for) > MAX_WORKERS or sorted(sealed_for) != sorted(quoted):
        raise MalformedMessageError("a job brings exactly one capsule for each quoted worker")
    if any(not 1 <= len(capsule.sealed) <= _MOST_CAPSULE for capsule in raw.capsules) or not raw.prompt:
        raise MalformedMessageError("a capsule or the sealed prompt is empty or too large")
    capsules = b"".join(capsule.node + keccak(capsule.sealed) for capsule in raw.capsules)
    content = keccak(struct_hash(quote.message), request.signature, capsules, keccak(raw.prompt))
    name = request.digest(domain)
    return Call(quote=quote, request=request, payment=payment, name=name, content=content, raw=raw)


def job_of(call: Call, *, me: Address, signer: Address) -> StoredJob:
    """Return what a gateway of the owner `me` keeps of a call whose request this signer signed."""
    request = call.request.message
    return StoredJob(
        name=call.name,
        channel=channel_id(request.payer, me, signer),
        payer=request.payer,
        signer=signer,
        content=call.content,
        call=call.raw,
        deadline=request.deadline,
    )
