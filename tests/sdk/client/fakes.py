"""A gateway behind httpx.MockTransport and a chain in memory; messages, signatures and books are the real ones."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from tests.sdk.client.edge import FakeEdge
from tests.sdk.swarm import DOMAIN, NOW, TEMPLATE, Answer, Event, Swarm, tokenizer, tokenizer_json

from plait.chain.reader import ChannelSlot
from plait.client import AsyncPlait
from plait.client.settings import Settings
from plait.ledger.errors import PaymentError
from plait.ledger.journal import Journal
from plait.ledger.payee import PayeeBook
from plait.protocol.checks import check_request
from plait.protocol.codec import (
    amount_bytes,
    fault_to_pb,
    from_pb,
    payment_from_pb,
    signed_from_pb,
    signed_to_pb,
    to_pb,
)
from plait.protocol.errors import Fault, PlaitError, RefusedError, UnknownModelError
from plait.protocol.ids import Address, Hash, channel_id, hash32, keccak, to_hex
from plait.protocol.messages import Ack, Cancel, Finish, Prekey, Quote, Request, Resume
from plait.protocol.pb import gateway_pb2, signed_pb2
from plait.protocol.receipts import RECEIPT, ReceiptLeaf
from plait.protocol.sealing import open_prompt
from plait.protocol.typed import Key, Signed, digest

Script = Callable[[Answer], Iterator[Event]]


@dataclass(slots=True, kw_only=True)
class Held:
    """A job the gateway took: its answer's maker and the events made so far."""

    request: Request
    answer: Answer
    events: list[gateway_pb2.ResultEvent] = field(default_factory=list)
    script: Iterator[Event]


class FakeGateway:
    """Speaks the gateway's HTTP for one swarm; `script` says how each answer goes."""

    def __init__(self, swarm: Swarm, edge: FakeEdge, folder: Path, script: Script) -> None:
        self.swarm, self.edge, self.script = swarm, edge, script
        self._folder = folder
        self._book: PayeeBook | None = None
        self.jobs: dict[Hash, Held] = {}
        self.payments: list[tuple[int, int]] = []  # amount, to
        self.cancelled: list[int] = []
        self.calls: list[str] = []
        self.refuse: dict[str, list[Fault | int | httpx.Response | type[Exception]]] = {}  # by path, one for each call
        self.drop_after: list[int] = []  # events to send before the stream breaks, one for each connection
        self.interrupt: list[Fault] = []  # after five events, under the last one's sequence, one for each connection
        self.change_quote: dict[str, object] = {}
        self.brought: list[tuple[int, gateway_pb2.PromptCall]] = []
        self.now = NOW
        self.ack_key: Key = swarm.gateway.service
        self.change_data: Callable[[str, bytes], bytes] = lambda path, data: data

    @property
    def book(self) -> PayeeBook:
        if self._book is None:  # made in the thread that uses it
            self._book = PayeeBook(Journal(self._folder / "gateway.sqlite"), DOMAIN, self.swarm.gateway.owner)
        return self._book

    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self.handle)

    async def handle(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        self.calls.append(f"{request.method} {path}")
        name = path.split("/")[-1] if path.endswith(("events", "cancel")) else path
        planned = self.refuse.get(name)
        try:
            if planned:
                refusal = planned.pop(0)
                if isinstance(refusal, Fault):
                    return fault_response(refusal)
                if isinstance(refusal, httpx.Response):
                    return refusal
                if isinstance(refusal, type):
                    raise refusal("gone")
                if refusal:
                    return httpx.Response(refusal)
            return self.get(path) if request.method == "GET" else self.post(path, await request.aread())
        except (RefusedError, PaymentError) as error:
            return fault_response(error.fault())

    def get(self, path: str) -> httpx.Response:
        match path.split("/")[2:]:
            case ["models"]:
                terms = [to_pb(self.swarm.terms)]
                served = gateway_pb2.ServedModel(model=self.swarm.manifest.model_id, name="a lie", terms=terms)
                return self.reply(path, gateway_pb2.ModelListing(models=[served]))
            case ["manifests", _]:
                return httpx.Response(200, content=self.change_data(path, self.swarm.manifest.to_json()))
            case ["files", name]:
                files = {keccak(data): data for data in (tokenizer_json(), TEMPLATE.encode())}
                return httpx.Response(200, content=self.change_data(path, files[hash32(name)]))
            case other:
                raise AssertionError(other)

    def post(self, path: str, body: bytes) -> httpx.Response:
        match path.split("/")[2:]:
            case ["quotes"]:
                return self.quote(gateway_pb2.QuoteCall.FromString(body))
            case ["jobs"]:
                return self.take(gateway_pb2.JobCall.FromString(body))
            case ["jobs", name, "events"]:
                return self.stream(hash32(name), gateway_pb2.EventsCall.FromString(body))
            case ["jobs", name, "cancel"]:
                return self.cancel(hash32(name), gateway_pb2.CancelCall.FromString(body))
            case ["requests", number, "prompt"]:
                self.brought.append((int(number), gateway_pb2.PromptCall.FromString(body)))
                return httpx.Response(202)
            case ["vouchers"]:
                return self.reply(path, self.accept(gateway_pb2.VoucherCall.FromString(body).payment))
            case ["channels", "state"]:
                call = gateway_pb2.ChannelStateCall.FromString(body)
                state = self.book.state(Address(call.payer), Address(call.signer))
                voucher = signed_to_pb(state.voucher) if state else None
                return self.reply(path, gateway_pb2.ChannelState(voucher=voucher))
            case other:
                raise AssertionError(other)

    def reply(self, path: str, message: object) -> httpx.Response:
        return httpx.Response(200, content=self.change_data(path, message.SerializeToString()))

    def quote(self, call: gateway_pb2.QuoteCall) -> httpx.Response:
        if call.model != self.swarm.manifest.model_id:
            raise UnknownModelError("not served; served: tiny")
        prekey: Signed[Prekey] = self.swarm.prekey(self.now)
        quote: Signed[Quote] = self.swarm.quote(prekey, self.now, **self.change_quote)
        self.prekey, self.quoted = prekey, quote
        reply = gateway_pb2.QuoteReply(quote=signed_to_pb(quote), prekeys=[signed_to_pb(prekey)])
        return self.reply("/v1/quotes", reply)

    def take(self, call: gateway_pb2.JobCall) -> httpx.Response:
        request = signed_from_pb(call.request, Request)
        check_request(from_pb(call.quote.message, Quote), request.message, now=self.now)
        name = request.digest(DOMAIN)
        assert len(call.prompt) % 1_024 == 16
        acknowledgement = self.accept(call.payment)
        if name not in self.jobs:
            capsule = next(each for each in call.capsules if each.node == self.swarm.worker.owner)
            key = self.swarm.prekey_secret.open(capsule.sealed, request=name, node=self.swarm.worker.owner)
            ids, stop = open_prompt(key, name, call.prompt)
            answer = self.swarm.answer(request.message, key, ids)
            answer.stop = stop
            self.jobs[name] = Held(request=request.message, answer=answer, script=self.script(answer))
        return self.reply("/v1/jobs", gateway_pb2.JobReply(ack=acknowledgement))

    def accept(self, raw: signed_pb2.Payment) -> signed_pb2.Acknowledgement:
        payment = payment_from_pb(raw)
        slot = self.edge.slots.get(
            channel_id(self.edge.payer, self.swarm.gateway.owner, payment.voucher.signer(DOMAIN))
        ) or ChannelSlot(deposit=0, claimed=0, exit_at=0, jobs=0)
        accepted = self.book.accept(
            payment, deposit=slot.deposit, claimed=slot.claimed, exit_at=slot.exit_at, now=self.now
        )
        if not accepted.repeated:
            self.payments.append((payment.pay.message.amount, payment.pay.message.to))
        ack = self.ack_key.signed(DOMAIN, Ack(voucher=payment.voucher.struct_hash(), at=int(self.now)))
        return signed_pb2.Acknowledgement(ack=signed_to_pb(ack), credit=amount_bytes(accepted.credit))

    def stream(self, name: Hash, call: gateway_pb2.EventsCall) -> httpx.Response:
        resume = signed_from_pb(call.resume, Resume)
        held = self.jobs[name]
        assert resume.message.request == name
        assert resume.message.expires > self.now
        limit = self.drop_after.pop(0) if self.drop_after else None
        return httpx.Response(200, stream=EventStream(self, held, resume.message.after, limit))

    def cancel(self, name: Hash, call: gateway_pb2.CancelCall) -> httpx.Response:
        cancel = signed_from_pb(call.cancel, Cancel).message
        assert cancel.request == name
        self.cancelled.append(cancel.to)
        held = self.jobs[name]
        held.script = cancelled(held.answer)
        return httpx.Response(204)

    def made(self, held: Held, event: Event) -> None:
        held.events.append(as_pb(held.answer.digest, event))
        channel = channel_id(held.request.payer, self.swarm.gateway.owner, self.signer())
        if event.kind == "receipt":
            receipt = event.body
            leaf = ReceiptLeaf(
                kind=RECEIPT,
                hash=receipt.digest(DOMAIN),
                hop_amount=receipt.message.price,
                windows_paid=len(held.answer.leaves) // 3,
            )
            with suppress(PlaitError):
                self.book.end_job(channel, held.answer.digest, leaf)

    def signer(self) -> Address:
        return self.book.channels()[0].signer


class EventStream(httpx.AsyncByteStream):
    """The SSE body: events made so far, then new ones; breaks after `limit` when told so."""

    def __init__(self, gateway: FakeGateway, held: Held, after: int, limit: int | None) -> None:
        self._gateway, self._held, self._after, self._limit = gateway, held, after, limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        at, sent = self._after, 0
        fault = self._gateway.interrupt.pop(0) if self._gateway.interrupt else None
        yield b": hello\n\n"
        while True:
            if self._limit is not None and sent == self._limit:
                raise httpx.ReadError("the line broke")
            if fault is not None and sent == 5:
                made = as_pb(self._held.answer.digest, Event(kind="error", body=fault))
                yield b"id: %d\nevent: error\ndata: %s\n\n" % (at, base64.b64encode(made.SerializeToString()))
                return
            if at == len(self._held.events):
                event = next(self._held.script, None)
                if event is None:
                    return
                self._gateway.made(self._held, event)
            made = self._held.events[at]
            at, sent = at + 1, sent + 1
            data = base64.b64encode(made.SerializeToString())
            text = b"id: %d\nevent: %s\ndata: %s\n\n" % (at, made.WhichOneof("body").encode(), data)
            half = len(text) // 2
            yield text[:half]
            await asyncio.sleep(0)
            yield text[half:]
            if made.WhichOneof("body") in ("receipt", "error"):
                return


def as_pb(request: Hash, event: Event) -> gateway_pb2.ResultEvent:
    made = gateway_pb2.ResultEvent(request=request)
    match event.kind:
        case "job":
            made.job.CopyFrom(signed_to_pb(event.body))
        case "chunk":
            made.chunk.job, made.chunk.sealed = event.body
        case "progress":
            progress, leaves = event.body
            made.progress.progress.CopyFrom(signed_to_pb(progress))
            made.progress.leaves.extend(signed_to_pb(leaf) for leaf in leaves)
        case "receipt":
            made.receipt.CopyFrom(signed_to_pb(event.body))
        case "error":
            made.error.CopyFrom(fault_to_pb(event.body))
        case other:
            raise AssertionError(other)
    return made


def cancelled(answer: Answer) -> Iterator[Event]:
    end = len(answer.prompt) + len(answer.ids) - 1
    if answer.ids and end > answer.end:
        yield Event(kind="progress", body=answer.progress(end))
    answer.segment()
    yield Event(kind="receipt", body=answer.receipt(Finish.CANCELLED))


def fault_response(fault: Fault) -> httpx.Response:
    return httpx.Response(400, content=fault_to_pb(fault).SerializeToString())


@dataclass(slots=True, kw_only=True)
class World:
    """A client, and what it talks to."""

    swarm: Swarm
    edge: FakeEdge
    gateway: FakeGateway
    key: Key
    home: Path
    deployment: Path

    def arguments(self, **changes: object) -> dict[str, object]:
        async def connect(_: Settings) -> FakeEdge:
            return self.edge

        return {
            "rpc": "http://chain.test",
            "deployment": self.deployment,
            "key": self.key.secret_hex(),
            "home": self.home,
            "transport": self.gateway.transport(),
            "connect": connect,
            "clock": lambda: self.gateway.now,
            **changes,
        }

    def client(self, **changes: object) -> AsyncPlait:
        return AsyncPlait(**self.arguments(**changes))


def says(ids: Sequence[int], finish: int = Finish.STOP, chunk: int = 5) -> Script:
    return lambda answer: answer.events(ids, finish, chunk=chunk)


def ids_of(text: str) -> list[int]:
    return [*tokenizer().encode(text), 257]


__all__ = ["DOMAIN", "NOW", "Event", "FakeEdge", "FakeGateway", "World", "digest", "ids_of", "says", "to_hex", "to_pb"]
