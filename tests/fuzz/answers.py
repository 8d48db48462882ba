"""Targets of the broker's messages: jobs, events of answers, payments, prompts and offers, as their readers take them.

Each of the senders is hostile in turn, so what its own key would sign is signed again after every other change.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

from google.protobuf.message import Message
from tests.fuzz.machine import Target
from tests.fuzz.shapes import varied
from tests.fuzz.wire import LOOP
from tests.node.gateway.stand import OUTPUT, PROMPT, PlayedChain
from tests.sdk.swarm import DOMAIN, NOW, Event, Swarm, tokenizer

from plait.ledger import Journal, PayerBook
from plait.protocol import codec
from plait.protocol.errors import MalformedMessageError, PlaitError, ProtocolError, RefusedError, VerificationError
from plait.protocol.ids import Hash, keccak
from plait.protocol.messages import Cancel, Finish, Job, Leaf, Progress, Quote, Receipt, Record, Request
from plait.protocol.money import job_price
from plait.protocol.pb import gateway_pb2
from plait.protocol.sealing import ContentKey, seal_capsule, seal_prompt
from plait.protocol.typed import Key
from plait.protocol.verify import AnswerVerifier
from plait_node.broker import Result
from plait_node.gateway.answer import Answer
from plait_node.gateway.calls import read_call
from plait_node.gateway.faces import Outside
from plait_node.gateway.offers import OFFER_KIND, OfferBook
from plait_node.worker import Admission, PrekeyRing, PromptBox
from plait_node.worker.errors import PrekeyError
from plait_node.worker.payer import PayerWatch

_STOP = ("\n",)


class Case:
    """One honest request, the worker that takes it and the whole answer: what the cases are changed from."""

    def __init__(self) -> None:
        self.swarm, self.session, self.key = Swarm(), Key.generate(), ContentKey.generate()
        with TemporaryDirectory() as folder:
            self._ask(Path(folder))
        swarm = self.swarm
        self.admission = Admission(
            owner=swarm.worker.owner,
            domain=DOMAIN,
            directory=swarm.directory,
            prekeys=self.ring,
            manifest=swarm.manifest,
        )
        self.task = LOOP.run(self.admission.admit(self.call(), now=float(NOW)))
        answer = swarm.answer(self.request.message, self.key, PROMPT)
        self.events = [self._event(each) for each in answer.events(OUTPUT, Finish.LENGTH)]

    def _ask(self, folder: Path) -> None:
        worker = self.swarm.worker
        self.ring = PrekeyRing(
            folder / "prekeys.json", key=worker.service, domain=DOMAIN, node=worker.owner, clock=lambda: float(NOW)
        )
        self.prekey = self.ring.current()
        self.quote = self.swarm.quote(self.prekey)
        request = self.swarm.request(self.quote.message, self.key, PROMPT, stop=_STOP, max_tokens=len(OUTPUT))
        self.request = self.session.signed(DOMAIN, request)
        self.name = self.request.digest(DOMAIN)
        journal = Journal(folder / "payer.sqlite")
        channel = PayerBook(journal, DOMAIN, self.session).channel(self.swarm.gateway.owner)
        self.payments = [channel.pay(self.name, self._price(to), to) for to in (0, 16, 32)]
        journal.close()

    def _price(self, to: int) -> int:
        return job_price(self.swarm.terms, input_tokens=len(PROMPT), output_tokens=to)

    def capsule(self) -> bytes:
        public, node = self.prekey.message, self.swarm.worker.owner
        return seal_capsule(self.key, prekey_public=public.key, kem=public.kem, request=self.name, node=node)

    def call(self) -> gateway_pb2.JobCall:
        return gateway_pb2.JobCall(
            quote=codec.signed_to_pb(self.quote),
            request=codec.signed_to_pb(self.request),
            payment=codec.payment_to_pb(self.payments[0]),
            capsules=[gateway_pb2.Capsule(node=self.swarm.worker.owner, sealed=self.capsule())],
            prompt=seal_prompt(self.key, self.name, PROMPT, _STOP),
        )

    def prompt(self) -> gateway_pb2.PromptCall:
        node, prekey = self.swarm.worker.owner, self.prekey.struct_hash()
        named = gateway_pb2.PromptCapsule(node=node, prekey=prekey, sealed=self.capsule())
        return gateway_pb2.PromptCall(
            request=self.name, capsules=[named], prompt=seal_prompt(self.key, self.name, PROMPT)
        )

    def offer_body(self) -> bytes:
        swarm = self.swarm
        return gateway_pb2.OfferBody(
            version=1,
            prekey=codec.signed_to_pb(self.prekey),
            model=swarm.manifest.model_id,
            hardware="cpu",
            terms=[codec.to_pb(swarm.terms)],
            max_input=1_024,
            max_output=512,
            share=1_000_000,
            room=2,
        ).SerializeToString()

    def offer(self, body: bytes) -> gateway_pb2.WorkerOffer:
        """Return an offer that its worker signs, whatever it says."""
        node, model = self.swarm.worker, self.swarm.manifest.model_id
        record = Record(kind=OFFER_KIND, topic=model, node=node.owner, sequence=1, expires=NOW + 60, body=keccak(body))
        return gateway_pb2.WorkerOffer(record=codec.signed_to_pb(node.service.signed(DOMAIN, record)), body=body)

    def outside(self) -> Outside:
        """Return what a gateway leans on; its look-up confirms everything."""
        anything = SimpleNamespace(covers=lambda *_: True, job=None)

        async def found(*_: object) -> object:
            return anything

        values: dict[str, Any] = {
            "me": self.swarm.worker.owner,  # whose worker it is: one operator has both
            "key": self.swarm.gateway.service,
            "domain": DOMAIN,
            "book": None,
            "broker": None,
            "directory": self.swarm.directory,
            "chain": PlayedChain(),
            "on_chain": None,
            "lookup": SimpleNamespace(job=found, receipt=found),
            "notify": lambda: None,
            "clock": lambda: float(NOW),
            "patience_s": 0.0,
        }
        return Outside(**values)

    def _event(self, event: Event) -> gateway_pb2.ResultEvent:
        made, body = gateway_pb2.ResultEvent(request=self.name), event.body
        match event.kind:
            case "chunk":
                made.chunk.CopyFrom(gateway_pb2.Chunk(job=body[0], sealed=body[1]))  # type: ignore[index]
            case "progress":
                made.progress.progress.CopyFrom(codec.signed_to_pb(body[0]))  # type: ignore[index]
                made.progress.leaves.extend(codec.signed_to_pb(leaf) for leaf in body[1])  # type: ignore[index]
            case _:
                getattr(made, event.kind).CopyFrom(codec.signed_to_pb(body))  # type: ignore[arg-type]
        return made


@cache
def case() -> Case:
    """Return the one honest request of this process."""
    return Case()


def job_from(data: bytes) -> bool:
    """Take a job as a gateway reads it, then as a worker does."""
    try:
        call = codec.parse(gateway_pb2.JobCall, data)
    except MalformedMessageError:
        return False
    with suppress(MalformedMessageError):
        assert len(read_call(call, DOMAIN).name) == 32
    try:
        task = LOOP.run(case().admission.admit(call, now=float(NOW)))
    except (RefusedError, ProtocolError, VerificationError, PrekeyError):
        return False
    assert len(task.ids) == task.request.input_tokens
    assert task.pay is not None
    assert task.pay.message.amount >= job_price(case().swarm.terms, input_tokens=len(task.ids), output_tokens=0)
    return True


def pay_from(data: bytes) -> bool:
    """Take what the payer is said to say: only its own payments count, and only for what they cover."""
    made = case()
    watch = PayerWatch(None, task=made.task, worker=made.swarm.worker.owner, domain=DOMAIN)  # type: ignore[arg-type]
    before = watch.pay
    try:
        watch._take(codec.parse(gateway_pb2.PayNotice, data))
    except PlaitError:
        assert (watch.pay, watch.cancelled) == (before, False)
        return False
    assert watch.pay is not None
    assert watch.pay.signer(DOMAIN) == made.session.address
    assert watch.pay.message.amount >= made.task.price(made.swarm.terms.profile, watch.to)
    return True


def prompt_from(data: bytes) -> bool:
    """Open what somebody brought for an on-chain request."""
    made = case()
    box = PromptBox(None, prekeys=made.ring, owner=made.swarm.worker.owner)  # type: ignore[arg-type]
    try:
        ids, key = box._open(made.name, codec.parse(gateway_pb2.PromptCall, data))
    except (RefusedError, ProtocolError, PrekeyError):
        return False
    assert key.secret_bytes() == made.key.secret_bytes()
    assert ids == list(PROMPT)
    return True


def offer_from(data: bytes) -> bool:
    """Read an offer: the first byte says whether its worker signed these bytes, or whether they are all of it."""
    made = case()
    shelf = SimpleNamespace(
        manifest=lambda model: made.swarm.manifest if model == made.swarm.manifest.model_id else None
    )
    book = OfferBook(made.outside(), shelf)  # type: ignore[arg-type]
    try:
        received = made.offer(data[1:]) if data[:1] == b"\1" else codec.parse(gateway_pb2.WorkerOffer, data[1:])
    except MalformedMessageError:
        return False
    offer = LOOP.run(book._check(received, float(NOW)))
    if offer is None:
        return False
    assert offer.worker == made.swarm.worker.owner
    assert 0 < offer.max_input < made.swarm.manifest.context
    assert 0 < offer.max_output < made.swarm.manifest.context
    assert 1 <= offer.room <= 1_000
    return True


def result_from(data: bytes) -> bool:
    """Take an event after some honest ones, first as the gateway judges it, then as the payer's SDK does."""
    made = case()
    before = made.events[: data[0] % (len(made.events) + 1)] if data else []
    try:
        event = codec.parse(gateway_pb2.ResultEvent, data[1:])
    except MalformedMessageError:
        return False
    relayed = LOOP.run(_relayed([*before, event]))
    return LOOP.run(_verified([*before, event])) and relayed


async def _relayed(events: list[gateway_pb2.ResultEvent]) -> bool:
    made = case()
    answer = Answer(
        made.outside(),
        made.quote.message,
        made.request.message,
        name=made.name,
        blocks=made.swarm.manifest.blocks,
    )
    given = 0
    for place, event in enumerate(events):
        try:
            passed = await answer.take(Result(sequence=place + 1, worker=made.swarm.worker.owner, event=event))
        except RefusedError:
            assert place == len(events) - 1, "an honest event was refused"
            return False
        given += len(passed)
    assert answer.price() <= made.request.message.max_price
    assert given <= len(events)
    return True


async def _verified(events: list[gateway_pb2.ResultEvent]) -> bool:
    made = case()
    verifier = AnswerVerifier(
        domain=DOMAIN,
        directory=made.swarm.directory,
        content_key=made.key,
        quote=made.quote.message,
        request=made.request.message,
        prompt_ids=PROMPT,
        stop=_STOP,
        manifest=made.swarm.manifest,
        tokenizer=tokenizer(),
    )
    for place, event in enumerate(events):
        try:
            await _accept(verifier, event)
        except (VerificationError, ProtocolError):
            assert place == len(events) - 1, "an honest event was refused"
            return False
    assert verifier.verified <= len(verifier.ids) <= made.request.message.max_tokens
    assert verifier.due() <= made.request.message.max_price
    return True


async def _accept(verifier: AnswerVerifier, event: gateway_pb2.ResultEvent) -> None:
    match event.WhichOneof("body"):
        case "job":
            await verifier.accept_job(codec.signed_from_pb(event.job, Job))
        case "chunk":
            verifier.accept_chunk(Hash(event.chunk.job), event.chunk.sealed)
        case "progress":
            leaves = [codec.signed_from_pb(leaf, Leaf) for leaf in event.progress.leaves]
            await verifier.accept_progress(codec.signed_from_pb(event.progress.progress, Progress), leaves)
        case "receipt":
            await verifier.accept_receipt(codec.signed_from_pb(event.receipt, Receipt))
        case "error":
            assert len(codec.fault_from_pb(event.error).text) <= 2_000
        case _:
            raise MalformedMessageError("an event of no known kind")


def _again(kind: type[Any], key: Key, part: Message) -> None:
    """Sign a part again, as whoever sends it would after changing it."""
    with suppress(PlaitError):
        part.CopyFrom(codec.signed_to_pb(key.signed(DOMAIN, codec.signed_from_pb(part, kind).message)))


def vary_job(data: bytes, place: int, piece: bytes) -> bytes:
    made = gateway_pb2.JobCall.FromString(varied(gateway_pb2.JobCall, data, place, piece))
    if place % 2:
        _again(Quote, case().swarm.gateway.service, made.quote)
        _again(Request, case().session, made.request)
    return made.SerializeToString()


def vary_result(data: bytes, place: int, piece: bytes) -> bytes:
    made = gateway_pb2.ResultEvent.FromString(varied(gateway_pb2.ResultEvent, data[1:], place, piece))
    kind, worker = made.WhichOneof("body"), case().swarm.worker.service
    if place % 2 and kind in {"job", "receipt"}:
        _again({"job": Job, "receipt": Receipt}[kind], worker, getattr(made, kind))
    if place % 2 and kind == "progress":
        _again(Progress, worker, made.progress.progress)
        for leaf in made.progress.leaves:
            _again(Leaf, case().swarm.stages[leaf.message.stage % 3].service, leaf)
    return data[:1] + made.SerializeToString()


def vary_pay(data: bytes, place: int, piece: bytes) -> bytes:
    made = gateway_pb2.PayNotice.FromString(varied(gateway_pb2.PayNotice, data, place, piece))
    if place % 2 and made.WhichOneof("body") == "cancel":
        _again(Cancel, case().session, made.cancel)
    return made.SerializeToString()


def vary_prompt(data: bytes, place: int, piece: bytes) -> bytes:
    return varied(gateway_pb2.PromptCall, data, place, piece)


def vary_offer(data: bytes, place: int, piece: bytes) -> bytes:
    kind = gateway_pb2.OfferBody if data[:1] == b"\1" else gateway_pb2.WorkerOffer
    return data[:1] + varied(kind, data[1:], place, piece)


def _bytes(*messages: Message, head: bytes = b"") -> list[bytes]:
    return [head + each.SerializeToString() for each in messages]


def _results() -> list[bytes]:
    """Return every event of the answer in its place, and out of it."""
    events = case().events
    error = gateway_pb2.ResultEvent(request=case().name, error=codec.fault_to_pb(RefusedError("no").fault()))
    there = [bytes([place]) + event.SerializeToString() for place, event in enumerate(events)]
    return there + [bytes([3]) + event.SerializeToString() for event in (*events[:6], events[-1], error)]


def _pays() -> list[bytes]:
    made = case()
    cancel = made.session.signed(DOMAIN, Cancel(request=made.name, to=5))
    notices = [gateway_pb2.PayNotice(payment=codec.payment_to_pb(each)) for each in made.payments]
    return _bytes(*notices, gateway_pb2.PayNotice(cancel=codec.signed_to_pb(cancel)))


def _offers() -> list[bytes]:
    body = case().offer_body()
    return [b"\1" + body, b"\0" + case().offer(body).SerializeToString()]


def targets() -> list[Target]:
    """Return the targets of the broker's messages."""
    made: list[tuple[str, Callable[[bytes], bool], Callable[[], list[bytes]], int, Any]] = [
        ("job", job_from, lambda: _bytes(case().call()), 60, vary_job),
        ("result", result_from, _results, 35, vary_result),
        ("pay", pay_from, _pays, 40, vary_pay),
        ("prompt", prompt_from, lambda: _bytes(case().prompt()), 25, vary_prompt),
        ("offer", offer_from, _offers, 40, vary_offer),
    ]
    return [
        Target(name=f"broker.{name}", run=run, seeds=seeds, share=share, vary=vary, guided=False)
        for name, run, seeds, share, vary in made
    ]
