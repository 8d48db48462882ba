"""A whole swarm in one process: real stages over real links, a worker role, a payer that verifies and pays."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.node.stage.network import PRICE, Network, Node, Slot, network
from tests.node.stage.tiny import MANIFEST
from tests.node.wire.peers import DOMAIN, identity
from tests.node.worker.asked import GROUP, Asked, TinyTokenizer

from plait.ledger import DebtBook, Journal, PayeeBook, PayerBook, SigningGuard
from plait.protocol.choice import ChoiceNote
from plait.protocol.ids import Address
from plait.protocol.receipts import ReceiptLeaf
from plait.protocol.typed import Key
from plait_node.broker import MemoryBroker
from plait_node.selector import Asked as Wanted
from plait_node.selector import Choice, Ran, Trial
from plait_node.settlement import Till
from plait_node.swarm import Announcer, DhtKey, Directory, Lookup, MemoryDht, NodeFacts
from plait_node.wire import Dialer, Meeting, PeerIdentity
from plait_node.wire import Patience as LinkPatience
from plait_node.worker import (
    Admission,
    HopDesk,
    Income,
    LinkPool,
    Patience,
    Planner,
    PrekeyRing,
    Tools,
    WorkerConfig,
    WorkerRole,
    WorkerSigner,
)
from plait_node.worker.ahead import Proposers

# A busy machine may keep this process from running for seconds: only what a test is about runs out sooner.
CALM = LinkPatience(heartbeat_s=0.3, missed_heartbeats=30, send_s=30.0, handshake_s=30.0, close_s=0.5)
PATIENT = Patience(open_s=30, first_token_s=40, step_s=30, pay_s=30, credit_windows=4)
UNPAID = replace(PATIENT, pay_s=1.5)  # where no payment comes, and the answer is to end without it
ACK_S = 30.0


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
    tools: Tools
    meeting: Meeting
    prekeys: PrekeyRing
    swarm: Directory
    lookup: Lookup
    planner: Planner = field(init=False)
    role: WorkerRole = field(init=False)
    choice: ChoiceNote | None = None
    learned: list[tuple[bytes, Ran]] = field(default_factory=list)
    serving: asyncio.Task[None] | None = None
    full: bool = False  # the disk
    share: int = 0  # what the quote says is ours; 0: a gateway that keeps all, and owes us nothing
    income: Income = field(init=False)
    fellows: list[World] = field(default_factory=list)  # the other workers of the group

    @property
    def pool(self) -> LinkPool:
        return self.tools.pool

    @property
    def desk(self) -> HopDesk:
        return self.tools.desk

    def hire(self) -> None:
        """Make the role out of its tools."""
        owner, directory = self.who.owner, self.net.directory
        self.planner = Planner(
            directory=self.swarm,
            manifest=MANIFEST,
            chooser=self,
            max_price=lambda _: 4_000_000,
            clock=time.time,
        )
        till = Till(
            owner=owner,
            key=self.who.key,
            domain=DOMAIN,
            channels=self.net.channels,
            payees=PayeeBook(self.book._journal, DOMAIN, owner),
            clock=time.time,
            unpaid_s=0.3,
        )
        self.income = Income(till, self.broker, DebtBook(self.book._journal, "gateway"))
        self.role = WorkerRole(
            WorkerConfig(group=GROUP, settle_s=self.tools.patience.pay_s),
            tools=self.tools,
            planner=self.planner,
            admission=Admission(
                owner=owner, domain=DOMAIN, directory=directory, prekeys=self.prekeys, manifest=MANIFEST
            ),
            announcer=self.announcer(self.who),
            broker=self.broker,
            full=lambda: self.full,
            income=self.income,
        )

    def choose(self, asked: Wanted) -> Choice:
        warm = [way.warm_tokens for way in asked.ways]
        best = warm.index(max(warm))
        if self.choice is not None:
            return Choice(way=best, note=self.choice)
        method = "prefix-cache" if warm[best] else "plain"
        note = ChoiceNote(method=method, amounts={}, predicted={"first_token_s": 0.001}, reason="the test says so")
        return Choice(way=best, note=note)

    def learn(self, digest: bytes, trial: Trial | None, ran: Ran) -> None:
        self.learned.append((digest, ran))

    def announcer(self, who: PeerIdentity) -> Announcer:
        return Announcer(
            dht=self.dht,
            dht_key=self.source.key(who.owner),
            key=who.key,
            domain=DOMAIN,
            node=who.owner,
            clock=time.time,
        )

    async def announce(self, node: Node, **changed: Any) -> None:
        facts = NodeFacts(
            model=MANIFEST.model_id,
            first=node.engine.first,
            last=node.engine.last,
            profile=self.net.profile.profile_id,
            step_micros=100,
            free_steps=node.engine.free_steps,
            queue=0,
            price=PRICE,
            host=node.destination.host,
            port=node.destination.port,
            certificate=node.identity.certificate.fingerprint,
            via=node.destination.via,
        )
        calm_down(node)
        await self.announcer(node.identity).announce(replace(facts, **changed))
        self.fund(node)

    def fund(self, node: Node) -> None:
        self.net.channels.slots[self.who.owner, node.identity.owner, self.who.key.address] = Slot()

    def fellow(self) -> World:
        """Hire another worker of the same group, with books, links and keys of its own; it takes no jobs yet."""
        other = build(self.net, self.tools.patience, self.tools.proposers, name=f"fellow{len(self.fellows)}")
        other.broker, other.dht, other.source, other.swarm = self.broker, self.dht, self.source, self.swarm
        other.gateway, other.payer = self.gateway, self.payer
        for node in self.net.nodes:
            other.fund(node)
        other.hire()
        self.fellows.append(other)
        return other

    async def asking(self, prompt: Sequence[int], **changed: Any) -> Asked:
        return await Asked.make(self, prompt, **changed)

    async def asking_long(self, prompt: Sequence[int], *, max_tokens: int, **changed: Any) -> Asked:
        """Return a request whose answer no end token cuts short."""
        while True:
            asked = await self.asking(prompt, max_tokens=max_tokens, **changed)
            if len(asked.expected(max_tokens)) == max_tokens:
                return asked

    async def settled(self) -> None:
        """Wait until nothing is under way to any stage any more."""
        await until(lambda: not self.role.busy)
        for node in self.net.nodes:
            if self.pool.alive(node.identity.owner):
                assert await self.desk.acknowledged(node.identity.owner)


@asynccontextmanager
async def world(
    folder: Path, *, patience: Patience = PATIENT, proposers: Proposers = lambda _, __: None, **stage_config: Any
) -> AsyncIterator[World]:
    async with network(folder, **{"credit_windows": 4, **stage_config}) as net:
        made = build(net, patience, proposers)
        for node in net.nodes:
            await made.announce(node)
        net.channels.slots[made.payer.address, made.gateway.owner, made.payer.address] = Slot()
        made.serving = asyncio.create_task(made.role.run())
        try:
            yield made
        finally:
            made.serving.cancel()
            await asyncio.gather(made.serving, return_exceptions=True)
            await made.pool.close()
            await made.meeting.stop()
            await made.broker.close()


def build(net: Network, patience: Patience, proposers: Proposers, *, name: str = "worker") -> World:
    """Put a worker together as a node does."""
    who, dht, source = identity(net.directory), MemoryDht(), Source(net)
    journal = Journal(net.folder / f"{name}.db")
    book = PayerBook(journal, DOMAIN, who.key, payer=who.owner)
    meeting = Meeting(Dialer(identity=who, directory=net.directory, patience=CALM))
    pool = pool_of(meeting)
    desk = HopDesk(channel=book.channel, pool=pool, domain=DOMAIN, directory=net.directory, ack_s=ACK_S)
    pool.report_to(desk)
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
        proposers=proposers,
    )
    made = World(
        net=net,
        broker=MemoryBroker(time.time),
        dht=dht,
        source=source,
        who=who,
        gateway=identity(net.directory),
        payer=Key.generate(),
        book=book,
        tools=tools,
        meeting=meeting,
        prekeys=PrekeyRing(
            net.folder / f"{name}-prekeys.json", key=who.key, domain=DOMAIN, node=who.owner, clock=time.time
        ),
        swarm=Directory(dht=dht, nodes=source, keys=net.directory, domain=DOMAIN, clock=time.time),
        lookup=Lookup(dht=dht, nodes=source, keys=net.directory, domain=DOMAIN, clock=time.time),
    )
    made.hire()
    return made


def pool_of(meeting: Meeting) -> LinkPool:
    """Return a pool that also serves what its meeting points and callers open."""
    pool = LinkPool(meeting)
    meeting.attach(pool.serve, at=None)
    return pool


def calm_down(node: Node) -> None:
    """Let a stage be patient: these tests share one busy loop, and a late heartbeat is none of their business."""
    node.server._patience = CALM
    node.meeting._dialer = replace(node.meeting._dialer, patience=CALM)


async def until(condition: Callable[[], bool], *, deadline_s: float = 60.0) -> None:
    """Look again and again until something is so."""
    async with asyncio.timeout(deadline_s):
        while not condition():  # noqa: ASYNC110 - what is looked at has no event, and needs none
            await asyncio.sleep(0.005)


def leaf_of(world_: World, asked: Asked, node: Node) -> ReceiptLeaf | None:
    """Return the leaf with which a request ended on the hop to a stage."""
    jobs = [job for job in world_.book.jobs() if job.request == asked.digest and job.payee == node.identity.owner]
    return jobs[0].leaf if jobs else None
