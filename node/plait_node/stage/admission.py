"""What a stage checks before it works for anybody (docs/protocol.md, section 6)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from plait.protocol.checks import (
    CLOCK_TOLERANCE_S,
    MAX_DEADLINE_S,
    check_fresh_signer,
    check_job,
    check_request,
    check_route,
    check_signer,
    closes_at,
    terms_of,
)
from plait.protocol.codec import from_pb, hashes, signed_from_pb
from plait.protocol.errors import BadRequestError, ChannelUnknownError, DeadlineError, MalformedMessageError
from plait.protocol.ids import HASH_ZERO, Address, Hash, hash32, to_hex
from plait.protocol.messages import Job, Pay, Quote, Request, Stage
from plait.protocol.money import input_price_rounded_up
from plait.protocol.pb import stage_pb2 as pb
from plait.protocol.typed import Signed, digest
from plait.protocol.windows import WINDOW_STEPS, Cut
from plait_node.settlement.till import Channels
from plait_node.stage.codecs import RowCodecs
from plait_node.stage.config import OnChain
from plait_node.stage.credit import CreditLine
from plait_node.stage.errors import NoRoomError, NotInRouteError
from plait_node.stage.surroundings import Surroundings
from plait_node.swarm.records import StoredRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenCall:
    """An `Open` frame, well formed and not yet believed. Without quote and signature: a request from the chain."""

    quote: Signed[Quote] | None
    request: Request
    signed_request: Signed[Request] | None
    job: Signed[Job]
    job_hash: Hash
    salt_rows: Hash
    stage: int
    next: StoredRecord | None
    lineage: tuple[Hash, ...]
    room: int
    before: int
    pay: Signed[Pay] | None

    @classmethod
    def from_pb(cls, received: pb.Open) -> OpenCall:
        """Read the frame; raise `MalformedMessageError` or a `BadRecordError`."""
        signed = signed_from_pb(received.request, Request) if received.request.signature else None
        request = signed.message if signed else from_pb(received.request.message, Request)
        job = signed_from_pb(received.job, Job)
        if len(received.lineage) > (request.input_tokens + job.message.start) // WINDOW_STEPS:
            raise MalformedMessageError("more lineage keys came than the prompt has whole windows")
        if job.message.row and received.lineage:
            raise MalformedMessageError("a job that goes on behind row 0 takes no windows from the cache")
        return cls(
            quote=signed_from_pb(received.quote, Quote) if received.HasField("quote") else None,
            request=request,
            signed_request=signed,
            job=job,
            job_hash=job.struct_hash(),
            salt_rows=hash32(received.salt_rows),
            stage=received.stage,
            next=StoredRecord.from_pb(received.next) if received.HasField("next") else None,
            lineage=hashes(received.lineage),
            room=received.room,
            before=received.before,
            pay=signed_from_pb(received.pay, Pay) if received.HasField("pay") else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """A call that passed every check."""

    call: OpenCall
    request_digest: Hash
    payer_key: Address | None  # whose Pays count; None on the on-chain path
    stage: Stage  # this stage's place in the route
    cut: Cut
    codecs: RowCodecs
    room: int

    @property
    def job(self) -> Job:
        """Return the job record."""
        return self.call.job.message

    @property
    def upstream(self) -> Address:
        """Return who sends the job's rows: the worker, or the stage before."""
        index = self.call.stage
        return self.job.worker if index == 0 else self.job.route[index - 1].node

    def credit(self, *, windows: int, paid: int) -> CreditLine:
        """Return how far the job may be worked on unpaid; `paid` is what was paid for the request by now."""
        return CreditLine(
            cut=self.cut, stage=self.stage, windows=windows, room=self.room, before=self.call.before, paid=paid
        )

    @property
    def is_tail(self) -> bool:
        """Tell whether tokens are drawn here."""
        return self.call.stage == len(self.job.route) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """The checks of one stage."""

    around: Surroundings
    channels: Channels
    on_chain: OnChain | None
    clock: Callable[[], float]

    async def check(self, call: OpenCall, *, worker: Address) -> Admitted:
        """Return the admitted call; raise a `RefusedError`, `VerificationError` or `StageError`."""
        job, request, now = call.job.message, call.request, self.clock()
        if job.worker != worker:
            raise NotInRouteError(f"the job belongs to worker {to_hex(job.worker)}, {to_hex(worker)} opened it")
        self.around.config.workers.check(worker, "worker")
        self.around.config.payers.check(request.payer, "payer")
        if not now < request.deadline <= now + MAX_DEADLINE_S + CLOCK_TOLERANCE_S:
            raise DeadlineError(f"the deadline lies between now and {MAX_DEADLINE_S} s from now; check the clock")
        stage = self._place(call)
        request_digest = digest(self.around.domain, request)
        if call.signed_request is None:
            payer_key = None
            await self._check_on_chain(call, request_digest)
        else:
            payer_key = await self._check_paid(call, call.signed_request, request_digest, now)
        await check_signer(
            self.around.domain, self.around.directory, call.job, owner=job.worker, request=request, check="job"
        )
        cut = Cut(prompt_end=request.input_tokens + job.start, row=job.row)
        return Admitted(
            call=call,
            request_digest=request_digest,
            payer_key=payer_key,
            stage=stage,
            cut=cut,
            codecs=self._codecs(request),
            room=_room(call, cut),
        )

    def _place(self, call: OpenCall) -> Stage:
        route, config, engine = call.job.message.route, self.around.config, self.around.engine
        if call.stage >= len(route) or route[call.stage].node != config.owner:
            raise NotInRouteError(f"stage {call.stage} of the route is not this node, {to_hex(config.owner)}")
        stage = route[call.stage]
        if (stage.first, stage.last) != (engine.first, engine.last):
            raise NotInRouteError(f"this node serves blocks {engine.first} to {engine.last}; read its record again")
        if stage.price < config.price:
            raise NotInRouteError(f"this node's price is {config.price}, the route offers {stage.price}")
        if call.job.message.profile != config.profile or call.request.model != engine.manifest.model_id:
            raise NotInRouteError("this node serves another model or profile; read its record again")
        if (call.next is None) != (call.stage == len(route) - 1):
            raise BadRequestError("every stage but the last needs the next one's record")
        return stage

    def _codecs(self, request: Request) -> RowCodecs:
        return RowCodecs.of(self.around.profile, prompt=request.input_tokens, hidden=self.around.engine.manifest.hidden)

    async def _check_paid(self, call: OpenCall, signed: Signed[Request], request_digest: Hash, now: float) -> Address:
        quote, request = call.quote, call.request
        if quote is None or call.pay is None:
            raise BadRequestError("a signed request comes with its quote and with the Pay that covers its input")
        blocks = self.around.engine.manifest.blocks
        # The gateway accepted the request while the quote was good; later attempts still run under it.
        check_request(quote.message, request, now=min(now, quote.message.expires))
        check_job(
            quote.message,
            request,
            call.job.message,
            request_digest=request_digest,
            blocks=blocks,
        )
        payer_key = signed.signer(self.around.domain)
        pay, terms = call.pay.message, terms_of(quote.message, self.around.config.profile)
        if pay.request != request_digest or call.pay.signer(self.around.domain) != payer_key or terms is None:
            raise BadRequestError("the Pay is not the payer's own for this request")
        if pay.amount < input_price_rounded_up(request.input_tokens, terms.input_price):
            raise BadRequestError("the Pay does not cover the input; forward the payer's next one")
        _, slot = await asyncio.gather(
            check_fresh_signer(
                self.around.domain, self.around.directory, quote, owner=request.gateway, now=now, check="quote"
            ),
            self.channels.channel(request.payer, request.gateway, payer_key),
        )
        if not slot.deposit:
            raise ChannelUnknownError("the payer has no funded channel with this gateway under this key")
        return payer_key

    async def _check_on_chain(self, call: OpenCall, request_digest: Hash) -> None:
        job, request = call.job.message, call.request
        if call.quote is not None or request.quote != HASH_ZERO or len(request.profiles) != 1:
            raise BadRequestError("a request without signature is one from the chain: no quote, one profile")
        if job.request != request_digest or job.profile != request.profiles[0]:
            raise BadRequestError("the job belongs to another request or profile")
        if job.closes_at != closes_at(request) or job.start > request.max_tokens:
            raise BadRequestError("the job's closesAt or start is not the request's")
        if job.row > request.input_tokens + job.start:
            raise BadRequestError("the job begins behind its own rows")
        check_route(job.route, self.around.engine.manifest.blocks)
        if self.on_chain is None or not await self.on_chain(request, request_digest):
            raise BadRequestError("the chain knows no open request like this one")


def _room(call: OpenCall, cut: Cut) -> int:
    most = call.request.input_tokens + call.request.max_tokens
    room = call.room or most
    if not cut.prompt_end <= room <= most:
        raise NoRoomError(f"room for {room} steps was asked; the request needs {cut.prompt_end} to {most}")
    return room
