"""The stage role: what comes over links goes to jobs, what jobs need comes from here."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Coroutine

from plait.ledger import DebtBook
from plait.protocol.checks import NodeDirectory
from plait.protocol.codec import fault_to_pb, signed_from_pb, signed_to_pb
from plait.protocol.errors import Fault, MalformedMessageError, PlaitError, StaleVoucherError
from plait.protocol.ids import Address, to_hex
from plait.protocol.messages import Leaf, Voucher
from plait.protocol.pb import stage_pb2 as pb
from plait.protocol.typed import Domain, Key, Signed
from plait.protocol.windows import WINDOW_STEPS
from plait_node.commit import SignLeaf, StageCommitter
from plait_node.engine import errors as engine_errors
from plait_node.engine.residents import Engine
from plait_node.settlement.till import Channels, Payees
from plait_node.stage.admission import Admission, Admitted, OpenCall
from plait_node.stage.config import OnChain, StageConfig
from plait_node.stage.debts import Debts
from plait_node.stage.errors import (
    JobOpenError,
    NextStageError,
    NoRoomError,
    StageBusyError,
)
from plait_node.stage.job import StageJob
from plait_node.stage.jobs import JobBook
from plait_node.stage.kept import KeptRows
from plait_node.stage.neighbours import Dials, Neighbours, destination_of
from plait_node.stage.payments import HopPay, Till
from plait_node.stage.prefix import CachedWindow, leading_rows, own_key
from plait_node.stage.surroundings import Surroundings
from plait_node.swarm.errors import BadRecordError
from plait_node.wire import Link, MalformedFrameError, WireError

log = logging.getLogger(__name__)

_OPEN_S = 10.0
_TICK_S = 0.5
_MOST_CALLS = 32  # openings and payments of one link in hand at once


class StageRole:
    """Serves one range of blocks of one model."""

    def __init__(
        self,
        config: StageConfig,
        engine: Engine,
        *,
        key: Key,
        sign: SignLeaf,
        domain: Domain,
        directory: NodeDirectory,
        channels: Channels,
        payees: Payees,
        debts: DebtBook,
        dialer: Dials,
        on_chain: OnChain | None = None,
        on_payment: Callable[[], None] = lambda: None,
        ready: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config, self._engine, self._sign = config, engine, sign
        self._on_payment, self._ready, self._clock = on_payment, ready, clock
        self._around = Surroundings.of(config, engine, domain=domain, directory=directory)
        self._scheduler, self.facts = self._around.scheduler, self._around.facts
        self._admission = Admission(around=self._around, channels=channels, on_chain=on_chain, clock=clock)
        self._debts = Debts.of(engine, debts, windows=config.credit_windows, price=config.price, now=clock())
        self._till = Till(
            config=config, key=key, domain=domain, channels=channels, payees=payees, debts=self._debts, clock=clock
        )
        self._neighbours = Neighbours(dialer, self._adopt)
        self._jobs = JobBook(config, self._scheduler, spawn=self._spawn)
        self._tasks: set[asyncio.Task[None]] = set()
        self._in_hand, self._opening = Counter[Link](), Counter[Address]()
        self.closed = False

    async def run(self) -> None:
        """Close what idles or is past its deadline; runs until it is cancelled."""
        while True:
            await asyncio.sleep(_TICK_S)
            now = asyncio.get_running_loop().time()
            self._jobs.sweep(now, clock=self._clock())
            self._note_unpaid(now)
            self._count()

    def close(self) -> None:
        """Open no more jobs, but for later attempts of requests that are here; those that run go on."""
        self.closed = True

    @property
    def busy(self) -> bool:
        """Tell whether a job is open, or the payment of one that just ended may be on its way."""
        late = asyncio.get_running_loop().time() - self._config.unpaid_s
        return any(not job.closed or (job.credit.paid < job.fee and job.touched > late) for job in self._jobs)

    async def stop(self) -> None:
        """Close every job and every link that this role dialed or serves; what is not paid by now is a debt."""
        self._note_unpaid(math.inf)
        for job in self._jobs:
            job.close(Fault(code="stage_failed", text="the stage stops; open a new attempt", retry=True))
        await asyncio.gather(*(job.wait_closed() for job in self._jobs))
        await asyncio.gather(*(link.close("the stage stops") for link in self._neighbours.all()))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._scheduler.stop()

    async def serve(self, link: Link) -> None:
        """Take what comes over a link until it ends: the `on_link` of a `LinkServer`."""
        self._neighbours.add(link)
        await self._serve(link)

    def _adopt(self, link: Link) -> None:
        self._spawn(self._serve(link))

    async def _serve(self, link: Link) -> None:
        try:
            async for frame in link.frames():
                try:
                    self._dispatch(link, frame)
                except (MalformedMessageError, MalformedFrameError, BadRecordError) as error:
                    await link.accuse(str(error))
        finally:
            self._neighbours.remove(link)
            self._lost(link)

    def _dispatch(self, link: Link, frame: pb.Frame) -> None:
        match frame.WhichOneof("body"):
            case "rows" | "leaf" | "draft" as kind:
                self._take(link, kind, frame)
            case "open":
                self._call(link, self._open(link, OpenCall.from_pb(frame.open)))
            case "payment":
                self._call(link, self._pay(link, HopPay.from_pb(frame.payment)))
            case "start" | "end" | "cancel" | "fault" | "where" as kind:
                self._steer(link, kind, frame)
            case kind:
                raise MalformedFrameError(f"a stage takes no frame of kind {kind}")

    def _take(self, link: Link, kind: str, frame: pb.Frame) -> None:
        """Give a job what its previous stage or its worker sends of it."""
        if kind == "leaf":
            leaf = signed_from_pb(frame.leaf.leaf, Leaf)
            if (job := self._jobs.find(leaf.message.job)) is not None and job.running:
                _must_come_from(job.upstream, link)
                job.leaf(leaf)
        elif (job := self._jobs.find(getattr(frame, kind).job)) is not None and job.running:
            _must_come_from(job.upstream if kind == "rows" else job.worker.peer, link)
            if kind == "rows":
                job.rows(link, frame.rows)
            else:
                job.draft(frame.draft)

    def _steer(self, link: Link, kind: str, frame: pb.Frame) -> None:
        """Do what the worker says of one of its jobs."""
        job = self._jobs.find(getattr(frame, kind).job)
        if job is None:
            return
        if job.worker is not link:
            if kind == "fault":
                return  # another stage's opinion; the worker hears it as well and decides
            raise MalformedFrameError(f"{kind} for a job of another worker")
        try:
            if kind == "start":
                job.start(frame.start.row, frame.start.next_row)
            elif kind == "where":
                self._call(link, link.send(pb.Frame(at=job.where())))
            elif kind == "end":
                job.end(frame.end.step)
            else:
                job.close()
        except PlaitError as error:
            job.close(error.fault())

    def _call(self, link: Link, call: Coroutine[None, None, None]) -> None:
        """Run what takes longer than a frame may; one link has a bounded number of these in hand."""
        if self._in_hand[link] >= _MOST_CALLS:
            call.close()
            raise MalformedFrameError(f"more than {_MOST_CALLS} calls at once")
        self._in_hand[link] += 1

        def done(_: asyncio.Task[None]) -> None:
            self._in_hand[link] -= 1
            if not self._in_hand[link]:
                del self._in_hand[link]

        self._spawn(call).add_done_callback(done)

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _open(self, link: Link, call: OpenCall) -> None:
        try:
            async with asyncio.timeout(_OPEN_S):
                job, cached = await self._admit(link, call)
            lineage, kept = [window.out_key for window in cached], leading_rows(cached)
            opened = pb.Opened(job=call.job_hash, lineage=lineage, held=job.held, kept=kept)
            await link.send(pb.Frame(opened=opened))
        except NextStageError as error:
            await _say(link, call.job_hash, error.fault(), blamed=call.job.message.route[call.stage + 1].node)
        except PlaitError as error:
            await _say(link, call.job_hash, error.fault())
        except TimeoutError:
            text = f"the job was not open after {_OPEN_S:g} s; open it again, or over another stage"
            await _say(link, call.job_hash, StageBusyError(text).fault())

    async def _admit(self, link: Link, call: OpenCall) -> tuple[StageJob, list[CachedWindow]]:
        self._opening[link.peer] += 1
        try:
            self._check_free(link, call)
            admitted = await self._admission.check(call, worker=link.peer)
            downstream = await self._downstream(admitted)
            taken = await self._jobs.fence(admitted)
            kept, cached = (taken.kept, list[CachedWindow]()) if taken else await self._reserve(admitted)
        finally:
            self._opening[link.peer] -= 1
            self._opening += Counter()  # forgets who opens none
        committer = StageCommitter(
            domain=self._around.domain,
            sign=self._sign,
            salt_rows=call.salt_rows,
            job=call.job_hash,
            stage=call.stage,
            cut=admitted.cut,
        )
        job = StageJob(
            self._around,
            admitted,
            committer,
            worker=link,
            downstream=downstream,
            cached=cached,
            kept=kept,
            taken=taken,
        )
        self._jobs.add(job)
        self._lend(link.peer)
        self._count()
        if link.closed or (downstream is not None and downstream.closed):
            job.link_lost(link.peer if link.closed else admitted.job.route[call.stage + 1].node, "closed meanwhile")
        return job, cached

    def _check_free(self, link: Link, call: OpenCall) -> None:
        here = bool(self._jobs.attempts_of(call.job.message.request))
        if self.closed and not here:
            raise StageBusyError("this stage is about to stop; open the job over another one")
        if not here:
            self._ready()
        if self._opening.total() + self.facts.queue > self._config.max_jobs + here:
            raise StageBusyError(f"this stage holds {self.facts.queue} jobs already; try again or another one")
        theirs = self._opening[link.peer] + len(self._jobs.of(link.peer))
        if theirs > self._config.worker_jobs + here:
            raise StageBusyError(f"this stage holds {theirs - 1} of your jobs already; try again or another one")

    async def _downstream(self, admitted: Admitted) -> Link | None:
        call = admitted.call
        if call.next is None:
            return None
        destination = await destination_of(
            call.next,
            stage=admitted.job.route[call.stage + 1],
            model=call.request.model,
            profile=admitted.job.profile,
            domain=self._around.domain,
            directory=self._around.directory,
            now=self._clock(),
        )
        return await self._neighbours.link_to(destination)

    async def _reserve(self, admitted: Admitted) -> tuple[KeptRows, list[CachedWindow]]:
        """Reserve room for rows, and KV room that begins with the windows that are cached here."""
        last = admitted.codecs.cacheable(admitted.cut.prompt_end - 1)  # the last row is always computed
        call, most = admitted.call, last // WINDOW_STEPS
        found = self._around.prefixes.find(call.request.payer, call.lineage[:most])
        # This may make the cache forget rows, but not those found.
        kept = self.facts.rows.reserve(admitted.room, admitted.codecs)
        try:
            return kept, await self._open_session(admitted, found)
        except BaseException:
            kept.free()
            raise

    async def _open_session(self, admitted: Admitted, found: list[CachedWindow]) -> list[CachedWindow]:
        call, engine = admitted.call, self._engine
        keys = [own_key(call.request.payer, key) for key in call.lineage[: len(found)]]

        try:
            # The earlier the signed deadline, the sooner it is served: only a tighter one goes before those that came.
            priority = -float(call.request.deadline)
            taken = await self._scheduler.open(call.job_hash, admitted.room, priority=priority, prefix=keys)
            return found[: taken // WINDOW_STEPS]
        except engine_errors.JobOpenError as error:
            raise JobOpenError(str(error)) from error
        except engine_errors.NoMemoryError as error:
            raise StageBusyError(f"{error}") from error
        except engine_errors.NoRoomError as error:
            if admitted.room <= engine.max_steps:
                raise StageBusyError(f"{error}") from error
            raise NoRoomError(f"{error}") from error
        except BaseException:
            self._spawn(self._scheduler.close(call.job_hash))
            raise

    async def _pay(self, link: Link, paid: HopPay) -> None:
        request = paid.payment.pay.message.request
        # Money for a job that is gone, perhaps with a restart of ours, is taken all the same.
        job = self._jobs.owing(request, link.peer)
        try:
            ack = await self._till.take(job, paid, worker=link.peer)
            self._lend(link.peer)
            self._on_payment()
            await link.send(pb.Frame(ack=ack))
        except PlaitError as error:
            log.info(
                "payment refused worker=%s request=%s error=%s", to_hex(link.peer), to_hex(request), error.fault().text
            )
            stands = self._till.stands(paid) if error.code == StaleVoucherError.code else None
            await _say(link, request if job is None else job.hash, error.fault(), stands=stands)

    def _lend(self, worker: Address) -> None:
        """Give a worker's jobs credit, or none while it owes too much."""
        now = self._clock()
        if not (trusted := self._debts.trusts(worker, now=now)):
            log.info(
                "worker owes too much, no credit worker=%s owed=%d", to_hex(worker), self._debts.owed(worker, now=now)
            )
        for job in self._jobs.of(worker):
            job.lend(self._config.credit_windows if trusted else 0)

    def _note_unpaid(self, now: float) -> None:
        """Note what is overdue of jobs that ended at `now`, in the loop's time."""
        for job, amount in self._jobs.unpaid(now):
            self._debts.note(job.admitted.job.worker, job.admitted.request_digest, amount, now=self._clock())

    def _lost(self, link: Link) -> None:
        """Close the jobs that a link's end leaves without worker, rows or a next stage."""
        for job in self._jobs:
            if job.needs(link):
                job.link_lost(link.peer, link.reason)

    def _count(self) -> None:
        self.facts.queue = len(self._jobs.of())


def _must_come_from(owner: Address, link: Link) -> None:
    if link.peer != owner:
        raise MalformedFrameError(f"rows, leaves or drafts of a job that come from {to_hex(owner)}")


async def _say(
    link: Link, job: bytes, fault: Fault, *, blamed: Address | None = None, stands: Signed[Voucher] | None = None
) -> None:
    with contextlib.suppress(WireError):
        told = pb.JobFault(job=job, fault=fault_to_pb(fault), blamed=blamed or b"")
        if stands is not None:
            told.stands.CopyFrom(signed_to_pb(stands))
        await link.send(pb.Frame(fault=told))
