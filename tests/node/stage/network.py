"""Three stages, each with its own server, engine and books, over real links."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.node.stage.tiny import BLOCKS, MANIFEST, TinyEngine
from tests.node.wire.peers import DOMAIN, STEADY, MemoryDirectory, identity

from plait.ledger import DebtBook, Journal, PayeeBook, SigningGuard
from plait.protocol.ids import HASH_ZERO, Address, to_hex
from plait.protocol.manifest import FP32_STRICT, Profile
from plait.protocol.messages import Record, RecordKind, Stage
from plait.protocol.pb import signed_pb2
from plait_node.stage import StageConfig, StageRole
from plait_node.stage.config import OnChain
from plait_node.swarm.records import NodeFacts, node_body, sign_record
from plait_node.wire import Blame, Destination, Dialer, LinkServer, Meeting, Patience, PeerIdentity, RelayDesk

PROFILE = FP32_STRICT.profile_id
PRICE = 1_000_000  # one base unit a step and block
DEPOSIT = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    deposit: int = DEPOSIT
    claimed: int = 0
    exit_at: int = 0


@dataclass
class MemoryChannels:
    """What the chain keeps of channels."""

    slots: dict[tuple[Address, Address, Address], Slot] = field(default_factory=dict)

    async def channel(self, payer: Address, payee: Address, signer: Address, /) -> Slot:
        return self.slots.get((payer, payee, signer), Slot(deposit=0))


@dataclass(slots=True, kw_only=True)
class Node:
    """One stage as it runs."""

    identity: PeerIdentity
    engine: TinyEngine
    role: StageRole
    server: LinkServer
    port: int
    blames: list[Blame]
    sweeping: asyncio.Task[None]
    meeting: Meeting
    profile: Profile = FP32_STRICT
    keeping: asyncio.Task[None] | None = None  # of meeting points: this node cannot be dialed

    @property
    def destination(self) -> Destination:
        pin = self.identity.certificate.fingerprint
        if self.keeping is not None:
            return Destination(owner=self.identity.owner, host="", port=0, certificate=pin, via=self.meeting.kept)
        return Destination(owner=self.identity.owner, host="127.0.0.1", port=self.port, certificate=pin)

    @property
    def stage(self) -> Stage:
        return Stage(node=self.identity.owner, first=self.engine.first, last=self.engine.last, price=PRICE)

    def record(self, **changed: object) -> signed_pb2.StoredRecord:
        facts = NodeFacts(
            model=MANIFEST.model_id,
            first=self.engine.first,
            last=self.engine.last,
            profile=self.profile.profile_id,
            step_micros=1,
            free_steps=1,
            queue=0,
            price=PRICE,
            host=self.destination.host,
            port=self.destination.port,
            certificate=self.identity.certificate.fingerprint,
            via=self.destination.via,
        )
        record = Record(
            kind=RecordKind.NODE,
            topic=MANIFEST.model_id,
            node=self.identity.owner,
            sequence=1,
            expires=int(time.time()) + 60,
            body=HASH_ZERO,
        )
        return sign_record(self.identity.key, DOMAIN, record, node_body(replace(facts, **changed))).to_pb()

    async def kill(self) -> None:
        """Vanish: no goodbye on any link."""
        for link in self.role._neighbours.all():
            await link._transport.abort()
        await self.server._listener.stop(0)

    async def die(self) -> None:
        """Vanish for good: nothing that a stop does is done."""
        self.sweeping.cancel()
        await self.kill()
        await self.meeting.stop()

    async def stop(self) -> None:
        self.sweeping.cancel()
        if self.keeping is not None:
            self.keeping.cancel()
        await self.role.stop()
        await self.meeting.stop()
        await self.server.stop()


@dataclass(slots=True, kw_only=True)
class Network:
    """A directory, channels, and stages in the order of their blocks."""

    folder: Path
    directory: MemoryDirectory
    channels: MemoryChannels
    nodes: list[Node]
    config: dict[str, Any]
    on_chain: OnChain | None
    profile: Profile = FP32_STRICT
    paid: list[Address] = field(default_factory=list)

    async def add(
        self,
        first: int,
        last: int,
        *,
        engine: TinyEngine | None = None,
        who: PeerIdentity | None = None,
        behind: Sequence[Destination] = (),
        patience: Patience = STEADY,
    ) -> Node:
        """Start a stage; one that is `behind` nodes only dials out, and is called over them. `who` may start again."""
        who = who or identity(self.directory)
        engine = engine or TinyEngine(first, last)
        blames: list[Blame] = []
        relay = RelayDesk()
        common: Any = {"patience": patience, "on_blame": blames.append}
        meeting = Meeting(Dialer(identity=who, directory=self.directory, **common), relay=relay)
        role = self._role(who, engine, meeting)
        server = LinkServer(who, self.directory, role.serve, book=meeting.book, relay=relay.serve, **common)
        port = await server.start("127.0.0.1")
        sweeping = asyncio.create_task(role.run())
        node = Node(
            identity=who,
            engine=engine,
            role=role,
            server=server,
            port=port,
            blames=blames,
            sweeping=sweeping,
            meeting=meeting,
            profile=self.profile,
        )
        meeting.attach(role.serve, at=None if behind else node.destination, local=("127.0.0.1", port))
        if behind:
            node.keeping = asyncio.create_task(meeting.keep(partial(_given, behind)))
            await until(lambda: len(meeting.kept) == len(behind))
        self.nodes.append(node)
        return node

    def _role(self, who: PeerIdentity, engine: TinyEngine, meeting: Meeting) -> StageRole:
        journal = Journal(self.folder / f"{to_hex(who.owner)}.db")
        return StageRole(
            StageConfig(owner=who.owner, profile=self.profile.profile_id, price=PRICE, **self.config),
            engine,
            key=who.key,
            sign=partial(SigningGuard(journal, DOMAIN).sign, who.key),
            domain=DOMAIN,
            directory=self.directory,
            channels=self.channels,
            payees=PayeeBook(journal, DOMAIN, who.owner),
            debts=DebtBook(journal, "worker"),
            dialer=meeting,
            on_chain=self.on_chain,
            on_payment=lambda: self.paid.append(who.owner),
        )


@asynccontextmanager
async def network(
    folder: Path,
    *,
    stages: int = BLOCKS,
    on_chain: OnChain | None = None,
    profile: Profile = FP32_STRICT,
    **config: float,
) -> AsyncIterator[Network]:
    made = Network(
        folder=folder,
        directory=MemoryDirectory(),
        channels=MemoryChannels(),
        nodes=[],
        config={"credit_windows": 50, **config},
        on_chain=on_chain,
        profile=profile,
    )
    try:
        bounds = [BLOCKS * at // stages for at in range(stages + 1)]
        for first, last in pairwise(bounds):
            await made.add(first, last)
        yield made
    finally:
        await asyncio.gather(*(node.stop() for node in made.nodes))


async def _given(points: Sequence[Destination]) -> Sequence[Destination]:
    return points


async def until(condition: Callable[[], bool], *, deadline_s: float = 60.0) -> None:
    async with asyncio.timeout(deadline_s):
        while not condition():  # noqa: ASYNC110 - neither engine nor sweeper tells when it is done
            await asyncio.sleep(0.01)
