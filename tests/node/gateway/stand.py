"""A gateway with everything around it in one process: broker, DHT, worker, payer; only chain and model are played."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import httpx
from tests.sdk.swarm import DOMAIN, NOW, TEMPLATE, Answer, Event, KnownKey, Node, Swarm, tokenizer_json

from plait.ledger import Journal, PayerBook, SharedBook
from plait.protocol import codec
from plait.protocol.codec import Payment
from plait.protocol.errors import PlaitError
from plait.protocol.ids import Address, Hash, group_id, keccak, to_hex
from plait.protocol.messages import Cancel, Finish, Job, Prekey, Quote, Receipt, Record, Request, Resume
from plait.protocol.money import job_price
from plait.protocol.pb import gateway_pb2, signed_pb2
from plait.protocol.sealing import ContentKey, seal_capsule, seal_prompt
from plait.protocol.typed import Key, Signed
from plait_node.broker import Broker, MemoryBroker
from plait_node.errors import DiskFullError
from plait_node.gateway import Gateway, Strangers, make_app
from plait_node.gateway.limits import CallLimiter
from plait_node.swarm import Announcer, DhtKey, Lookup, MemoryDht

PROMPT = tuple(range(40, 60))  # 20 tokens: one whole window and a short one
OUTPUT = tuple(range(100, 140))  # 40 tokens
CALL_S = 60.0


@dataclass(slots=True)
class PlayedChain:
    """The slots of channels, and the newest block's time."""

    slots: dict[tuple[Address, Address], SimpleNamespace] = field(default_factory=dict)
    time: float = NOW
    down: bool = False
    tier_of: dict[Address, int] = field(default_factory=dict)

    async def channel(self, payer: Address, payee: Address, signer: Address) -> SimpleNamespace:
        if self.down:
            raise ChainAwayError("the RPC is down")
        return self.slots.get((payer, signer), SimpleNamespace(deposit=0, claimed=0, exit_at=0))

    async def block(self) -> SimpleNamespace:
        return SimpleNamespace(timestamp=int(self.time))

    async def tiers(self, owners: Iterable[Address]) -> dict[Address, int]:
        if self.down:
            raise ChainAwayError("the RPC is down")
        return {owner: self.tier_of.get(owner, 0) for owner in owners}


@dataclass(slots=True)
class PlayedRequests:
    """The open on-chain requests by number: whom they ask, and their digest."""

    open: dict[int, tuple[Address, Hash]] = field(default_factory=dict)
    down: bool = False

    async def named(self, number: int, gateway: Address, request: Hash) -> bool:
        if self.down:
            raise ChainAwayError("the RPC is down")
        return self.open.get(number) == (gateway, request)


class ChainAwayError(PlaitError):
    code = "rpc_down"


@dataclass(slots=True, kw_only=True)
class Asked:
    """One request as its payer holds it."""

    key: ContentKey
    quote: Signed[Quote]
    request: Signed[Request]
    name: Hash
    payment: Payment
    call: gateway_pb2.JobCall


@dataclass(slots=True, kw_only=True)
class Seen:
    """One event of an answer as the payer's HTTP client got it."""

    sequence: int
    kind: str
    event: gateway_pb2.ResultEvent


class Stand:
    """Everything around one gateway; `start` and `stop` it as often as a test likes."""

    def __init__(
        self, folder: Path, broker: Broker | None = None, *, patience_s: float = 0.3, patient: bool = False
    ) -> None:
        self.folder = folder
        self.patient = patient  # with those who bring many prompts
        self.patience_s = patience_s
        self.now = float(NOW)
        self.swarm = Swarm()
        self.swarm.worker = Node(owner=self.swarm.gateway.owner, service=Key.generate())
        self.swarm.directory.keys[self.swarm.worker.service.address] = KnownKey(owner=self.swarm.worker.owner)
        self.broker: Broker = broker or MemoryBroker(self.clock)
        self.chain = PlayedChain()
        self.on_chain = PlayedRequests()
        self.dht, self.dht_key = MemoryDht(), DhtKey(bytes(range(32)))
        self.notified = 0
        self.full = False  # the disk
        self.session = Key.generate()
        self.payer = PayerBook(Journal(folder / "payer.sqlite"), DOMAIN, self.session, clock=self.clock)
        self.prekey = self.swarm.prekey()
        self.gateway: Gateway | None = None
        self.me = self.swarm.gateway.owner
        self.set_slot(deposit=1_000_000)
        self._publish_model()

    def clock(self) -> float:
        return self.now

    def ready(self) -> None:
        if self.full:
            raise DiskFullError("no room")

    def set_slot(self, *, deposit: int, claimed: int = 0, exit_at: int = 0) -> None:
        slot = SimpleNamespace(deposit=deposit, claimed=claimed, exit_at=exit_at)
        self.chain.slots[(self.payer.payer, self.payer.signer)] = slot

    async def node(self, owner: Address) -> SimpleNamespace:
        """Answer as `NodeSource` for the look-up."""
        return SimpleNamespace(owner=owner, dht_key=self.dht_key.public)

    @asynccontextmanager
    async def running(
        self,
        name: str = "gateway",
        *,
        broker: Broker | None = None,
        url: str = "",
        strangers: Callable[[Journal, Key], Strangers] | None = None,
    ) -> AsyncIterator[httpx.AsyncClient]:
        """Run one of the owner's gateways, over a journal of its own and the broker, and speak to it over ASGI."""
        journal = Journal(self.folder / f"{name}-journal.sqlite")
        self.journal = journal
        self.book = SharedBook(journal, DOMAIN, self.me)
        lookup = Lookup(dht=self.dht, nodes=self, keys=self.swarm.directory, domain=DOMAIN, clock=self.clock)
        gateway = Gateway(
            owner=self.me,
            key=self.swarm.gateway.service,
            domain=DOMAIN,
            book=self.book,
            store=self.folder / f"{name}.sqlite",
            broker=broker or self.broker,
            directory=self.swarm.directory,
            chain=self.chain,
            on_chain=self.on_chain,
            lookup=lookup,
            models=self.folder / "models",
            notify=self._notify,
            clock=self.clock,
            patience_s=self.patience_s,
            ready=self.ready,
            strangers=strangers(journal, self.swarm.gateway.service) if strangers else None,
        )
        gateway.reached_at(url or f"http://{name}")
        async with gateway:
            self.gateway = gateway
            limiter = CallLimiter(self.clock, per_s=1.0, burst=1_000.0)
            app = make_app(gateway, limiter=limiter, prompts=limiter if self.patient else None)
            async with httpx.AsyncClient(
                transport=httpx.ASGITransport(app=app), base_url=f"http://{name}", timeout=CALL_S
            ) as client:
                yield client
        journal.close()

    async def offer(self, **changes: object) -> None:
        """Put the worker's offer into the broker."""
        model = self.swarm.manifest.model_id
        values: dict[str, object] = {
            "version": 1,
            "prekey": codec.signed_to_pb(self.prekey),
            "model": model,
            "hardware": "cpu",
            "terms": [codec.to_pb(self.swarm.terms)],
            "max_input": 1_024,
            "max_output": 512,
            "share": 1_000_000,
            "room": 2,
        }
        made = gateway_pb2.OfferBody(**(values | changes))
        body = made.SerializeToString()
        record = Record(
            kind=4, topic=model, node=self.swarm.worker.owner, sequence=1, expires=int(self.now) + 60, body=keccak(body)
        )
        signed = self.swarm.worker.service.signed(DOMAIN, record)
        await self.broker.offer(
            self.swarm.worker.owner,
            model,
            gateway_pb2.WorkerOffer(record=codec.signed_to_pb(signed), body=body),
            group=group_id(model, made.hardware, made.tier, made.cohort),
        )

    async def quote(self, client: httpx.AsyncClient) -> Signed[Quote]:
        call = gateway_pb2.QuoteCall(model=self.swarm.manifest.model_id)
        response = await client.post("/v1/quotes", content=call.SerializeToString())
        assert response.status_code == 200, fault(response)
        reply = gateway_pb2.QuoteReply.FromString(response.content)
        assert codec.signed_from_pb(reply.prekeys[0], Prekey) == self.prekey
        return codec.signed_from_pb(reply.quote, Quote)

    def ask(
        self, quote: Signed[Quote], *, prompt: Sequence[int] = PROMPT, max_tokens: int = len(OUTPUT), **changes: object
    ) -> Asked:
        """Build a signed, sealed and paid request."""
        key = ContentKey.generate()
        request = self.swarm.request(quote.message, key, prompt, max_tokens=max_tokens)
        request = replace(request, payer=self.payer.payer, deadline=int(self.now) + 600, **changes)
        signed = self.session.signed(DOMAIN, request)
        name = signed.digest(DOMAIN)
        price = job_price(self.swarm.terms, input_tokens=len(prompt), output_tokens=0)
        payment = self.payer.channel(self.me).pay(name, price, 0)
        public, worker = self.prekey.message, self.swarm.worker.owner
        capsule = seal_capsule(key, prekey_public=public.key, kem=public.kem, request=name, node=worker)
        call = gateway_pb2.JobCall(
            quote=codec.signed_to_pb(quote),
            request=codec.signed_to_pb(signed),
            payment=codec.payment_to_pb(payment),
            capsules=[gateway_pb2.Capsule(node=worker, sealed=capsule)],
            prompt=seal_prompt(key, name, list(prompt), []),
        )
        return Asked(key=key, quote=quote, request=signed, name=name, payment=payment, call=call)

    async def submit(self, client: httpx.AsyncClient, asked: Asked) -> httpx.Response:
        return await client.post("/v1/jobs", content=asked.call.SerializeToString())

    async def submitted(self, client: httpx.AsyncClient, **changes: object) -> Asked:
        """Quote, ask and submit; return what was asked."""
        await self.offer()
        asked = self.ask(await self.quote(client), **changes)
        response = await self.submit(client, asked)
        assert response.status_code == 200, fault(response)
        return asked

    def answer(self, asked: Asked, prompt: Sequence[int] = PROMPT) -> Answer:
        return self.swarm.answer(asked.request.message, asked.key, prompt)

    async def publish(self, asked: Asked, event: Event, key: str, *, worker: Address | None = None) -> None:
        """Publish one event as the worker does."""
        made = gateway_pb2.ResultEvent(request=asked.name)
        body = event.body
        match event.kind:
            case "chunk":
                made.chunk.CopyFrom(gateway_pb2.Chunk(job=body[0], sealed=body[1]))
            case "progress":
                progress, leaves = body
                made.progress.progress.CopyFrom(codec.signed_to_pb(progress))
                made.progress.leaves.extend(codec.signed_to_pb(leaf) for leaf in leaves)
            case _:
                getattr(made, event.kind).CopyFrom(codec.signed_to_pb(body))
        await self.broker.publish_result(self.me, asked.name, worker or self.swarm.worker.owner, made, key=key)

    async def deposit(self, signed: Signed[Job] | Signed[Receipt], key: Key | None = None) -> None:
        """Put a job or a receipt into the DHT as the worker does."""
        announcer = Announcer(
            dht=self.dht,
            dht_key=self.dht_key,
            key=key or self.swarm.worker.service,
            domain=DOMAIN,
            node=self.swarm.worker.owner,
            clock=self.clock,
        )
        await announcer.deposit(signed)

    async def work(
        self, asked: Asked, output: Sequence[int] = OUTPUT, *, upto: int | None = None, forge: bool = False
    ) -> list[Event]:
        """Answer as an honest worker; `forge` puts another receipt into the DHT than into the stream."""
        events = list(self.answer(asked).events(output, Finish.LENGTH))
        for place, event in enumerate(events[:upto]):
            if event.kind == "job":
                await self.deposit(event.body)
            if event.kind == "receipt":
                body = event.body
                if forge:
                    other = replace(body.message, finished_at=body.message.finished_at + 1)
                    body = self.swarm.worker.service.signed(DOMAIN, other)
                await self.deposit(body)
            await self.publish(asked, event, f"1.{place}")
        return events

    def resume(self, asked: Asked, after: int = 0) -> bytes:
        message = Resume(request=asked.name, after=after, expires=int(self.now) + 600)
        signed = self.session.signed(DOMAIN, message)
        return gateway_pb2.EventsCall(resume=codec.signed_to_pb(signed)).SerializeToString()

    async def follow(self, client: httpx.AsyncClient, asked: Asked, after: int = 0) -> list[Seen]:
        """Read an answer's events to the stream's end."""
        path = f"/v1/jobs/{to_hex(asked.name)}/events"
        async with asyncio.timeout(CALL_S):
            response = await client.post(path, content=self.resume(asked, after))
        assert response.status_code == 200, fault(response)
        return parse_sse(response.content)

    async def relayed(self, asked: Asked, kind: str) -> None:
        """Wait until the running gateway let an event of this kind pass."""
        async with asyncio.timeout(CALL_S):
            while kind not in {event.kind for event in self.gateway._relays[asked.name]._events}:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def pay(self, client: httpx.AsyncClient, asked: Asked, to: int) -> httpx.Response:
        """Pay for tokens up to `to` under the quote."""
        price = job_price(self.swarm.terms, input_tokens=asked.request.message.input_tokens, output_tokens=to)
        payment = self.payer.channel(self.me).pay(asked.name, price, to)
        return await self.send(client, payment)

    async def send(self, client: httpx.AsyncClient, payment: Payment) -> httpx.Response:
        call = gateway_pb2.VoucherCall(payment=codec.payment_to_pb(payment))
        return await client.post("/v1/vouchers", content=call.SerializeToString())

    def cancel(self, asked: Asked, key: Key | None = None) -> bytes:
        signed = (key or self.session).signed(DOMAIN, Cancel(request=asked.name, to=5))
        return gateway_pb2.CancelCall(cancel=codec.signed_to_pb(signed)).SerializeToString()

    def _notify(self) -> None:
        self.notified += 1

    def _publish_model(self) -> None:
        folder = self.folder / "models" / to_hex(self.swarm.manifest.model_id)
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_bytes(self.swarm.manifest.to_json())
        (folder / "tokenizer.json").write_bytes(tokenizer_json())
        (folder / "chat_template.jinja").write_bytes(TEMPLATE.encode())


async def until(condition: Callable[[], bool]) -> None:
    """Look again and again until something is so."""
    async with asyncio.timeout(CALL_S):
        while not condition():  # noqa: ASYNC110 - what is looked at has no event
            await asyncio.sleep(0.01)


def fault(response: httpx.Response) -> signed_pb2.Fault:
    return signed_pb2.Fault.FromString(response.content)


def parse_sse(content: bytes) -> list[Seen]:
    seen: list[Seen] = []
    for block in content.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":"))
        if fields:
            event = gateway_pb2.ResultEvent.FromString(base64.b64decode(fields["data"]))
            assert event.WhichOneof("body") == fields["event"]
            seen.append(Seen(sequence=int(fields["id"]), kind=fields["event"], event=event))
    return seen
