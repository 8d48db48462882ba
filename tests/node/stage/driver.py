"""A driver in the worker's place: it does by hand what the worker role does, and checks what comes back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from tests.node.stage.coded import routed_ids
from tests.node.stage.network import Network, Slot
from tests.node.stage.tiny import MANIFEST
from tests.node.wire.peers import DOMAIN, STEADY, identity

from plait.ledger import Journal, PayerBook
from plait.protocol.checks import check_leaf_chain
from plait.protocol.codec import payment_to_pb, signed_from_pb, signed_to_pb
from plait.protocol.ids import HASH_ZERO, Address, Group, Hash
from plait.protocol.messages import Job, Leaf, Pay, Quote, Request, Sampling, Terms, Worker
from plait.protocol.money import input_price_rounded_up, stage_fee_of
from plait.protocol.pb import stage_pb2 as pb
from plait.protocol.pb.signed_pb2 import SignedPay
from plait.protocol.typed import Key, Signed, digest, random_hash, struct_hash
from plait.protocol.windows import Cut, first_lineage, id_bytes, lineage, row_hash, salted_root, window_root
from plait_node.wire import Dialer, Link, PeerIdentity, encode_rows
from plait_node.wire.tensor import IDS

INPUT_PRICE, OUTPUT_PRICE = 2_000_000, 8_000_000


class FaultError(Exception):
    """A stage said that a job failed."""

    def __init__(self, fault: pb.JobFault, said_by: Address) -> None:
        super().__init__(f"{fault.fault.code}: {fault.fault.text}")
        self.fault = fault
        self.code = fault.fault.code
        self.blamed = fault.blamed
        self.said_by = said_by


@dataclass(slots=True, kw_only=True)
class Driver:
    """A worker that does by hand what the worker role does, and checks what comes back."""

    net: Network
    identity: PeerIdentity
    payer: Key
    gateway: PeerIdentity
    links: list[Link] = field(default_factory=list)
    inbox: asyncio.Queue[tuple[Link, pb.Frame | None]] = field(default_factory=asyncio.Queue)
    readers: list[asyncio.Task[None]] = field(default_factory=list)
    book: PayerBook | None = None

    async def connect(self) -> None:
        dialer = Dialer(identity=self.identity, directory=self.net.directory, patience=STEADY)
        for node in self.net.nodes:
            link = await dialer.dial(node.destination)
            self.links.append(link)
            self.readers.append(asyncio.create_task(self._read(link)))

    async def _read(self, link: Link) -> None:
        async for frame in link.frames():
            self.inbox.put_nowait((link, frame))
        self.inbox.put_nowait((link, None))

    async def close(self) -> None:
        await asyncio.gather(*(link.close() for link in self.links))
        await asyncio.gather(*self.readers)

    def hop_book(self) -> PayerBook:
        if self.book is None:
            self.book = PayerBook(Journal(self.net.folder / "worker.db"), DOMAIN, self.identity.key)
            for node in self.net.nodes:
                key = self.identity.key.address
                self.net.channels.slots[key, node.identity.owner, key] = Slot()
        return self.book

    def task(self, prompt: Sequence[int], *, max_tokens: int = 8, **changed: Any) -> Task:
        return Task.make(self, prompt, max_tokens=max_tokens, **changed)


@asynccontextmanager
async def driver(net: Network) -> AsyncIterator[Driver]:
    made = Driver(net=net, identity=identity(net.directory), payer=Key.generate(), gateway=identity(net.directory))
    net.channels.slots[made.payer.address, made.gateway.owner, made.payer.address] = Slot()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(made.close)
        await made.connect()
        yield made


@dataclass(slots=True, kw_only=True)
class Task:
    """One job: its papers, what the stages sent, and the checks on it."""

    driver: Driver
    prompt: list[int]
    quote: Signed[Quote]
    request: Signed[Request]
    job: Signed[Job]
    pay: Signed[Pay]
    salt_rows: bytes
    ids: list[int] = field(default_factory=list)
    leaves: dict[int, list[Signed[Leaf]]] = field(default_factory=dict)
    opened: dict[int, list[bytes]] = field(default_factory=dict)
    kept: dict[int, int] = field(default_factory=dict)
    acks: list[pb.HopAck] = field(default_factory=list)

    @classmethod
    def make(
        cls,
        driver: Driver,
        prompt: Sequence[int],
        *,
        max_tokens: int,
        temperature: int = 0,
        attempt: int = 0,
        job: dict[str, Any] | None = None,
        request: dict[str, Any] | None = None,
        again: Task | None = None,
    ) -> Task:
        quote = driver.gateway.key.signed(DOMAIN, _quote(driver))
        asked = replace(_request(driver, quote, len(prompt), max_tokens, temperature), **(request or {}))
        signed = driver.payer.signed(DOMAIN, asked)
        if again is not None:
            quote, signed = again.quote, again.request
        record = _job(driver, signed.message, attempt)
        paid = input_price_rounded_up(len(prompt), INPUT_PRICE)
        pay = Pay(request=record.request, voucher=HASH_ZERO, amount=paid, to=0)
        return cls(
            driver=driver,
            prompt=list(prompt),
            quote=quote,
            request=signed,
            job=driver.identity.key.signed(DOMAIN, replace(record, **(job or {}))),
            pay=driver.payer.signed(DOMAIN, pay),
            salt_rows=random_hash(),
        )

    @property
    def hash(self) -> Hash:
        return struct_hash(self.job.message)

    @property
    def stages(self) -> int:
        return len(self.job.message.route)

    @property
    def cut(self) -> Cut:
        return Cut(prompt_end=len(self.prompt) + self.job.message.start)

    def open_frame(self, index: int, /, *, lineage_keys: Sequence[bytes] = (), **changed: object) -> pb.Open:
        nodes = self.driver.net.nodes
        made = pb.Open(
            quote=signed_to_pb(self.quote),
            request=signed_to_pb(self.request),
            job=signed_to_pb(self.job),
            salt_rows=self.salt_rows,
            stage=index,
            lineage=lineage_keys,
            pay=signed_to_pb(self.pay),
        )
        if index + 1 < self.stages:
            made.next.CopyFrom(nodes[index + 1].record())
        for name, value in changed.items():
            made.ClearField(name)
            if value is not None and isinstance(value, int | bytes):
                setattr(made, name, value)
            elif value is not None:
                getattr(made, name).CopyFrom(value)
        return made

    async def send(self, stage: int, frame: pb.Frame) -> None:
        await self.driver.links[stage].send(frame)

    async def to_all(self, frame: pb.Frame) -> None:
        for stage in range(self.stages):
            await self.send(stage, frame)

    async def open(self) -> None:
        for stage in range(self.stages):
            await self.send(stage, pb.Frame(open=self.open_frame(stage)))
        while len(self.opened) < self.stages:
            await self.hear()

    async def open_reusing(self) -> int:
        """Open stage after stage with the keys that the one before holds; return the row to start at."""
        keys: list[bytes] = list(self.prompt_keys())
        for stage in range(self.stages):
            await self.send(stage, pb.Frame(open=self.open_frame(stage, lineage_keys=keys)))
            while stage not in self.opened:
                await self.hear()
            keys = self.opened[stage]
        return 16 * len(keys)

    def prompt_keys(self) -> list[Hash]:
        key = first_lineage(MANIFEST.model_id, first_block=0, profile=self.driver.net.profile.profile_id)
        keys: list[Hash] = []
        for start in range(0, len(self.prompt) // 16 * 16, 16):
            rows = (row_hash(step, id_bytes(self.prompt[step])) for step in range(start, start + 16))
            key = lineage(key, window_root(rows))
            keys.append(key)
        return keys

    async def start(self, row: int = 0) -> None:
        await self.to_all(pb.Frame(start=pb.Start(job=self.hash, row=row, next_row=row)))

    async def feed(self, step: int, ids: Sequence[int]) -> None:
        await self.send(0, pb.Frame(rows=self.rows_frame(step, ids)))

    async def guess(self, ids: Sequence[int]) -> None:
        """Send the newest id's row with guessed ones after it, and the draft."""
        step = len(self.prompt) + len(self.ids) - 1
        await self.send(self.stages - 1, pb.Frame(draft=pb.Draft(job=self.hash, step=step + 1, ids=ids)))
        await self.send(0, pb.Frame(rows=self.guessed_frame(step, [self.ids[-1], *ids])))

    def guessed_frame(self, step: int, ids: Sequence[int]) -> pb.Rows:
        rows = self.rows_frame(step, ids)
        rows.speculative = len(ids) - 1
        return rows

    def rows_frame(self, step: int, ids: Sequence[int]) -> pb.Rows:
        data = encode_rows(np.array(ids, dtype=np.int64), codec=IDS)
        return pb.Rows(job=self.hash, step=step, count=len(ids), codec=IDS, data=data)

    async def hear(self, deadline_s: float = 60.0) -> pb.Frame:
        """Take one frame from any stage; raise `FaultError` for a fault."""
        link, frame = await asyncio.wait_for(self.driver.inbox.get(), deadline_s)
        stage = self.driver.links.index(link)
        if frame is None:
            raise ConnectionError(f"stage {stage}: {link.reason}")
        match frame.WhichOneof("body"):
            case "opened" if frame.opened.job == self.hash:  # one of a job before this one may still be on its way
                self.opened[stage] = list(frame.opened.lineage)
                self.kept[stage] = frame.opened.kept
            case "tokens":
                assert frame.tokens.step == len(self.prompt) + len(self.ids) - 1
                self.ids.extend(frame.tokens.ids)
            case "leaf":
                self.leaves.setdefault(stage, []).append(signed_from_pb(frame.leaf.leaf, Leaf))
            case "ack":
                self.acks.append(frame.ack)
            case "fault":
                raise FaultError(frame.fault, link.peer)
        return frame

    async def generate(self, count: int, *, row: int = 0, chunk: int | None = None) -> list[int]:
        """Feed the prompt from `row` if no token came yet, then each token, until `count` tokens are there."""
        size = chunk or len(self.prompt)
        for at in range(row, 0 if self.ids else len(self.prompt), size):
            await self.feed(at, self.prompt[at : at + size])
        if 0 < len(self.ids) < count:
            await self.feed(len(self.prompt) + len(self.ids) - 1, self.ids[-1:])
        while len(self.ids) < count:
            known = len(self.ids)
            await self.hear()
            if known < len(self.ids) < count:
                await self.feed(len(self.prompt) + len(self.ids) - 1, self.ids[-1:])
        return self.ids

    async def end(self) -> int:
        """End the job after its last token's row and collect every leaf; return the end step."""
        step = len(self.prompt) + len(self.ids) - 1
        await self.to_all(pb.Frame(end=pb.End(job=self.hash, step=step)))
        windows = len(self.cut.windows(step))
        while any(len(self.leaves.get(stage, [])) < windows for stage in range(self.stages)):
            await self.hear()
        return step

    def hop_pay(self, stage: int, amount: int, *, payer: Signed[Pay] | None = None) -> pb.HopPayment:
        owner = self.job.message.route[stage].node
        payment = self.driver.hop_book().channel(owner).pay(self.job.message.request, amount, len(self.ids))
        return pb.HopPayment(payment=payment_to_pb(payment), payer=signed_to_pb(payer or self.pay))

    def hop_pay_of_payer(self) -> SignedPay:
        return signed_to_pb(self.pay)

    async def pay_stages(self, steps: int) -> None:
        acked = len(self.acks) + self.stages
        for stage in range(self.stages):
            fee = stage_fee_of(self.job.message.route[stage], steps)
            await self.send(stage, pb.Frame(payment=self.hop_pay(stage, fee)))
        while len(self.acks) < acked:
            await self.hear()

    def check_leaves(self, end: int) -> None:
        """Check every leaf as L0 does: place, chain, agreement, signer, and the first stage's input."""
        for window in self.cut.windows(end):
            upstream: Signed[Leaf] | None = None
            for stage in range(self.stages):
                leaf = self.leaves[stage][window.index]
                previous = self.leaves[stage][window.index - 1] if window.index else None
                check_leaf_chain(
                    DOMAIN,
                    leaf.message,
                    job=self.hash,
                    stage=stage,
                    window=window,
                    upstream=upstream,
                    previous=previous,
                )
                assert leaf.signer(DOMAIN) == self.driver.net.nodes[stage].identity.key.address
                upstream = leaf
            fed = [*self.prompt, *self.ids]
            rows = (row_hash(step, id_bytes(fed[step])) for step in range(window.start, window.end))
            root = salted_root(self.salt_rows, boundary=0, window=window.index, root=window_root(rows))
            assert self.leaves[0][window.index].message.in_root == root

    def expected(self, count: int) -> list[int]:
        """Return what the stages' model answers, by the book."""
        request = self.request.message
        name, net = digest(DOMAIN, request), self.driver.net
        cuts = [0, *(stage.last for stage in self.job.message.route)]
        return routed_ids(request, name, self.prompt, count, profile=net.profile, cuts=cuts)


def _quote(driver: Driver) -> Quote:
    return Quote(
        gateway=driver.gateway.owner,
        model=MANIFEST.model_id,
        group=Group(bytes(8)),
        terms=(Terms(profile=driver.net.profile.profile_id, input_price=INPUT_PRICE, output_price=OUTPUT_PRICE),),
        workers=(Worker(node=driver.identity.owner, prekey=HASH_ZERO, share=1_000_000),),
        max_input=400,
        max_output=100,
        expires=int(time.time()) + 60,
    )


def _request(driver: Driver, quote: Signed[Quote], tokens: int, max_tokens: int, temperature: int) -> Request:
    return Request(
        payer=driver.payer.address,
        gateway=driver.gateway.owner,
        quote=quote.struct_hash(),
        model=MANIFEST.model_id,
        profiles=(driver.net.profile.profile_id,),
        prompt=HASH_ZERO,
        sampling=Sampling(temperature=temperature, top_p=1_000_000, top_k=0, stop=HASH_ZERO),
        input_tokens=tokens,
        max_tokens=max_tokens,
        max_price=1_000_000,
        seed=random_hash(),
        nonce=random_hash(),
        deadline=int(time.time()) + 600,
    )


def _job(driver: Driver, request: Request, attempt: int) -> Job:
    return Job(
        request=digest(DOMAIN, request),
        attempt=attempt,
        worker=driver.identity.owner,
        route=tuple(node.stage for node in driver.net.nodes),
        profile=driver.net.profile.profile_id,
        choice=HASH_ZERO,
        start=0,
        row=0,
        tokens=HASH_ZERO,
        closes_at=request.deadline + 1_800,
    )


async def first_fault(task: Task) -> FaultError:
    """Return the first fault that any stage tells."""
    try:
        while True:
            await task.hear()
    except FaultError as fault:
        return fault
