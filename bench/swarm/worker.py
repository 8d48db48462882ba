"""A worker that drives measured stages: the node's own role, planner, links, hop payments and signatures.

Requests are those of the on-chain path, paid out of their fee, so that no payer is needed and nothing waits for one.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.swarm.parties import DOMAIN, WORKER, Everyone, identity, key, owner
from bench.swarm.stage import PRICE

from plait.ledger import Journal, PayerBook, SigningGuard
from plait.protocol.choice import ChoiceNote, method_word
from plait.protocol.commitments import prompt_commitment
from plait.protocol.ids import HASH_ZERO, Address, Hash
from plait.protocol.manifest import FP32_STRICT, Manifest, Profile
from plait.protocol.messages import Request, Sampling
from plait.protocol.sealing import ContentKey
from plait.protocol.typed import digest, random_hash
from plait_node.app.worker import lookup
from plait_node.broker import MemoryBroker
from plait_node.selector import CHUNKED_PREFILL, PREFIX_CACHE, PROMPT_LOOKUP, Asked, Choice, Ran, Trial
from plait_node.swarm import Announcer, Blames, DhtKey, Directory, MemoryDht, NodeFacts
from plait_node.wire import Dialer
from plait_node.worker import (
    Admission,
    Done,
    HopDesk,
    LinkPool,
    Planner,
    PrekeyRing,
    Tools,
    WorkerConfig,
    WorkerRole,
    WorkerSigner,
)

__all__ = ["DrivingWorker", "Place", "Took", "driving"]

_FEE: Final = 10**9
_LIFE_S: Final = 1_200


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a stage is reached, and what it serves."""

    number: int
    first: int
    last: int
    host: str
    port: int
    certificate: Hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Took:
    """How one answer went by its worker's clock, in seconds."""

    ids: tuple[int, ...]
    first_s: float
    seconds: float
    accepted: float = -1.0  # the share of guessed ids that were right; -1 where none were guessed

    @property
    def step_s(self) -> float:
        """Return the mean time of a token after the first."""
        return (self.seconds - self.first_s) / max(1, len(self.ids) - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Registered:
    owner: Address
    dht_key: bytes


@dataclass(slots=True)
class _Stages:
    """The stages as a registry lists them, and their keys in the table."""

    places: Sequence[Place]

    async def stages(self) -> list[_Registered]:
        return [_Registered(owner=owner(place.number), dht_key=_dht_key(place).public) for place in self.places]

    async def node(self, owner: Address, /) -> _Registered | None:
        return next((each for each in await self.stages() if each.owner == owner), None)

    async def peers(self) -> list[tuple[str, int]]:
        return []


def _dht_key(place: Place) -> DhtKey:
    return DhtKey(hashlib.sha256(bytes([place.number])).digest())


@dataclass(slots=True)
class _Chooser:
    """Takes the first route and the methods that the bench says, and keeps how jobs went.

    To `reuse` what stages have cached it takes the route that has most of the prompt.
    """

    chunk: int = 0
    depth: int = 0
    reuse: bool = False
    ran: dict[bytes, Ran] = field(default_factory=dict[bytes, Ran])

    def choose(self, asked: Asked, /) -> Choice:
        warm = [way.warm_tokens for way in asked.ways]
        wanted = {CHUNKED_PREFILL: ("chunk", self.chunk), PROMPT_LOOKUP: ("depth", self.depth)}
        chosen = {method: amount for method, amount in wanted.items() if amount[1]}
        method = method_word([PREFIX_CACHE, *chosen] if self.reuse else chosen)
        note = ChoiceNote(method=method, amounts=dict(chosen.values()), predicted={}, reason="the bench's")
        return Choice(way=warm.index(max(warm)) if self.reuse else 0, note=note)

    def learn(self, digest: bytes, trial: Trial | None, ran: Ran, /) -> None:
        del trial
        self.ran[digest] = ran


class _NoText:
    """Requests of the bench have no stop strings: nothing is decoded."""

    def decode(self, ids: Sequence[int], /) -> str:
        del ids
        return ""


class DrivingWorker:
    """Has the stages answer prompts; made by `driving`."""

    def __init__(
        self, manifest: Manifest, places: Sequence[Place], profile: Profile, *, journal: Journal, prekeys: Path
    ) -> None:
        self._profile = profile.profile_id
        who, self._manifest, self._places = identity(WORKER), manifest, tuple(places)
        self._dht, self._nodes = MemoryDht(), _Stages(places)
        self._chooser = _Chooser()
        self.step_micros = 1_000  # what every stage announces
        self.pool = LinkPool(Dialer(identity=who, directory=Everyone()))
        desk = HopDesk(
            channel=PayerBook(journal, DOMAIN, who.key, payer=who.owner).channel,
            pool=self.pool,
            domain=DOMAIN,
            directory=Everyone(),
        )
        self.pool.report_to(desk)
        self.broker = MemoryBroker(time.time)
        self.directory = Directory(dht=self._dht, nodes=self._nodes, keys=Everyone(), domain=DOMAIN, clock=time.time)
        ring = PrekeyRing(prekeys, key=who.key, domain=DOMAIN, node=who.owner, clock=time.time)
        tools = Tools(
            owner=who.owner,
            domain=DOMAIN,
            directory=Everyone(),
            pool=self.pool,
            desk=desk,
            signer=WorkerSigner(guard=SigningGuard(journal, DOMAIN), key=who.key, domain=DOMAIN),
            manifest=manifest,
            tokenizer=_NoText(),
            clock=time.time,
            proposers=lookup,
        )
        self._planner = _planner(manifest, self.directory, self._chooser, self.pool)
        self.role = WorkerRole(
            WorkerConfig(group=bytes(8), parallel_jobs=64),
            tools=tools,
            planner=self._planner,
            admission=Admission(owner=who.owner, domain=DOMAIN, directory=Everyone(), prekeys=ring, manifest=manifest),
            announcer=self._announcer(WORKER, DhtKey(bytes(32))),
            broker=self.broker,
        )

    async def answer(
        self, prompt: Sequence[int], count: int, *, chunk: int = 0, depth: int = 0, temperature: int = 0
    ) -> Took:
        """Return `count` ids after a prompt that is sent in frames of `chunk` rows (0: one frame).

        With a `depth` so many ids at most are guessed by look-up at a time. The `temperature` is in millionths.
        """
        await self._announce()
        self._chooser.chunk, self._chooser.depth, self._chooser.reuse = chunk, depth, False
        request = self._request(prompt, count, temperature=temperature)
        done = await self.role.run_onchain(request, prompt, ContentKey.public(), begin_before=request.deadline)
        ran = self._chooser.ran.pop(digest(DOMAIN, request))
        return Took(ids=done.ids, first_s=ran.ttft_s, seconds=ran.seconds, accepted=ran.accepted)

    async def disturbed(self, prompt: Sequence[int], count: int, *, reuse: bool = False) -> Done:
        """Answer a prompt with `count` greedy ids, whatever happens to stages meanwhile; `reuse` what they cached."""
        await self._announce()
        self._chooser.chunk = self._chooser.depth = 0
        self._chooser.reuse = reuse
        request = self._request(prompt, count)
        done = await self.role.run_onchain(request, prompt, ContentKey.public(), begin_before=request.deadline)
        self._chooser.ran.pop(digest(DOMAIN, request), None)
        return done

    def forgive(self) -> None:
        """Blame nobody any more."""
        self._planner.blames = Blames()

    def move(self, place: Place) -> None:
        """Learn where a stage is after it was started again."""
        self._places = (*(each for each in self._places if each.number != place.number), place)
        self._nodes.places = self._places

    async def settled(self, *, deadline_s: float = 10.0) -> None:
        """Wait until the last job's payments are sent; raise `TimeoutError`."""
        async with asyncio.timeout(deadline_s):
            while self.role.busy:  # noqa: ASYNC110 - the role has no event for it
                await asyncio.sleep(0.005)

    def _request(self, prompt: Sequence[int], count: int, *, temperature: int = 0) -> Request:
        name = random_hash()
        return Request(
            payer=owner(WORKER),
            gateway=owner(WORKER),
            quote=HASH_ZERO,
            model=self._manifest.model_id,
            profiles=(self._profile,),
            prompt=prompt_commitment(ContentKey.public(), prompt),
            sampling=Sampling(temperature=temperature, top_p=1_000_000, top_k=0, stop=HASH_ZERO),
            input_tokens=len(prompt),
            max_tokens=count,
            max_price=_FEE,
            seed=name,
            nonce=name,
            deadline=int(time.time()) + _LIFE_S,
        )

    async def _announce(self) -> None:
        """Renew the stages' records, which live a minute."""
        for place in self._places:
            facts = NodeFacts(
                model=self._manifest.model_id,
                first=place.first,
                last=place.last,
                profile=self._profile,
                step_micros=self.step_micros,
                free_steps=1 << 20,
                queue=0,
                price=PRICE,
                host=place.host,
                port=place.port,
                certificate=place.certificate,
            )
            await self._announcer(place.number, _dht_key(place)).announce(facts)
        await self.directory.refresh(self._manifest.model_id)

    def _announcer(self, number: int, dht_key: DhtKey) -> Announcer:
        return Announcer(
            dht=self._dht, dht_key=dht_key, key=key(number), domain=DOMAIN, node=owner(number), clock=time.time
        )


def _planner(manifest: Manifest, directory: Directory, chooser: _Chooser, pool: LinkPool) -> Planner:
    return Planner(
        directory=directory,
        manifest=manifest,
        chooser=chooser,
        max_price=lambda _: _FEE,
        clock=time.time,
        rtt_s=pool.rtt_s,
    )


@asynccontextmanager
async def driving(
    manifest: Manifest, places: Sequence[Place], *, folder: Path, profile: Profile = FP32_STRICT
) -> AsyncGenerator[DrivingWorker]:
    """Drive stages for as long as the block lasts."""
    with Journal(folder / "worker.db") as journal:
        worker = DrivingWorker(manifest, places, profile, journal=journal, prekeys=folder / "prekeys.json")
        try:
            yield worker
            await worker.settled()
        finally:
            await worker.pool.close()
            await worker.broker.close()
