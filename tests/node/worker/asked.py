"""A payer as the SDK is one: it seals, verifies every event at level L0, and pays window by window."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tests.node.stage.coded import answer_ids
from tests.node.stage.network import PROFILE, Node
from tests.node.stage.tiny import MANIFEST
from tests.node.wire.peers import DOMAIN

from plait.ledger import Journal, PayerBook
from plait.protocol.codec import payment_to_pb, signed_from_pb, signed_to_pb
from plait.protocol.commitments import prompt_commitment, stop_commitment
from plait.protocol.ids import Hash, group_id
from plait.protocol.messages import (
    Cancel,
    Job,
    Leaf,
    Progress,
    Quote,
    Receipt,
    Request,
    Sampling,
    Terms,
    Worker,
)
from plait.protocol.money import input_price_rounded_up
from plait.protocol.pb import gateway_pb2
from plait.protocol.receipts import ABORTED, RECEIPT, ReceiptLeaf
from plait.protocol.sealing import ContentKey, seal_capsule, seal_prompt
from plait.protocol.typed import Signed, digest, random_hash
from plait.protocol.verify import AnswerVerifier

if TYPE_CHECKING:
    from tests.node.worker.world import World

TERMS = Terms(profile=PROFILE, input_price=4_000_000, output_price=8_000_000)
GROUP = group_id(MANIFEST.model_id, "cpu", 0, 0)


class TinyTokenizer:
    """One letter a token."""

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(chr(33 + token) for token in ids)


@dataclass(slots=True, kw_only=True)
class Asked:
    """A request as its payer holds it: verifies every event, pays as the SDK does."""

    world: World
    prompt: list[int]
    content_key: ContentKey
    request: Signed[Request]
    digest: Hash
    call: gateway_pb2.JobCall
    verifier: AnswerVerifier
    book: PayerBook
    pays: bool = True
    cancel_at: int = 1 << 30
    kill_at: tuple[int, Node] | None = None
    events: list[str] = field(default_factory=list)
    leaves: list[Signed[Leaf]] = field(default_factory=list)
    error: gateway_pb2.ResultEvent | None = None
    job: Signed[Job] | None = None
    receipt: Signed[Receipt] | None = None

    @classmethod
    async def make(
        cls,
        world: World,
        prompt: Sequence[int],
        *,
        max_tokens: int = 20,
        temperature: int = 0,
        stop: tuple[str, ...] = (),
        deadline_s: int = 600,
        **changed: Any,
    ) -> Asked:
        content_key, quote = ContentKey.generate(), quote_of(world)
        committed = stop_commitment(content_key, stop)
        request = Request(
            payer=world.payer.address,
            gateway=world.gateway.owner,
            quote=quote.struct_hash(),
            model=MANIFEST.model_id,
            profiles=(world.net.profile.profile_id,),
            prompt=prompt_commitment(content_key, prompt),
            sampling=Sampling(temperature=temperature, top_p=1_000_000, top_k=0, stop=committed),
            input_tokens=len(prompt),
            max_tokens=max_tokens,
            max_price=1_000_000,
            seed=random_hash(),
            nonce=random_hash(),
            deadline=int(time.time()) + deadline_s,
        )
        signed = world.payer.signed(DOMAIN, replace(request, **changed))
        book = PayerBook(Journal(world.net.folder / "payer.db"), DOMAIN, world.payer)
        return cls(
            world=world,
            prompt=list(prompt),
            content_key=content_key,
            request=signed,
            digest=digest(DOMAIN, signed.message),
            call=call_of(world, prompt, stop, content_key=content_key, quote=quote, signed=signed, book=book),
            verifier=verifier_of(world, prompt, stop, content_key=content_key, quote=quote, signed=signed),
            book=book,
        )

    async def send(self) -> None:
        assert await self.world.broker.publish_job(GROUP, 1, self.call, request=self.digest)

    async def run(self, *, deadline_s: float = 60.0) -> list[int]:
        """Send, then follow the answer to its end; every event passes L0 or this raises."""
        await self.send()
        async with asyncio.timeout(deadline_s):
            async for result in self.world.broker.results(self.world.gateway.owner, self.digest):
                await self._take(result.event)
                if self.receipt is not None or self.error is not None:
                    break
        await self._end()
        return list(self.verifier.ids)

    def _fenced(self, event: gateway_pb2.ResultEvent) -> bool:
        """Tell whether the gateway would drop an event: another worker's, late or begun too early."""
        kind = event.WhichOneof("body")
        if self.job is None or kind not in ("job", "chunk", "progress"):
            return False
        if kind == "job":
            job = event.job.message
            return job.worker != self.job.message.worker and job.start < len(self.verifier.ids)
        named = event.chunk.job if kind == "chunk" else event.progress.progress.message.job
        return named != self.job.struct_hash()

    async def _take(self, event: gateway_pb2.ResultEvent) -> None:
        if self._fenced(event):
            return
        kind = event.WhichOneof("body")
        self.events.append(str(kind))
        match kind:
            case "job":
                self.job = signed_from_pb(event.job, Job)
                await self.verifier.accept_job(self.job)
            case "chunk":
                self.verifier.accept_chunk(Hash(event.chunk.job), event.chunk.sealed)
                await self._act()
            case "progress":
                leaves = [signed_from_pb(leaf, Leaf) for leaf in event.progress.leaves]
                self.leaves += leaves
                await self.verifier.accept_progress(signed_from_pb(event.progress.progress, Progress), leaves)
                await self._pay_windows()
            case "receipt":
                self.receipt = signed_from_pb(event.receipt, Receipt)
                await self.verifier.accept_receipt(self.receipt)
            case _:
                self.error = event

    async def _act(self) -> None:
        count = len(self.verifier.ids)
        if self.kill_at is not None and count >= self.kill_at[0]:
            await self.kill_at[1].kill()
            self.kill_at = None
        if count >= self.cancel_at:
            self.cancel_at = 1 << 30
            cancel = self.world.payer.signed(DOMAIN, Cancel(request=self.digest, to=count))
            await self._notice(gateway_pb2.PayNotice(cancel=signed_to_pb(cancel)), "cancel")

    async def _pay_windows(self) -> None:
        channel = self.book.channel(self.world.gateway.owner)
        if self.pays and self.verifier.verified - channel.paid(self.digest).to >= 64:
            payment = channel.pay(self.digest, self.verifier.due(), self.verifier.verified)
            await self._notice(gateway_pb2.PayNotice(payment=payment_to_pb(payment)), f"pay{self.verifier.verified}")

    async def _end(self) -> None:
        if not self.pays:
            return
        kind, name = (RECEIPT, self.receipt.digest(DOMAIN)) if self.receipt else (ABORTED, self.digest)
        leaf = ReceiptLeaf(kind=kind, hash=name, hop_amount=self.verifier.due(), windows_paid=self.verifier.windows)
        payment = self.book.channel(self.world.gateway.owner).end_job(self.digest, leaf, to=self.verifier.verified)
        await self._notice(gateway_pb2.PayNotice(payment=payment_to_pb(payment)), "end")

    async def _notice(self, notice: gateway_pb2.PayNotice, key: str) -> None:
        worker = self.job.message.worker if self.job else self.world.who.owner
        await self.world.broker.publish_pay(worker, self.digest, notice, key=key)

    def expected(self, count: int) -> list[int]:
        """Return what stages of a block each answer, by the book."""
        return answer_ids(self.request.message, self.digest, self.prompt, count, profile=self.world.net.profile)


def quote_of(world: World) -> Signed[Quote]:
    """Return a quote as the gateway signs it."""
    quote = Quote(
        gateway=world.gateway.owner,
        model=MANIFEST.model_id,
        group=GROUP,
        terms=(replace(TERMS, profile=world.net.profile.profile_id),),
        workers=tuple(
            Worker(node=each.who.owner, prekey=each.prekeys.current().struct_hash(), share=each.share)
            for each in (world, *world.fellows)
        ),
        max_input=400,
        max_output=200,
        expires=int(time.time()) + 60,
    )
    return world.gateway.key.signed(DOMAIN, quote)


def call_of(
    world: World,
    prompt: Sequence[int],
    stop: Sequence[str],
    *,
    content_key: ContentKey,
    quote: Signed[Quote],
    signed: Signed[Request],
    book: PayerBook,
) -> gateway_pb2.JobCall:
    """Return the job as the gateway publishes it, its input paid."""
    name = digest(DOMAIN, signed.message)
    due = input_price_rounded_up(len(prompt), TERMS.input_price)
    return gateway_pb2.JobCall(
        quote=signed_to_pb(quote),
        request=signed_to_pb(signed),
        payment=payment_to_pb(book.channel(world.gateway.owner).pay(name, due, 0)),
        capsules=[capsule_for(each, name, content_key) for each in (world, *world.fellows)],
        prompt=seal_prompt(content_key, name, prompt, stop),
    )


def capsule_for(world: World, name: Hash, content_key: ContentKey) -> gateway_pb2.Capsule:
    """Return the content key as one worker of the group gets it."""
    prekey, owner = world.prekeys.current().message, world.who.owner
    sealed = seal_capsule(content_key, prekey_public=prekey.key, kem=prekey.kem, request=name, node=owner)
    return gateway_pb2.Capsule(node=owner, sealed=sealed)


def verifier_of(
    world: World,
    prompt: Sequence[int],
    stop: Sequence[str],
    *,
    content_key: ContentKey,
    quote: Signed[Quote],
    signed: Signed[Request],
) -> AnswerVerifier:
    """Return the SDK's own verifier."""
    return AnswerVerifier(
        domain=DOMAIN,
        directory=world.net.directory,
        content_key=content_key,
        quote=quote.message,
        request=signed.message,
        prompt_ids=prompt,
        stop=stop,
        manifest=MANIFEST,
        tokenizer=TinyTokenizer(),  # type: ignore[arg-type]
    )
