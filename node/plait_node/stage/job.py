"""One job on one stage: rows in, rows or tokens out, a leaf per window, and an end in every case."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace

from plait.protocol.checks import check_signer
from plait.protocol.codec import fault_to_pb, signed_to_pb
from plait.protocol.errors import Fault, PlaitError, VerificationError
from plait.protocol.ids import Address, Hash, to_hex
from plait.protocol.messages import Leaf
from plait.protocol.money import stage_fee_of
from plait.protocol.pb import stage_pb2 as pb
from plait.protocol.typed import Signed
from plait.protocol.windows import WINDOW_STEPS
from plait_node.commit import CommitError, RowHashes, RowOrderError, StageCommitter
from plait_node.engine.errors import BadRowsError, NoMemoryError, NumericsError
from plait_node.stage.admission import Admitted
from plait_node.stage.compute import Draw, StepDone, StepWork
from plait_node.stage.credit import CreditLine
from plait_node.stage.errors import (
    PrefixGoneError,
    SpeculationError,
    StageBusyError,
    StageError,
    UnpaidError,
    UpstreamError,
)
from plait_node.stage.outgoing import rows_frames
from plait_node.stage.prefix import CachedWindow
from plait_node.stage.speculation import MOST_SPECULATIVE, Speculation
from plait_node.stage.surroundings import Surroundings
from plait_node.wire import Link, LinkClosedError, MalformedFrameError, TensorError, WireError
from plait_node.wire.tensor import FP32, IDS

log = logging.getLogger(__name__)

_DRAFT_S = 5.0  # how long rows wait for the ids that were guessed for them, seconds
_INTERNAL = "this stage failed on good input; open a new attempt over another one"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Came:
    """A frame of rows, and when it came."""

    work: StepWork
    at: float


# What the notary works on: hashes of rows in and out, an upstream leaf, the begin (empty), the end (None).
_Note = tuple[RowHashes, RowHashes] | Signed[Leaf] | tuple[()] | None
_BEGIN: tuple[()] = ()


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
    ) -> None:
        self._around = around
        self.admitted = admitted
        self.worker = worker
        self.downstream = downstream
        self.credit = CreditLine(
            cut=admitted.cut, stage=admitted.stage, windows=around.config.credit_windows, room=admitted.room
        )
        self.touched = asyncio.get_running_loop().time()
        self._committer = committer
        self._cached = cached
        self._start: int | None = None
        self._end: int | None = None
        self._speculation = Speculation(is_tail=admitted.is_tail)
        self._draft: tuple[int, tuple[int, ...]] | None = None  # the first one's step, and the ids
        self._queued = 0  # rows that came and are not looked at yet
        self._leaves = 0
        self._source: Link | None = None
        self._changed = asyncio.Event()
        self._rows: asyncio.Queue[_Came | None] = asyncio.Queue()
        self._notes: asyncio.Queue[_Note] = asyncio.Queue()
        name = to_hex(self.hash)[:10]
        self._tasks = [
            asyncio.create_task(self._guarded(self._compute), name=f"compute {name}"),
            asyncio.create_task(self._guarded(self._notarise), name=f"notarise {name}"),
        ]
        self._closing: asyncio.Task[None] | None = None

    @property
    def hash(self) -> Hash:
        """Return the job record's struct hash."""
        return self.admitted.call.job_hash

    @property
    def closed(self) -> bool:
        """Tell whether the job takes nothing but payments."""
        return self._closing is not None

    @property
    def upstream(self) -> Address:
        """Return who sends this job's rows."""
        index = self.admitted.call.stage
        return self.worker.peer if index == 0 else self.admitted.job.route[index - 1].node

    @property
    def fee(self) -> int:
        """Return what the signed windows cost, in base units."""
        return stage_fee_of(self.admitted.stage, self._committer.steps)

    def start(self, row: int) -> None:
        """Take `Start`: rows begin at `row`, the windows before come from the cache."""
        if self._start is not None or row % WINDOW_STEPS:
            raise StageError("a job starts once, at a multiple of 16")
        if row > WINDOW_STEPS * len(self._cached):
            raise PrefixGoneError(f"the job starts at row {row}, {len(self._cached)} windows are cached here")
        self._start = row
        self._speculation.begin(row)
        self._touch()

    def rows(self, source: Link, received: pb.Rows) -> None:
        """Take a frame of rows; raise `MalformedFrameError` for more than the job has room for."""
        count, speculative, room = received.count, received.speculative, self.admitted.room
        self._queued += count
        if not count > 0 or max(self._queued, received.step + count) > room:
            raise MalformedFrameError("more rows came than the job has room for")
        if speculative not in (0, count - 1) or speculative > MOST_SPECULATIVE:
            raise MalformedFrameError(f"of {count} rows {speculative} are speculative; all but the first, at most 15")
        work = StepWork(
            job=self.hash,
            step=received.step,
            count=count,
            codec=received.codec,
            data=received.data,
            whole=received.step >= self.admitted.cut.prompt_end,
            draw=self._draw() if self.admitted.is_tail else None,
            manifest=self._around.engine.manifest,
            speculative=speculative,
        )
        self._source = source
        self._touch()
        self._rows.put_nowait(_Came(work=work, at=self.touched))

    def draft(self, received: pb.Draft) -> None:
        """Take the ids that were guessed for rows to come; raise `MalformedFrameError`."""
        ids, vocabulary = tuple(received.ids), self._around.engine.manifest.vocabulary
        if not self.admitted.is_tail or self._draft is not None:
            raise MalformedFrameError("a draft goes to the last stage, before its rows")
        if not 0 < len(ids) <= MOST_SPECULATIVE or max(ids) >= vocabulary:
            raise MalformedFrameError(f"a draft has 1 to {MOST_SPECULATIVE} ids below {vocabulary}")
        self._draft = received.step, ids
        self._touch()

    def leaf(self, signed: Signed[Leaf]) -> None:
        """Take a leaf of the stage before; raise `MalformedFrameError` for more than there are windows."""
        self._leaves += 1
        if self._leaves > self.admitted.room // WINDOW_STEPS + 2:
            raise MalformedFrameError("more leaves came than the job has windows")
        self._touch()
        self._notes.put_nowait(signed)

    def end(self, step: int) -> None:
        """Take `End`: no row at or after `step` belongs to the job."""
        if self._end is None:
            self._end = step
            self._touch()
            self._rows.put_nowait(None)

    def pay(self, total: int) -> None:
        """Take the total paid for this job so far."""
        self.credit.pay(total)
        self._touch()

    def close(self, fault: Fault | None = None, *, blamed: Address | None = None) -> None:
        """Close the job, free its room and, with a fault, tell the worker why; only the first call counts."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._free(fault, blamed), name="close job")

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

    def _draw(self) -> Draw:
        admitted = self.admitted
        first = admitted.cut.prompt_end - 1
        return Draw(first_step=first, request=admitted.request_digest, terms=admitted.call.request)

    async def _guarded(self, run: Callable[[], Coroutine[None, None, None]]) -> None:
        """Run one of the two tasks; whatever goes wrong ends the job with a fault, and the right one blamed."""
        try:
            await run()
        except (TensorError, BadRowsError, RowOrderError) as error:
            self.close(UpstreamError(f"malformed rows: {error}").fault(), blamed=self.upstream)
            if self._source is not None:
                await self._source.accuse(f"malformed rows: {error}")
        except (CommitError, VerificationError, SpeculationError) as error:
            self.close(error.fault(), blamed=self.upstream)
        except LinkClosedError as error:
            self.link_lost(error.peer, error.reason)
        except PlaitError as error:
            self.close(error.fault())
        except NoMemoryError as error:
            self.close(StageBusyError(f"{error}").fault())
        except NumericsError:
            self._tell_evidence()
            self.close(Fault(code="stage_failed", text=_INTERNAL, retry=True), blamed=self._around.config.owner)
        except Exception:
            log.exception("job failed here job=%s", to_hex(self.hash))
            self.close(Fault(code="stage_failed", text=_INTERNAL, retry=True), blamed=self._around.config.owner)

    def _tell_evidence(self) -> None:
        if (kept := self._around.engine.evidence.of(self.hash)) is not None:
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
        return not self.closed and link in (self.worker, self.downstream, self._source)

    def link_lost(self, peer: Address, reason: str) -> None:
        """Close the job because a link that it needs is gone."""
        if peer == self.worker.peer:
            self.close()
            return
        what = "next" if self.downstream is not None and peer == self.downstream.peer else "previous"
        text = f"the link to the {what} stage {to_hex(peer)} is lost: {reason}; open a new attempt without it"
        self.close(Fault(code="stage_failed", text=text, retry=True), blamed=peer)

    async def _compute(self) -> None:
        while self._start is None and self._end is None:
            await self._change()
        if self._start is not None:
            await self._begin(self._start)
        while (came := await self._rows.get()) is not None:
            self._queued -= came.work.count
            await self._step(came)
        if self._end is not None:
            self._release(self._end)
        self._notes.put_nowait(None)

    async def _begin(self, row: int) -> None:
        windows = row // WINDOW_STEPS
        if windows < len(self._cached):
            await self._around.scheduler.rollback(self.hash, row)
        if windows:
            self._committer.reuse([window.roots for window in self._cached[:windows]])
            self._notes.put_nowait(_BEGIN)

    async def _step(self, came: _Came) -> None:
        work = came.work
        if self._end is not None and work.step >= self._end:
            return
        self._check_place(work)
        if work.step < self._speculation.computed:
            await self._around.scheduler.rollback(self.hash, work.step)
        self._release(work.step)
        if not self.credit.covers(work.end):
            await self._await_credit(work)
            if self._end is not None and work.step >= self._end:
                return
        if work.speculative and self.admitted.is_tail:
            work = replace(work, draft=await self._await_draft(work))
        async for part in self._around.scheduler.run(work):
            await self._give_out(part.made)
            if work.whole:
                hop_s = asyncio.get_running_loop().time() - came.at
                self._around.facts.observe(step_s=part.seconds, hop_s=hop_s)

    def _release(self, step: int) -> None:
        """Commit to the rows below `step` that waited to be accepted."""
        hashes = self._speculation.accept(step)
        if hashes is not None:
            self._notes.put_nowait(hashes)

    async def _await_draft(self, work: StepWork) -> tuple[int, ...]:
        try:
            async with asyncio.timeout(_DRAFT_S):
                while self._draft is None:
                    await self._change()
        except TimeoutError as error:
            raise SpeculationError(
                f"the draft for rows from step {work.step} on did not come; send it first"
            ) from error
        (step, ids), self._draft = self._draft, None
        if (step, len(ids)) != (work.step + 1, work.speculative):
            raise SpeculationError(
                f"a draft of {len(ids)} ids from step {step} on came for {work.speculative} rows from step "
                f"{work.step + 1} on; open a new attempt over other stages"
            )
        return ids

    async def _give_out(self, done: StepDone) -> None:
        hashes = self._speculation.take(done)
        if self.downstream is not None:
            for frame in rows_frames(self.hash, done, step_rows=self._around.config.step_rows):
                await self.downstream.send(frame)
        elif done.tokens:
            tokens = pb.Tokens(job=self.hash, step=done.outputs.end - len(done.tokens), ids=done.tokens)
            await self.worker.send(pb.Frame(tokens=tokens))
        self._notes.put_nowait(hashes)

    def _check_place(self, work: StepWork) -> None:
        self._speculation.check(work.step)
        if work.codec != (IDS if self.admitted.call.stage == 0 else FP32):
            raise TensorError(f"stage {self.admitted.call.stage} does not take rows of codec {work.codec[:32]!r}")
        prompt_end = self.admitted.cut.prompt_end
        if work.end > prompt_end and (work.step < prompt_end or work.count > 1 + work.speculative):
            raise TensorError("after the prompt's last row, rows come one by one or are speculative")
        if work.speculative and not work.whole:
            raise TensorError("a prompt's rows are not speculative")

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
        while not self._committer.complete:
            note = await self._notes.get()
            if note is None:
                self._committer.finish(self._end or 0)
            elif isinstance(note, Signed):
                await self._add_leaf(note)
            elif note:
                self._committer.add_input(note[0])
                self._committer.add_output(note[1])
            await self._sign()
        await self._keep()
        self.close()

    async def _add_leaf(self, leaf: Signed[Leaf]) -> None:
        await check_signer(
            self._around.domain,
            self._around.directory,
            leaf,
            owner=self.upstream,
            request=self.admitted.call.request,
            check="leaf",
        )
        self._committer.add_upstream(leaf)

    async def _sign(self) -> None:
        while (leaf := self._committer.sign_next()) is not None:
            frame = pb.Frame(leaf=pb.LeafOf(leaf=signed_to_pb(leaf)))
            await self.worker.send(frame)
            if self.downstream is not None:
                await self.downstream.send(frame)
            await asyncio.sleep(0)  # a long prompt has many windows; other jobs' rows pass in between

    async def _keep(self) -> None:
        if self._committer.kept:
            keys = self._around.prefixes.keep(self.admitted.call.request.payer, self._committer.kept)
            await self._around.scheduler.keep_prefix(self.hash, keys)

    async def _free(self, fault: Fault | None, blamed: Address | None) -> None:
        for task in self._tasks:
            task.cancel()
        if fault is not None:
            log.info("job closed job=%s code=%s text=%s", to_hex(self.hash), fault.code, fault.text)
            told = pb.JobFault(job=self.hash, fault=fault_to_pb(fault), blamed=blamed or b"")
            with contextlib.suppress(WireError):
                await self.worker.send(pb.Frame(fault=told))
        await self._around.scheduler.close(self.hash)
        await asyncio.gather(*self._tasks, return_exceptions=True)
