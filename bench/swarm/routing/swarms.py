"""Random swarms of which the truth is known: where nodes are, how fast they really are, how often they fail."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from plait.protocol.ids import Address, Hash, Signature
from plait.protocol.messages import Record, RecordKind
from plait.protocol.typed import Signed
from plait_node.swarm.completion import Needs
from plait_node.swarm.records import NodeFacts, NodeRecord, StoredRecord

PROFILE: Final = Hash(b"\x01" * 32)
NOTICED_S: Final = 2.0
_MODEL: Final = Hash(b"\x02" * 32)
_NONE: Final = Hash(bytes(32))


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A point on a map whose unit is a millisecond of round trip, and the round trip of its own line."""

    x: float
    y: float
    line_ms: float

    def rtt_s(self, other: Place) -> float:
        """Return the round trip to another place."""
        return (self.line_ms + other.line_ms + math.hypot(self.x - other.x, self.y - other.y)) / 1e3


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A stage as it announces itself, and as it is."""

    record: NodeRecord
    place: Place
    block_s: float  # real time of a decode step over one block, alone
    risk: float  # real chance that a job fails on it

    @property
    def owner(self) -> Address:
        """Return its id."""
        return self.record.owner

    @property
    def blocks(self) -> int:
        """Return how many blocks it serves."""
        return self.record.facts.last - self.record.facts.first

    @property
    def busy_s(self) -> float:
        """Return the real time of one of a job's steps, with those in its queue."""
        return self.block_s * self.blocks * (1 + self.record.facts.queue)


@dataclass(frozen=True, slots=True, kw_only=True)
class Swarm:
    """Nodes, the worker's place, and a job."""

    blocks: int
    nodes: Sequence[Node]
    worker: Place
    needs: Needs
    row: float  # what one more row of a pass costs, in steps

    def chunk_s(self, node: Node) -> float:
        """Return the real time of one chunk of the prompt."""
        return node.busy_s * (1 + self.row * (self.needs.prompt / self.needs.chunks - 1))

    def passes(self) -> int:
        """Return how often a job's rows go round: the prompt once, then each further token."""
        return self.needs.steps + 1

    def alone_s(self, node: Node) -> float:
        """Return what a node adds to a job, hops and further chunks aside: chunk, steps, expected loss by failure."""
        again_s = node.busy_s * (1 + self.row * (self.needs.prompt + self.needs.answer / 2))
        return self.chunk_s(node) + self.needs.steps * node.busy_s + node.risk * (NOTICED_S + again_s)

    def completion_s(self, route: Sequence[Node]) -> float:
        """Return the real expected time of the job over a route."""
        places = [self.worker, *(node.place for node in route), self.worker]
        hops_s = sum(one.rtt_s(other) for one, other in pairwise(places)) / 2
        further_s = (self.needs.chunks - 1) * max(self.chunk_s(node) for node in route)
        return sum(self.alone_s(node) for node in route) + further_s + self.passes() * hops_s

    def step_s(self, route: Sequence[Node]) -> float:
        """Return the real time of one decode step over a route, hops included."""
        places = [self.worker, *(node.place for node in route), self.worker]
        hops_s = sum(one.rtt_s(other) for one, other in pairwise(places)) / 2
        return sum(node.busy_s for node in route) + hops_s


def random_swarm(seed: int, *, liars: float = 0.0, nodes: int | None = None, blocks: int | None = None) -> Swarm:
    """Return a swarm with whole routes; `liars` is the share of nodes that announce 3 to 20 times their speed."""
    draw = random.Random(seed)  # noqa: S311  a seed, not entropy
    count = blocks or draw.choice([12, 16, 24, 32, 48])
    regions = [(draw.uniform(0, 120), draw.uniform(0, 120)) for _ in range(draw.randint(1, 4))]
    ranges = _ranges(draw, count, nodes or draw.randint(12, 60))
    found = [
        _node(draw, owner, first, last, _place(draw, regions), liars=liars)
        for owner, (first, last) in enumerate(ranges, start=1)
    ]
    prompt = round(math.exp(draw.uniform(math.log(16), math.log(4_096))))
    answer = round(math.exp(draw.uniform(math.log(16), math.log(1_024))))
    needs = Needs(
        blocks=count,
        profiles=(PROFILE,),
        room=0,
        max_price=1 << 96,
        prompt=prompt,
        answer=answer,
        chunk=draw.choice([0, 128, 256]),
    )
    return Swarm(blocks=count, nodes=found, worker=_place(draw, regions), needs=needs, row=draw.uniform(0.03, 0.12))


def made_record(owner: int, first: int, last: int, *, step_s: float, queue: int = 0, price: int = 0) -> NodeRecord:
    """Return a checked record as a directory holds it; its signature is nobody's."""
    facts = NodeFacts(
        model=_MODEL,
        first=first,
        last=last,
        profile=PROFILE,
        step_micros=max(1, round(step_s * 1e6)),
        free_steps=8_192,
        queue=queue,
        price=price,
        host="127.0.0.1",
        port=1,
        certificate=_NONE,
    )
    named = Address(owner.to_bytes(20, "big"))
    record = Record(kind=RecordKind.NODE, topic=_MODEL, node=named, sequence=1, expires=1, body=_NONE)
    stored = StoredRecord(record=Signed(message=record, signature=Signature(bytes(64))), body=b"")
    return NodeRecord(owner=named, facts=facts, sequence=1, expires=1, stored=stored)


def _node(draw: random.Random, owner: int, first: int, last: int, place: Place, *, liars: float) -> Node:
    block_s = math.exp(draw.gauss(math.log(0.002), 0.6))
    announced_s = block_s * math.exp(draw.gauss(0, 0.05))
    if draw.random() < liars:
        announced_s /= draw.uniform(3, 20)
    risk = draw.choice([0.0, 0.0, 0.01, 0.02, 0.2])
    queue = draw.choice([0, 0, 0, 1, 2, 4])
    record = made_record(
        owner, first, last, step_s=announced_s * (last - first), queue=queue, price=draw.randint(20, 100)
    )
    return Node(record=record, place=place, block_s=block_s, risk=risk)


def _place(draw: random.Random, regions: Sequence[tuple[float, float]]) -> Place:
    x, y = draw.choice(regions)
    return Place(x=draw.gauss(x, 2), y=draw.gauss(y, 2), line_ms=draw.uniform(0.2, 8))


def _ranges(draw: random.Random, blocks: int, nodes: int) -> list[tuple[int, int]]:
    """Return block ranges: whole routes whose cuts mostly lie on a common grid, then ranges between such cuts."""
    step = max(1, blocks // draw.choice([4, 6, 8]))
    grid = range(step, blocks, step)
    found: list[tuple[int, int]] = []
    while len(found) < nodes:
        cuts = {0, blocks, *(cut for cut in grid if draw.random() < 0.6)}
        cuts |= {draw.randrange(1, blocks)} if draw.random() < 0.3 else set()
        ordered = sorted(cuts)
        found += pairwise(ordered)
    return found
