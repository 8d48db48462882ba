"""One job on one stage: rows in, rows or tokens out, a leaf per window, and an end in every case."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass

from plait.protocol.codec import fault_to_pb
from plait.protocol.errors import Fault, PlaitError, VerificationError
from plait.protocol.ids import Address, Hash, to_hex
from plait.protocol.messages import Leaf
from plait.protocol.money import stage_fee_of
from plait.protocol.pb import stage_pb2 as pb
from plait.protocol.typed import Signed
from plait.protocol.windows import WINDOW_STEPS
from plait_node.commit import CommitError, RowOrderError, StageCommitter
from plait_node.engine.errors import BadRowsError, NoMemoryError, NumericsError
from plait_node.stage.admission import Admitted
from plait_node.stage.arrivals import Arrivals, Came
from plait_node.stage.compute import StepDone, StepWork
from plait_node.stage.errors import (
    PrefixGoneError,
    SpeculationError,
    StageBusyError,
    StageError,
    UnpaidError,
    UpstreamError,
)
from plait_node.stage.kept import KeptRows
from plait_node.stage.notary import Notary
from plait_node.stage.outgoing import again_frames, rows_frames
from plait_node.stage.prefix import CachedWindow
from plait_node.stage.speculation import Speculation
from plait_node.stage.surroundings import Surroundings
from plait_node.wire import Link, LinkClosedError, TensorError, WireError

log = logging.getLogger(__name__)

_INTERNAL = "this stage failed on good input; open a new attempt over another one"


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """What an attempt computed and sent, and was paid: the next attempt of its request goes on with it."""

    session: Hash  # the engine's name of it
    kept: KeptRows
    before: int  # steps signed below the row where the next attempt begins
    paid: int


class StageJob:
    """Runs from `Open` to `End`; afterwards only payments are taken."""

    def __init__(
        self,
        around: Surroundings,
        admitted: Admitted,
        committer: StageCommitter,
        *,
        worker: Link,
        downstream: Link | None,
        cached: Sequence[CachedWindow],
        kept: KeptRows,
        taken: Handover | None = None,
    ) -> None:
        self._around = around
        self.admitted = admitted
        self.worker = worker
        self.downstream = downstream
        self.credit = admitted.credit(windows=around.config.credit_windows, paid=taken.paid if taken else 0)
        self.touched = asyncio.get_running_loop().time()
        self._cached, self._taken, self._kept = cached, taken, kept
        self._session = taken.session if taken else self.hash
        self._notary = Notary(
            around, admitted, committer, worker=worker, downstream=downstream, session=self._session, rows=kept.rows
        )
        self._start: int | None = None
        self._next_row = self._given = 0
        self._end: int | None = None
        self._speculation = Speculation(is_tail=admitted.is_tail)
        self._arrivals = Arrivals(around, admitted, session=self._session)
        self._source: Link | None = None  # over which rows came last
        self._sender: Link | None = None  # over which those came that are in hand
        self._changed = asyncio.Event()
        name = to_hex(self.hash)[:10]
        self._tasks = [
            asyncio.create_task(self._guarded(self._compute), name=f"compute {name}"),
            asyncio.create_task(self._guarded(self._notarise), name=f"notarise {name}"),
        ]
        self._closing: asyncio.Task[None] | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._handed_over = self.unpaid = False  # unpaid: it ended because its worker did not pay
        self.suspended_at: float | None = None

    @property
    def hash(self) -> Hash:
        """Return the job record's struct hash."""
        return self.admitted.call.job_hash

    @property
    def closed(self) -> bool:
        """Tell whether the job takes nothing but payments."""
        return self._closing is not None

    @property
    def running(self) -> bool:
        """Tell whether the job computes: it is neither closed nor suspended."""
        return self._closing is None and self.suspended_at is None

    @property
    def held(self) -> int:
        """Return the step before which everything is held because an earlier attempt computed it."""
        return self.admitted.cut.row if self._taken else 0

    @property
    def upstream(self) -> Address:
        """Return who sends this job's rows."""
        return self.admitted.upstream

    @property
    def fee(self) -> int:
        """Return what the signed windows of this request cost, in base units."""
        return stage_fee_of(self.admitted.stage, self.admitted.call.before + self._notary.steps)

    def start(self, row: int, next_row: int) -> None:
        """Take `Start`: rows begin at `row`, those before are held; the next stage gets rows from `next_row` on."""
        if self._start is not None:
            raise StageError("a job starts once")
        if self.admitted.cut.row == 0 and row % WINDOW_STEPS:
            raise StageError("a job starts at a multiple of 16")
        if self.admitted.cut.row and row != self.held:
            raise StageError(f"rows begin at step {self.held} here, not at {row}")
        if self.admitted.cut.row == 0 and row > WINDOW_STEPS * len(self._cached):
            raise PrefixGoneError(f"the job starts at row {row}, {len(self._cached)} windows are cached here")
        if next_row < row and not self._kept.has(next_row, row):
            raise PrefixGoneError(f"the rows from step {next_row} on that the next stage lacks are not kept here")
        self._start, self._next_row = row, next_row
        self._speculation.begin(row)
        self._touch()

    def rows(self, source: Link, received: pb.Rows) -> None:
        """Take a frame of rows; raise `MalformedFrameError` for more than the job has room for."""
        self._arrivals.rows(received, source=source, now=asyncio.get_running_loop().time())
        self._source = source
        self._touch()

    def draft(self, received: pb.Draft) -> None:
        """Take the ids that were guessed for rows to come; raise `MalformedFrameError`."""
        self._arrivals.draft(received)
        self._touch()

    def leaf(self, signed: Signed[Leaf]) -> None:
        """Take a leaf of the stage before; raise `MalformedFrameError` for more than there are windows."""
        self._notary.leaf(signed)
        self._touch()

    def end(self, step: int) -> None:
        """Take `End`: no row at or after `step` belongs to the job."""
        if self._end is None:
            self._end = step
            self._touch()
            self._arrivals.end()

    def where(self) -> pb.At:
        """Return how far the job is here."""
        came = self._arrivals.end_step
        # Rows that were taken back may have been given out from steps behind those that are in hand now.
        given = min(self._given, came - 1) if self._arrivals.in_hand else self._given
        return pb.At(job=self.hash, came=came, given=given)

    def pay(self, total: int) -> None:
        """Take the total paid for this job so far."""
        self.credit.pay(total)
        self._touch()

    def lend(self, windows: int) -> None:
        """Work so many unpaid windows ahead from now on."""
        self.credit.lend(windows)
        self._changed.set()

    def close(self, fault: Fault | None = None, *, blamed: Address | None = None) -> None:
        """Close the job, free its room and, with a fault, tell the worker why; only the first call counts."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._free(fault, blamed), name="close job")

    def suspend(self, fault: Fault, *, blamed: Address) -> None:
        """Stop because of a neighbour and tell the worker; what was computed waits for an attempt that goes on."""
        if self.running:
            self.suspended_at = asyncio.get_running_loop().time()
            self._stopping = asyncio.create_task(self._stop(fault, blamed), name="suspend job")

    def hand_over(self, row: int) -> Handover | None:
        """Close this job, for an attempt that goes on at `row` with what it computed; None if it did not get there."""
        got_there = self._taken is not None if self._start is None else self._speculation.computed >= row
        if self.closed or not got_there or self._notary.signed_to < row:
            return None
        self._handed_over = True
        for task in self._tasks:  # now: what they share with the next attempt is no longer theirs
            task.cancel()
        self.close()
        before = self.admitted.call.before + row - self.admitted.cut.row
        return Handover(session=self._session, kept=self._kept, before=before, paid=self.credit.paid)

    async def wait_closed(self) -> None:
        """Return once a closed job is freed."""
        if self._closing is not None:
            await asyncio.shield(self._closing)

    def _touch(self) -> None:
        self.touched = asyncio.get_running_loop().time()
        self._changed.set()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _guarded(self, run: Callable[[], Coroutine[None, None, None]]) -> None:
        """Run one of the two tasks; whatever goes wrong ends the job with a fault, and the right one blamed."""
        try:
            await run()
        except (TensorError, BadRowsError, RowOrderError) as error:
            self._upstream_failed(UpstreamError(f"malformed rows: {error}").fault())
            if self._sender is not None:
                await self._sender.accuse(f"malformed rows: {error}")
        except (CommitError, VerificationError, SpeculationError) as error:
            self._upstream_failed(error.fault())
        except LinkClosedError as error:
            self.link_lost(error.peer, error.reason)
        except PlaitError as error:
            self.unpaid = isinstance(error, UnpaidError)
            self.close(error.fault())
        except (NoMemoryError, MemoryError) as error:
            self.close(StageBusyError(f"{error}" or "no memory; ask again later").fault())
        except NumericsError:
            self._tell_evidence()
            self.close(Fault(code="stage_failed", text=_INTERNAL, retry=True), blamed=self._around.config.owner)
        except Exception:
            log.exception("job failed here job=%s", to_hex(self.hash))
            self.close(Fault(code="stage_failed", text=_INTERNAL, retry=True), blamed=self._around.config.owner)

    def _upstream_failed(self, fault: Fault) -> None:
        if self.upstream == self.worker.peer:
            self.close(fault, blamed=self.upstream)
        else:
            self.suspend(fault, blamed=self.upstream)

    def _tell_evidence(self) -> None:
        if (kept := self._around.engine.evidence.of(self._session)) is not None:
            log.error(
                "rows were not finite job=%s start=%d rows=%d blocks=%d-%d lane=%s",
                to_hex(self.hash),
                kept.start,
                len(kept.rows) - kept.start,
                kept.first,
                kept.last,
                kept.lane.weights,
            )

    def needs(self, link: Link) -> bool:
        """Tell whether the job cannot go on without this link."""
        return link is self.worker if not self.running else link in (self.worker, self.downstream, self._source)

    def link_lost(self, peer: Address, reason: str) -> None:
        """Close the job because its worker is gone, or suspend it because a neighbour is."""
        if peer == self.worker.peer:
            self.close()
            return
        what = "next" if self.downstream is not None and peer == self.downstream.peer else "previous"
        text = f"the link to the {what} stage {to_hex(peer)} is lost: {reason}; open a new attempt without it"
        self.suspend(Fault(code="stage_failed", text=text, retry=True), blamed=peer)

    async def _compute(self) -> None:
        while self._start is None and self._end is None:
            await self._change()
        if self._start is not None:
            await self._begin(self._start)
        while (came := await self._arrivals.next()) is not None:
            await self._step(came)
            self._arrivals.done()
        if self._end is not None:
            self._release(self._end, certain=self._end)
        self._notary.end(self._end or 0)

    async def _begin(self, row: int) -> None:
        windows = row // WINDOW_STEPS
        if self._taken or windows < len(self._cached):
            await self._around.scheduler.rollback(self._session, row)
        if self._taken:
            await self._send_again(row)
        else:
            self._kept.begin(row, [window.rows for window in self._cached[:windows]])
            self._notary.begin(self._cached[:windows])

    async def _send_again(self, row: int) -> None:
        """Give the next stage, which is new here, what the one before it got."""
        self._kept.cut(row)
        if self._next_row < row and self.downstream is not None:
            most = self._around.config.step_rows
            for frame in again_frames(self.hash, self._kept, self._next_row, row, most=most):
                await self.downstream.send(frame)

    async def _step(self, came: Came) -> None:
        work, self._sender = came.work, came.source
        if self._end is not None and work.step >= self._end:
            return
        self._speculation.check(work)
        self._arrivals.check(work)
        if work.speculative and self.admitted.is_tail:
            work = await self._arrivals.drafted(work)
            if self._speculation.drops(work):
                self._given = work.end
                return
        if work.step < self._speculation.computed:
            await self._around.scheduler.rollback(self._session, work.step)
        self._release(work.step, certain=work.certain)
        if not self.credit.covers(work.end):
            await self._await_credit(work)
            if self._end is not None and work.step >= self._end:
                return
        async for part in self._around.scheduler.run(work):
            await self._give_out(part.made)
            if work.whole and not work.speculative:  # a step is one row
                hop_s = asyncio.get_running_loop().time() - came.at
                self._around.facts.observe(step_s=part.seconds, hop_s=hop_s)

    def _release(self, step: int, *, certain: int) -> None:
        """Forget the rows from `step` on, and commit to those below `certain` that waited to be accepted."""
        for hashes in self._speculation.accept(step, certain=certain):
            self._notary.rows(hashes)

    async def _give_out(self, done: StepDone) -> None:
        hashes = self._speculation.take(done)
        if self.downstream is not None:
            self._kept.add(done.step, done.count, done.data)
            for frame in rows_frames(self.hash, done, step_rows=self._around.config.step_rows):
                if done.step >= self._next_row:
                    await self.downstream.send(frame)
        elif done.tokens:
            tokens = pb.Tokens(job=self.hash, step=done.outputs.end - len(done.tokens), ids=done.tokens)
            await self.worker.send(pb.Frame(tokens=tokens))
        self._given = done.end
        if done.step >= self.admitted.cut.row:
            for each in hashes:
                self._notary.rows(each)

    async def _await_credit(self, work: StepWork) -> None:
        patience = self._around.config.unpaid_s
        try:
            async with asyncio.timeout(patience):
                while not self.credit.covers(work.end) and (self._end is None or work.step < self._end):
                    await self._change()
        except TimeoutError as error:
            line = self.credit
            raise UnpaidError(
                f"steps up to {work.end} were asked, {line.paid} base units and {line.windows} windows of credit "
                f"reach to {line.allowed}; pay before sending more"
            ) from error

    async def _notarise(self) -> None:
        await self._notary.run()
        self.close()

    async def _stop(self, fault: Fault, blamed: Address) -> None:
        for task in self._tasks:
            task.cancel()
        await self._tell(fault, blamed)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _tell(self, fault: Fault, blamed: Address | None) -> None:
        log.info("job ends here job=%s code=%s text=%s", to_hex(self.hash), fault.code, fault.text)
        told = pb.JobFault(job=self.hash, fault=fault_to_pb(fault), blamed=blamed or b"")
        with contextlib.suppress(WireError):
            await self.worker.send(pb.Frame(fault=told))

    async def _free(self, fault: Fault | None, blamed: Address | None) -> None:
        for task in self._tasks:
            task.cancel()
        if fault is not None:
            await self._tell(fault, blamed)
        if not self._handed_over:
            await self._around.scheduler.close(self._session)
            self._kept.free()
        self._cached = ()  # a closed job is known for long, and rows are not to be held by that
        stopping = [self._stopping] if self._stopping else []
        await asyncio.gather(*self._tasks, *stopping, return_exceptions=True)
