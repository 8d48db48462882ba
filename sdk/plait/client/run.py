"""One request from sealing to the last payment: nothing is signed for a window that was not checked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field

from plait.client.archive import Archive, Filed
from plait.client.call import Call
from plait.client.catalogue import Served
from plait.client.edge import ChainEdge
from plait.client.errors import GatewayAnswerError, GatewayDownError
from plait.client.gateway import AWAY, Acknowledged, SealedRequest
from plait.client.market import Offer
from plait.client.patience import patient
from plait.client.purse import Purse
from plait.protocol.checks import closes_at, dearest_price
from plait.protocol.choice import ChoiceNote
from plait.protocol.codec import Payment, fault_from_pb, signed_from_pb, signed_to_pb
from plait.protocol.commitments import prompt_commitment
from plait.protocol.errors import (
    MalformedMessageError,
    PlaitError,
    RefusedError,
    StageFailedError,
    VerificationError,
    error_from_fault,
)
from plait.protocol.ids import Address, Hash, to_hex
from plait.protocol.messages import Cancel, Finish, Job, Leaf, Prekey, Progress, Receipt, Request, Resume
from plait.protocol.pb import gateway_pb2
from plait.protocol.receipts import ABORTED, RECEIPT, ReceiptLeaf
from plait.protocol.sealing import ContentKey, seal_capsule, seal_prompt
from plait.protocol.typed import Signed, digest, random_hash
from plait.protocol.verify import AnswerVerifier
from plait.protocol.windows import WINDOW_STEPS

PAY_EVERY_TOKENS = 4 * WINDOW_STEPS
RESUME_LIFE_S = 60
CANCEL_PATIENCE_S = 10.0
# Longer, in all, than the lease of a gateway that died; in steps that soon find the one that takes its place.
_BACKOFF = (0.1, 0.3, 0.6, 1.0, 1.0, 1.0, 1.0, 3.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A request ready to be signed: what will be asked, of whom, under which key."""

    call: Call
    served: Served
    offer: Offer
    prompt: tuple[int, ...]
    key: ContentKey = field(repr=False)
    request: Request


def prepare(call: Call, served: Served, offer: Offer, prompt: list[int], *, purse: Purse, now: float) -> Prepared:
    """Make the request under a fresh content key."""
    key = ContentKey.generate()
    request = Request(
        payer=purse.payer,
        gateway=offer.gateway.owner,
        quote=offer.quote.struct_hash(),
        model=served.manifest.model_id,
        profiles=offer.profiles,
        prompt=prompt_commitment(key, prompt),
        sampling=call.sampling(key),
        input_tokens=len(prompt),
        max_tokens=offer.max_tokens,
        max_price=offer.price,
        seed=call.seed,
        nonce=random_hash(),
        deadline=int(now + call.timeout_s),
    )
    return Prepared(call=call, served=served, offer=offer, prompt=tuple(prompt), key=key, request=request)


class Run:
    """Follows one request; `events` yields token ids and ends after the last payment."""

    def __init__(
        self, prepared: Prepared, *, edge: ChainEdge, purse: Purse, archive: Archive, clock: Callable[[], float]
    ) -> None:
        self.prepared = prepared
        self._edge, self._purse, self._archive, self._clock = edge, purse, archive, clock
        self._gateway = prepared.offer.gateway
        self.request: Hash = digest(edge.domain, prepared.request)
        self.verifier = AnswerVerifier(
            domain=edge.domain,
            directory=edge.directory,
            content_key=prepared.key,
            quote=prepared.offer.quote.message,
            request=prepared.request,
            prompt_ids=prepared.prompt,
            stop=prepared.call.stop,
            manifest=prepared.served.manifest,
            tokenizer=prepared.served.tokenizer,
        )
        self.acknowledged = False
        self.ended = False
        self._paid_to = 0
        self._sequence = 0

    @property
    def paid(self) -> int:
        """Return what was signed away for this request, in base units."""
        return self._purse.channel(self._gateway.owner).paid(self.request).amount

    def price_of(self, tokens: int) -> int:
        """Return the price of the prompt and `tokens` of answer, in base units, under the dearest allowed profile."""
        return dearest_price(
            self.prepared.offer.quote.message,
            self.prepared.request.profiles,
            input_tokens=self.prepared.request.input_tokens,
            output_tokens=tokens,
        )

    async def submit(self) -> None:
        """Fund the channel, pay the input, hand the request over; what a refusal cost comes back as credit."""
        prepared = self.prepared
        await self._purse.fund(self._gateway, self.request, prepared.offer.price)
        signed = self._purse.session.signed(self._edge.domain, prepared.request)
        capsules = self._capsules()
        sealed_prompt = seal_prompt(prepared.key, self.request, prepared.prompt, prepared.call.stop)

        async def send(payment: Payment) -> Acknowledged:
            return await self._gateway.submit(
                SealedRequest(
                    quote=prepared.offer.quote,
                    request=signed,
                    payment=payment,
                    capsules=capsules,
                    prompt=sealed_prompt,
                )
            )

        self._file(None)
        try:
            await patient(
                lambda: self._retried(
                    lambda: self._purse.pay(self._gateway, self.request, self.price_of(0), to=0, send=send)
                ),
                patience_s=self._patience_s(),
            )
        except RefusedError:
            await self._abort(0)
            raise
        except BaseException:
            self._purse.release(self._gateway.owner, self.request)
            raise

    async def events(self) -> AsyncGenerator[tuple[int, ...]]:
        """Yield delivered ids as they come; raise as soon as a check fails or the swarm does."""
        try:
            async with aclosing(self._stream()) as stream:
                async for event in stream:
                    if ids := await self._take(event):
                        yield ids
                    if self.ended:
                        return
        except (VerificationError, MalformedMessageError) as error:
            self.ended = True
            await self._cancel()  # its work is not wanted; nothing more is signed for it
            if isinstance(error, MalformedMessageError):
                raise GatewayAnswerError(self._gateway.url, error.text) from error
            raise
        except PlaitError:
            self.ended = True
            raise
        finally:
            self._purse.release(self._gateway.owner, self.request)

    async def cancel(self) -> None:
        """Stop the job and settle what was checked; for a caller that does not want the rest."""
        if self.ended:
            return
        await self._cancel()
        # No abort when the end does not come: the gateway may hold a Progress that we have not seen.
        with suppress(PlaitError, TimeoutError):
            async with asyncio.timeout(CANCEL_PATIENCE_S):
                async with aclosing(self.events()) as rest:
                    async for _ in rest:
                        pass

    async def _take(self, event: gateway_pb2.ResultEvent) -> tuple[int, ...]:
        if event.request != self.request:
            raise GatewayAnswerError(self._gateway.url, "it sent another request's event")
        match event.WhichOneof("body"):
            case "job":
                await self.verifier.accept_job(signed_from_pb(event.job, Job))
            case "chunk":
                opened = self.verifier.accept_chunk(Hash(event.chunk.job), event.chunk.sealed)
                return () if isinstance(opened, ChoiceNote) else opened
            case "progress":
                leaves = [signed_from_pb(leaf, Leaf) for leaf in event.progress.leaves]
                await self.verifier.accept_progress(signed_from_pb(event.progress.progress, Progress), leaves)
                await self._pay_windows()
            case "receipt":
                await self._finish(signed_from_pb(event.receipt, Receipt))
            case "error":
                await self._failed(error_from_fault(fault_from_pb(event.error)))
            case _:
                raise GatewayAnswerError(self._gateway.url, "it sent an event of no known kind")
        return ()

    async def _pay_windows(self) -> None:
        to = self.verifier.verified
        if to - self._paid_to >= PAY_EVERY_TOKENS:
            amount = max(self.verifier.due(), self.paid)
            await self._retried(lambda: self._purse.pay(self._gateway, self.request, amount, to=to))
            self._paid_to = to

    async def _finish(self, signed: Signed[Receipt]) -> None:
        await self.verifier.accept_receipt(signed)
        receipt = signed.message
        self._file(signed)
        leaf = ReceiptLeaf(
            kind=RECEIPT,
            hash=signed.digest(self._edge.domain),
            hop_amount=receipt.price,
            windows_paid=self.verifier.windows,
        )
        self.acknowledged = await self._purse.end(self._gateway, self.request, leaf, to=receipt.output_tokens)
        self.ended = True
        if receipt.finish == Finish.FAILED:
            raise StageFailedError(
                f"the swarm failed after {receipt.output_tokens} checked tokens, which cost {receipt.price} base "
                "units; nothing beyond was paid, ask again"
            )

    async def _failed(self, error: RefusedError) -> None:
        await self._abort(self.verifier.due())
        error.moved = self.paid > 0
        raise error

    async def _abort(self, amount: int) -> None:
        """End the request unfinished: `amount` stays the payee's, the rest of what was paid becomes credit."""
        self.ended = True
        self._purse.release(self._gateway.owner, self.request)
        leaf = ReceiptLeaf(kind=ABORTED, hash=self.request, hop_amount=amount, windows_paid=self.verifier.windows)
        with suppress(PlaitError):  # the failure that led here is what the caller must hear of
            self.acknowledged = await self._purse.end(self._gateway, self.request, leaf, to=self.verifier.verified)

    async def _cancel(self) -> None:
        cancel = Cancel(request=self.request, to=len(self.verifier.ids))
        with suppress(PlaitError):
            await self._gateway.cancel(self._purse.session.signed(self._edge.domain, cancel))

    async def _stream(self) -> AsyncGenerator[gateway_pb2.ResultEvent]:
        """Yield each event once, over as many connections as it takes."""
        failures = 0
        while True:
            why: PlaitError = GatewayDownError(self._gateway.url, "it closed the stream before the answer ended")
            before = self._sequence
            try:
                async with aclosing(self._connection()) as events:
                    async for event in events:
                        yield event
            except GatewayDownError as error:
                why = error
            failures = failures + 1 if self._sequence == before else 1
            late = self._clock() > self.prepared.request.deadline + 2 * RESUME_LIFE_S
            if late or failures > len(_BACKOFF):
                why.moved = self.paid > 0
                raise why
            await asyncio.sleep(_BACKOFF[failures - 1])

    async def _connection(self) -> AsyncGenerator[gateway_pb2.ResultEvent]:
        """Yield what one connection brings beyond what came before."""
        async with aclosing(self._gateway.events(self._resume())) as events:
            async for sequence, event in events:
                if event.WhichOneof("body") == "error":  # told again to everyone, under any sequence
                    if event.error.code.startswith(AWAY):
                        raise GatewayDownError(self._gateway.url, fault_from_pb(event.error).text)
                    yield event
                elif sequence > self._sequence:
                    self._sequence = sequence
                    yield event

    def _resume(self) -> Signed[Resume]:
        expires = int(self._clock()) + RESUME_LIFE_S
        resume = Resume(request=self.request, after=self._sequence, expires=expires)
        return self._purse.session.signed(self._edge.domain, resume)

    async def _retried(self, act: Callable[[], Awaitable[Acknowledged]]) -> Acknowledged:
        for pause in _BACKOFF:
            try:
                return await act()
            except GatewayDownError as error:
                await asyncio.sleep(max(pause, error.retry_after_s))
        return await act()

    def _capsules(self) -> list[tuple[Address, bytes]]:
        """Seal the content key for each quoted worker."""
        return [
            (
                prekey.message.node,
                seal_capsule(
                    self.prepared.key,
                    prekey_public=prekey.message.key,
                    kem=prekey.message.kem,
                    request=self.request,
                    node=prekey.message.node,
                ),
            )
            for prekey in self._quoted_prekeys()
        ]

    def _patience_s(self) -> float:
        """Return how long a full queue may be waited for: half of the time left, and no longer than the quote holds."""
        now = self._clock()
        return min((self.prepared.request.deadline - now) / 2, self.prepared.offer.quote.message.expires - now - 1)

    def _quoted_prekeys(self) -> list[Signed[Prekey]]:
        wanted = {worker.prekey for worker in self.prepared.offer.quote.message.workers}
        return [prekey for prekey in self.prepared.offer.prekeys if prekey.struct_hash() in wanted]

    def _file(self, receipt: Signed[Receipt] | None) -> None:
        request = self.prepared.request
        self._archive.put(
            Filed(
                request=to_hex(self.request),
                model=to_hex(request.model),
                gateway=to_hex(request.gateway),
                closes_at=closes_at(request),
                receipt=signed_to_pb(receipt).SerializeToString().hex() if receipt else None,
            )
        )
