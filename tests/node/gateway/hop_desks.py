"""Gateways that only pay: the parts that money goes through, over real journals, with faults where they hurt."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.sdk.swarm import DOMAIN, NOW, KnownKey, Swarm

from plait.ledger import Journal, PayeeBook, PayerBook, SharedBook
from plait.protocol import codec
from plait.protocol.codec import Payment
from plait.protocol.errors import PlaitError
from plait.protocol.ids import HASH_ZERO, Address, Hash, keccak
from plait.protocol.messages import Worker
from plait.protocol.pb import gateway_pb2
from plait.protocol.receipts import ReceiptLeaf
from plait.protocol.typed import Key
from plait_node.broker import BrokerDownError, BrokerError, MemoryBroker
from plait_node.broker.leases import LogRecord
from plait_node.gateway.custody import Custody
from plait_node.gateway.faces import Outside
from plait_node.gateway.hops import HopPayer, Strangers
from plait_node.gateway.metrics import GatewayMetrics
from plait_node.gateway.parts import Part
from plait_node.gateway.replay import Replay
from plait_node.gateway.store import JobStore, StoredJob

PLENTY = 1 << 60


class Faults:
    """What fails next: an append to a log (before or behind it), a payment's way to the broker."""

    def __init__(self) -> None:
        self.next: list[str] = []

    def due(self, *names: str) -> str:
        return self.next.pop(0) if self.next and self.next[0] in names else ""


class FaultyBroker(MemoryBroker):
    """A broker whose calls fail as `faults` says, having done what was asked or not."""

    def __init__(self, clock: Callable[[], float], faults: Faults) -> None:
        super().__init__(clock)
        self.faults = faults
        self.paid: dict[bytes, dict[str, Payment]] = {}  # by worker and name of the message
        inner = self.shared.append

        async def append(gateway: bytes, channel: bytes, record: LogRecord, *, after: int) -> int | None:
            fault = self.faults.due("before", "behind") if record.kind == "hop" else ""
            if fault == "before":
                raise BrokerDownError("the test says so")
            sequence = await inner(gateway, channel, record, after=after)
            if fault:
                raise BrokerDownError("the test says so")
            return sequence

        self.shared.append = append  # type: ignore[method-assign]

    async def publish_pay(
        self, worker: bytes, request: bytes, notice: gateway_pb2.PayNotice, *, key: str, last: bool = False
    ) -> None:
        if self.faults.due("unsent"):
            raise BrokerDownError("the test says so")
        await super().publish_pay(worker, request, notice, key=key, last=last)
        self.paid.setdefault(worker, {}).setdefault(key, codec.payment_from_pb(notice.hop))


class Deposits:
    """Channels that hold what the test says, from the moment on that it says so."""

    def __init__(self) -> None:
        self.deposit = PLENTY
        self.asked: list[Address] = []

    def covers(self, payee: Address, cumulative: int, /) -> bool:
        self.asked.append(payee)
        return cumulative <= self.deposit


@dataclass(slots=True, kw_only=True)
class Desk:
    """One gateway of the operator, as it is between two crashes."""

    folder: Path
    outside: Outside
    deposits: Deposits
    journal: Journal = field(init=False)
    book: SharedBook = field(init=False)
    payer: PayerBook = field(init=False)
    store: JobStore = field(init=False)
    custody: Custody = field(init=False)
    hops: HopPayer = field(init=False)

    def open(self, *jobs: StoredJob) -> Desk:
        """Start from what is on disk."""
        self.journal = Journal(self.folder / "journal.sqlite")
        self.book = SharedBook(self.journal, DOMAIN, self.outside.me)
        self.payer = PayerBook(self.journal, DOMAIN, self.outside.key, clock=self.outside.clock)
        self.outside = replace(self.outside, book=self.book)
        self.store = JobStore(self.folder / "gateway.sqlite")
        self.custody = Custody(self.outside, self.store, Replay(self.outside, self.store), GatewayMetrics())
        strangers = Strangers(book=self.payer, deposits=self.deposits)
        self.hops = HopPayer(self.outside, strangers, self.store, self.custody)
        self.custody.on_taken = self.hops.taken_over
        for job in jobs:
            self.store.add(job)
        return self

    def crash(self) -> None:
        self.store.close()
        self.journal.close()

    def begin(self) -> None:
        """Do what `run` does first after a start."""
        runner = self.hops.run()
        runner.send(None)  # up to where it first waits
        runner.close()

    async def work(self) -> bool:
        """Pay what is due, once; tell whether nothing failed."""
        fine = await self.hops._flush()
        due, self.hops._due = self.hops._due, {}
        for request in due:
            fine &= await self.hops._try(request)
        return fine


class Operator:
    """An owner with two gateways, a payer, and three workers: its own and two strangers'."""

    def __init__(self, folder: Path, share: int) -> None:
        self.now = float(NOW)
        self.faults = Faults()
        self.swarm = Swarm()
        self.me = self.swarm.gateway.owner
        self.broker = FaultyBroker(lambda: self.now, self.faults)
        self.deposits = Deposits()
        self.workers = [self.me, *(self.swarm.node().owner for _ in range(2))]
        self.folder, self.share = folder, share
        self.spender = PayerBook(Journal(folder / "payer.sqlite"), DOMAIN, Key.generate(), clock=lambda: self.now)
        self.channel = self.spender.channel(self.me)
        self.jobs = [self._job(number) for number in range(2)]
        self.desks = [self._desk(name) for name in ("a", "b")]
        self.active = 0

    def _desk(self, name: str) -> Desk:
        (self.folder / name).mkdir()
        key = Key.generate()
        self.swarm.directory.keys[key.address] = KnownKey(owner=self.me)
        unused: Any = SimpleNamespace()
        outside = Outside(
            me=self.me,
            key=key,
            domain=DOMAIN,
            book=unused,
            broker=self.broker,
            directory=self.swarm.directory,
            chain=unused,
            on_chain=unused,
            lookup=unused,
            notify=lambda: None,
            clock=lambda: self.now,
            patience_s=0.1,
        )
        return Desk(folder=self.folder / name, outside=outside, deposits=self.deposits).open(*self.jobs)

    def _job(self, number: int) -> StoredJob:
        prekey = self.swarm.prekey()
        quoted = tuple(
            Worker(node=each, prekey=prekey.struct_hash(), share=self.share) for each in sorted(self.workers)
        )
        quote = self.swarm.quote(prekey, workers=quoted)
        return StoredJob(
            name=keccak(b"request", bytes([number])),
            channel=self.channel.id,
            payer=self.spender.payer,
            signer=self.spender.signer,
            content=HASH_ZERO,
            call=gateway_pb2.JobCall(quote=codec.signed_to_pb(quote)),
            deadline=int(self.now) + 600,
        )

    @property
    def desk(self) -> Desk:
        return self.desks[self.active]

    async def awake(self) -> None:
        """Renew the lease of the one that serves, however slow this machine is: only the test ends leases."""
        self.desk.custody._renewed = None
        await self.desk.custody.renew()

    async def pay(self, payment: Payment) -> None:
        """Bring a payment of the payer to the gateway that serves, until it is accepted."""
        slot = SimpleNamespace(deposit=PLENTY, claimed=0, exit_at=0)
        async with asyncio.timeout(60):
            while True:
                try:
                    await self.awake()
                    await self.desk.custody.accept(payment, slot, self.channel.id)
                except (PlaitError, BrokerError):
                    await asyncio.sleep(0)
                else:
                    return

    async def switch(self, *, dies: bool = False) -> None:
        """Let the one that serves fall asleep, and the other one take over; then the sleeper wakes, unless it died."""
        asleep = self.desk
        self.now += 10
        self.active = 1 - self.active
        for held in self.desk.custody._held.values():
            held.ours = False  # as a lease that lapsed does
        await self.awake()
        await self.desk.custody.hold(self.channel.id)
        if dies:
            asleep.crash()
            asleep.open(*self.jobs)
            return
        for job in self.jobs:
            asleep.hops.wake(job.name)
        await asleep.work()

    def restart(self) -> None:
        self.desk.crash()
        self.desk.open(*self.jobs).begin()

    async def told(self, number: int, parts: list[Part]) -> None:
        """Let the gateway that serves see how far an answer is, and pay."""
        self.desk.store.hops.set_parts(self.jobs[number].name, parts)
        self.desk.hops.wake(self.jobs[number].name)
        await self.desk.work()

    async def settled(self) -> None:
        """Let everything that is due go through."""
        self.faults.next.clear()
        async with asyncio.timeout(60):
            await self.awake()
            for job in self.jobs:
                self.desk.hops.wake(job.name)
            while not await self.desk.work() or self.desk.hops._due:  # noqa: ASYNC110  nobody tells us
                await asyncio.sleep(0)

    async def late(self, *jobs: StoredJob) -> None:
        """Let the time pass in which a payer may pay, and both gateways start again; `jobs` they know still."""
        self.now += 3_000
        for desk in (self.desk, self.desks[1 - self.active]):
            desk.crash()
            desk.open(*jobs)
            await self.awake()
            desk.begin()
            desk.hops._looked = float("-inf")
            desk.hops._look()
            async with asyncio.timeout(60):
                while not await desk.work() or desk.hops._due:  # noqa: ASYNC110  nobody tells us
                    await asyncio.sleep(0)

    def running(self) -> list[Hash]:
        """Return the requests that are open on any channel to a worker's owner."""
        channels = [desk.payer.channel(payee) for desk in self.desks for payee in desk.payer.payees()]
        return [request for channel in channels for request in channel.running()]

    def income(self, worker: Address) -> dict[Hash, int]:
        """Take a worker's payments as its till does, none of them out of order; return what each request brought."""
        with Journal(self.folder / f"{worker.hex()}-{self.now}.sqlite") as journal:
            book = PayeeBook(journal, DOMAIN, worker)
            for payment in self.broker.paid.get(worker, {}).values():
                book.accept(payment, deposit=PLENTY, claimed=0, exit_at=0, now=self.now)
            brought: dict[Hash, int] = {}
            for state in book.channels():
                account = book._by_id(state.channel)
                for job in self.jobs:
                    ended = account.store.ended(job.name)
                    paid = ended.leaf.hop_amount if ended else account.store.paid(job.name).amount
                    brought[job.name] = brought.get(job.name, 0) + paid
            net = [state.voucher.message.cumulative - state.credit for state in book.channels()]
            assert sum(brought.values()) == sum(net)
            return brought

    def close(self) -> None:
        for desk in self.desks:
            desk.crash()


def end_of(name: Hash, kind: int, amount: int) -> ReceiptLeaf:
    """Return the leaf with which the payer ends a request."""
    return ReceiptLeaf(kind=kind, hash=name if kind else keccak(b"receipt", name), hop_amount=amount, windows_paid=1)
