"""A whole swarm in one process: real stages over real links, a worker role, a payer that verifies and pays."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from tests.node.stage.network import PRICE, PROFILE, Network, Node, Slot, network
from tests.node.stage.tiny import BLOCKS, CONTEXT, MANIFEST, TinyEngine
from tests.node.wire.peers import DOMAIN, HASTY, identity

from plait.ledger import Journal, PayerBook, SigningGuard
from plait.protocol.choice import ChoiceNote
from plait.protocol.codec import payment_to_pb, signed_from_pb, signed_to_pb
from plait.protocol.commitments import prompt_commitment, stop_commitment
from plait.protocol.ids import Address, Hash, group_id
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
from plait.protocol.typed import Key, Signed, digest, random_hash
from plait.protocol.verify import AnswerVerifier
from plait_model import sample
from plait_node.broker import MemoryBroker
from plait_node.swarm import Announcer, DhtKey, Directory, Lookup, MemoryDht, NodeFacts
from plait_node.wire import Dialer, PeerIdentity
from plait_node.worker import (
    Admission,
    HopDesk,
    JobShape,
    LinkPool,
    Patience,
    Planner,
    PrekeyRing,
    Tools,
    WorkerConfig,
    WorkerRole,
    WorkerSigner,
)

TERMS = Terms(profile=PROFILE, input_price=4_000_000, output_price=8_000_000)
GROUP = group_id(MANIFEST.model_id, "cpu", 0, 0)
PATIENT = Patience(open_s=3, first_token_s=5, step_s=4, pay_s=1.5, credit_windows=4)


class TinyTokenizer:
    """One letter a token."""

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(chr(33 + token) for token in ids)


@dataclass(slots=True)
class Source:
    """The registry's list of stages, with the DHT keys of the test's nodes."""

    net: Network
    keys: dict[Address, DhtKey] = field(default_factory=dict)

    def key(self, owner: Address) -> DhtKey:
        return self.keys.setdefault(owner, DhtKey(os.urandom(32)))

    async def stages(self) -> Sequence[Registered]:
        return [Registered(node.identity.owner, self.key(node.identity.owner).public) for node in self.net.nodes]

    async def node(self, owner: Address, /) -> Registered | None:
        return Registered(owner, self.key(owner).public)

    async def peers(self) -> list[tuple[str, int]]:
        return []


@dataclass(frozen=True, slots=True)
class Registered:
    owner: Address
    dht_key: bytes


@dataclass(slots=True, kw_only=True)
class World:
    """Everything a test touches."""

    net: Network
    broker: MemoryBroker
    dht: MemoryDht
    source: Source
    who: PeerIdentity
    gateway: PeerIdentity
    payer: Key
    book: PayerBook
    prekeys: PrekeyRing
    planner: Planner
    swarm: Directory
    pool: LinkPool
    desk: HopDesk
    role: WorkerRole
    lookup: Lookup
    signer: WorkerSigner
    choice: ChoiceNote | None = None

    def choose(self, shape: JobShape) -> ChoiceNote:
        if self.choice is not None:
            return self.choice
        method = "prefix-cache" if shape.shared_prefix_tokens else "plain"
        return ChoiceNote(method=method, amounts={}, predicted={"firstTokenUs": 1}, reason="the test says so")

    def announcer(self, who: PeerIdentity) -> Announcer:
        return Announcer(
            dht=self.dht,
            dht_key=self.source.key(who.owner),
            key=who.key,
            domain=DOMAIN,
            node=who.owner,
            clock=time.time,
        )

    async def announce(self, node: Node, **changed: Any) -> None:  # noqa: ANN401 - facts of a record
        facts = NodeFacts(
            model=MANIFEST.model_id,
            first=node.engine.first,
            last=node.engine.last,
            profile=PROFILE,
            step_micros=100,
            free_steps=node.engine.free_steps,
            queue=0,
            price=PRICE,
            host="127.0.0.1",
            port=node.port,
            certificate=node.identity.certificate.fingerprint,
        )
        await self.announcer(node.identity).announce(replace(facts, **changed))
        self.fund(node)

    def fund(self, node: Node) -> None:
        self.net.channels.slots[self.who.owner, node.identity.owner, self.who.key.address] = Slot()

    async def asking(self, prompt: Sequence[int], **changed: Any) -> Asked:  # noqa: ANN401 - fields of a request
        return await Asked.make(self, prompt, **changed)

    async def settled(self) -> None:
        """Wait until nothing is under way to any stage any more."""
        await until(lambda: not self.role.busy)
        for node in self.net.nodes:
            if self.pool.alive(node.identity.owner):
                assert await self.desk.acknowledged(node.identity.owner)


@dataclass(slots=True, kw_only=True)
class Asked:
    """A request as its payer holds it: verifies every event, pays as the SDK does."""

    world: World
    prompt: list[int]
    stop: tuple[str, ...]
    content_key: ContentKey
    quote: Signed[Quote]
    request: Signed[Request]
    digest: Hash
    call: gateway_pb2.JobCall
    verifier: AnswerVerifier
    book: PayerBook
    pays: bool = True
    cancel_at: int = 1 << 30
    kill_at: tuple[int, Node] | None = None
    events: list[str] = field(default_factory=list)
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
        **changed: Any,  # noqa: ANN401 - fields of the request
    ) -> Asked:
        content_key, payer = ContentKey.generate(), world.payer
        prekey = world.prekeys.current()
        quote = world.gateway.key.signed(
            DOMAIN,
            Quote(
                gateway=world.gateway.owner,
                model=MANIFEST.model_id,
                group=GROUP,
                terms=(TERMS,),
                workers=(Worker(node=world.who.owner, prekey=prekey.struct_hash(), share=1_000_000),),
                max_input=400,
                max_output=200,
                expires=int(time.time()) + 60,
            ),
        )
        request = Request(
            payer=payer.address,
            gateway=world.gateway.owner,
            quote=quote.struct_hash(),
            model=MANIFEST.model_id,
            profiles=(PROFILE,),
            prompt=prompt_commitment(content_key, prompt),
            sampling=Sampling(
                temperature=temperature, top_p=1_000_000, top_k=0, stop=stop_commitment(content_key, stop)
            ),
            input_tokens=len(prompt),
            max_tokens=max_tokens,
            max_price=1_000_000,
            seed=random_hash(),
            nonce=random_hash(),
            deadline=int(time.time()) + deadline_s,
        )
        signed = payer.signed(DOMAIN, replace(request, **changed))
        name = digest(DOMAIN, signed.message)
        book = PayerBook(Journal(world.net.folder / "payer.db"), DOMAIN, payer)
        due = input_price_rounded_up(len(prompt), TERMS.input_price)
        capsule = seal_capsule(
            content_key,
            prekey_public=prekey.message.key,
            kem=prekey.message.kem,
            request=name,
            node=world.who.owner,
        )
        call = gateway_pb2.JobCall(
            quote=signed_to_pb(quote),
            request=signed_to_pb(signed),
            payment=payment_to_pb(book.channel(world.gateway.owner).pay(name, due, 0)),
            capsules=[gateway_pb2.Capsule(node=world.who.owner, sealed=capsule)],
            prompt=seal_prompt(content_key, name, prompt, stop),
        )
        verifier = AnswerVerifier(
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
        return cls(
            world=world,
            prompt=list(prompt),
            stop=stop,
            content_key=content_key,
            quote=quote,
            request=signed,
            digest=name,
            call=call,
            verifier=verifier,
            book=book,
        )

    async def send(self) -> None:
        assert await self.world.broker.publish_job(GROUP, 1, self.call, request=self.digest)

    async def run(self, *, deadline_s: float = 15.0) -> list[int]:
        """Send, then follow the answer to its end; every event passes L0 or this raises."""
        await self.send()
        async with asyncio.timeout(deadline_s):
            async for result in self.world.broker.results(self.world.gateway.owner, self.digest):
                await self._take(result.event)
                if self.receipt is not None or self.error is not None:
                    break
        await self._end()
        return list(self.verifier.ids)

    async def _take(self, event: gateway_pb2.ResultEvent) -> None:
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
        await self.world.broker.publish_pay(self.world.who.owner, self.digest, notice, key=key)

    def expected(self, count: int) -> list[int]:
        """Return what the whole model answers in one piece."""
        return whole_model(self.request.message, self.digest, self.prompt, count)


def whole_model(request: Request, name: Hash, prompt: Sequence[int], count: int) -> list[int]:
    """Return what one engine over all blocks answers."""
    engine, ids, at = TinyEngine(0, BLOCKS, kv_steps=CONTEXT), list(prompt), 0
    engine.open(name, CONTEXT)
    for position in range(count):
        logits = engine.step(name, at, np.array(ids[at:], dtype=np.int64)).logits
        assert logits is not None
        at = len(ids)
        drawn = sample(logits, seed=request.seed, request=name, position=position, sampling=request.sampling)
        ids.append(drawn.id)
        if drawn.id in MANIFEST.end_tokens:
            break
    return ids[len(prompt) :]


@asynccontextmanager
async def world(folder: Path, *, patience: Patience = PATIENT, **stage_config: Any) -> AsyncIterator[World]:  # noqa: ANN401
    async with network(folder, **{"credit_windows": 4, **stage_config}) as net:
        made = build(net, patience)
        for node in net.nodes:
            await made.announce(node)
        net.channels.slots[made.payer.address, made.gateway.owner, made.payer.address] = Slot()
        serving = asyncio.create_task(made.role.run())
        try:
            yield made
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            await made.pool.close()
            await made.broker.close()


def build(net: Network, patience: Patience) -> World:
    """Put a worker together as a node does."""
    who, gateway, broker, dht, source = (
        identity(net.directory),
        identity(net.directory),
        MemoryBroker(time.time),
        MemoryDht(),
        Source(net),
    )
    journal = Journal(net.folder / "worker.db")
    book = PayerBook(journal, DOMAIN, who.key, payer=who.owner)
    prekeys = PrekeyRing(net.folder / "prekeys.json", key=who.key, domain=DOMAIN, node=who.owner, clock=time.time)
    swarm = Directory(dht=dht, nodes=source, keys=net.directory, domain=DOMAIN, clock=time.time)
    pool = LinkPool(Dialer(identity=who, directory=net.directory, patience=HASTY))
    desk = HopDesk(channel=book.channel, pool=pool, domain=DOMAIN, directory=net.directory, ack_s=3)
    pool.take_acks(desk.take_ack)
    tools = Tools(
        owner=who.owner,
        domain=DOMAIN,
        directory=net.directory,
        pool=pool,
        desk=desk,
        signer=WorkerSigner(guard=SigningGuard(journal, DOMAIN), key=who.key, domain=DOMAIN),
        manifest=MANIFEST,
        tokenizer=TinyTokenizer(),
        clock=time.time,
        patience=patience,
    )
    holder: list[World] = []
    planner = Planner(
        directory=swarm,
        manifest=MANIFEST,
        choose=lambda shape: holder[0].choose(shape),  # noqa: PLW0108 - the world is made last
        max_price=lambda _: 4_000_000,
        clock=time.time,
    )
    announcer = Announcer(
        dht=dht, dht_key=source.key(who.owner), key=who.key, domain=DOMAIN, node=who.owner, clock=time.time
    )
    role = WorkerRole(
        WorkerConfig(group=GROUP, settle_s=2.0),
        tools=tools,
        planner=planner,
        admission=Admission(
            owner=who.owner, domain=DOMAIN, directory=net.directory, prekeys=prekeys, manifest=MANIFEST
        ),
        announcer=announcer,
        broker=broker,
    )
    holder.append(
        World(
            net=net,
            broker=broker,
            dht=dht,
            source=source,
            who=who,
            gateway=gateway,
            payer=Key.generate(),
            book=book,
            prekeys=prekeys,
            planner=planner,
            swarm=swarm,
            pool=pool,
            desk=desk,
            role=role,
            signer=tools.signer,
            lookup=Lookup(dht=dht, nodes=source, keys=net.directory, domain=DOMAIN, clock=time.time),
        )
    )
    return holder[0]


async def until(condition: Callable[[], bool], *, deadline_s: float = 8.0) -> None:
    """Look again and again until something is so."""
    async with asyncio.timeout(deadline_s):
        while not condition():  # noqa: ASYNC110 - what is looked at has no event, and needs none
            await asyncio.sleep(0.005)


def leaf_of(world_: World, asked: Asked, node: Node) -> ReceiptLeaf | None:
    """Return the leaf with which a request ended on the hop to a stage."""
    jobs = [job for job in world_.book.jobs() if job.request == asked.digest and job.payee == node.identity.owner]
    return jobs[0].leaf if jobs else None
