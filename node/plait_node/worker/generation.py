"""Drive one attempt: open, prefill, decode token by token, gather leaves, pay, and close every window."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from plait.protocol.codec import signed_from_pb
from plait.protocol.errors import MalformedMessageError
from plait.protocol.ids import Address, Hash, to_hex
from plait.protocol.messages import Finish, Leaf, Progress
from plait.protocol.pb import stage_pb2
from plait.protocol.typed import struct_hash
from plait.protocol.windows import Cut, Window, progress_to
from plait_node.selector import Ran
from plait_node.selector.tasks import overlap
from plait_node.worker.ahead import Ahead
from plait_node.worker.answer import Answer
from plait_node.worker.errors import StageFailure
from plait_node.worker.hops import HopPay, Owed
from plait_node.worker.leaves import LeafBook
from plait_node.worker.line import Line
from plait_node.worker.links import Arrived, Event, Lost, PayerSpoke
from plait_node.worker.opening import open_frame, reused_row, rows_frames, start_frames, step_frames
from plait_node.worker.pace import Pace
from plait_node.worker.purse import Purse
from plait_node.worker.tools import Tools
from plait_node.worker.watch import Avoidable, Watch

if TYPE_CHECKING:
    from plait.protocol.messages import Job
    from plait.protocol.typed import Signed
    from plait_node.worker.admission import Task
    from plait_node.worker.payer import PayerWatch
    from plait_node.worker.plan import Decision
    from plait_node.worker.publisher import Publisher
    from plait_node.worker.told import Told

_TICK_S = 0.25

_log = logging.getLogger(__name__)


class Generation:
    """One attempt of one task over one route."""

    def __init__(
        self,
        tools: Tools,
        *,
        task: Task,
        decision: Decision,
        signed: Signed[Job],
        publisher: Publisher | None,
        payer: PayerWatch,
        told: Told,
        avoidable: Avoidable,
    ) -> None:
        """Prepare to go on behind what was `told`, without a publisher (the on-chain path) streaming nothing.

        `avoidable` says whether the answer could go on without a stage.
        """
        job, request = signed.message, task.request
        self._tools = tools
        self._task = task
        self.decision = decision
        self._signed = signed
        self._publisher, self._payer = publisher, payer
        self.job, self.route = struct_hash(job), job.route
        self._prompt_end = request.input_tokens + job.start
        self._line = Line(tools.pool, job=self.job, route=job.route)
        self.answer = Answer(task, job=self.job, manifest=tools.manifest, tokenizer=tools.tokenizer, ids=told.ids)
        self.book = self._new_book()
        known = (*task.ids, *told.ids)
        self._ahead = Ahead.of(decision, tools.proposers, vocabulary=tools.manifest.vocabulary, ids=known)
        self._hops = HopPay(
            tools.desk, request=task.digest, route=job.route, row=job.row, own=tools.owner, owed=told.owed
        )
        self._purse = Purse(task, payer, prompt_end=self._prompt_end, credit_windows=tools.patience.credit_windows)
        self.progress: Signed[Progress] | None = None
        self.reused_windows = 0
        self.lacking: frozenset[Address] = frozenset()  # stages that could not send rows of reused windows again
        self.abandoned = False
        self._opened: dict[Address, stage_pb2.Opened] = {}
        self._waiting: list[tuple[Window, list[Signed[Leaf]]]] = []  # whole, not in a progress yet
        self._delivered_end = job.row  # the first step that no progress covers
        self._ended = False
        self._since = asyncio.get_running_loop().time()
        self._pace = Pace(self._since)
        self._watch = Watch.of(decision, now=self._since, avoidable=avoidable)

    def _new_book(self) -> LeafBook:
        job = self._signed.message
        return LeafBook(
            domain=self._tools.domain,
            directory=self._tools.directory,
            request=self._task.request,
            job=self.job,
            route=job.route,
            cut=Cut(prompt_end=self._prompt_end, row=job.row),
            salt_rows=self._task.content_key.salt("rows"),
            token_at=self.answer.token_at,
        )

    @property
    def start(self) -> int:
        """Return how many tokens earlier attempts delivered."""
        return self._signed.message.start

    @property
    def profile(self) -> Hash:
        """Return the profile of this attempt."""
        return self._signed.message.profile

    def ran(self) -> Ran:
        """Return how an attempt went that has run to its end."""
        ids = self.answer.ids
        return Ran(
            seconds=self._pace.seconds,
            ttft_s=self._pace.first_s,
            tokens=len(ids) - self.start,
            reused_tokens=reused_row(self.reused_windows),
            accepted=self._ahead.accepted,
            overlap=overlap(self._task.ids, ids),
        )

    async def cancel(self) -> None:
        """Have the stages forget the attempt."""
        await self._line.cancel()

    def owed(self) -> dict[Address, Owed]:
        """Return what the stages are owed by this attempt and those before it."""
        return self._hops.owed(self._told_windows())

    async def settle(self, kind: int, leaf: Hash, *, skip: frozenset[Address], latest: bool) -> None:
        """Pay for what the payer paid last, and end the job on the hops of all stages but those in `skip`."""
        if latest:
            with contextlib.suppress(StageFailure):  # who cannot be reached is paid with the next link
                await self._cover()
        windows, pay = self._told_windows(), self._payer.pay
        await self._hops.settle(kind, leaf, windows, paid_end=self._paid_end(), payer=pay, skip=skip)

    def _told_windows(self) -> list[Window]:
        return [window for window in self.book.windows if window.end <= self._delivered_end]

    async def run(self) -> None:
        """Generate until the last window is whole; raise `StageFailure` blaming a stage that fails."""
        self._payer.tell(lambda: self._line.offer(PayerSpoke()))
        self._line.open()
        try:
            rows = await self._open()
            await self._cover(wait=True)
            await self._begin(rows)
            while not (self._ended and self.book.complete and not self._waiting):
                await self._take(await self._next(self._limit_s()))
                await self._advance()
        except StageFailure:
            raise  # another attempt may go on with what the stages hold
        except BaseException:
            await self._line.cancel()
            raise
        finally:
            self._line.close()

    async def abandon(self, *, mended: bool) -> int:
        """Deliver what can be delivered; return the step behind it, where one may go on that replaces a stage."""
        self.abandoned = True
        if self.answer.finish is None:
            await self._deliver()
        await self._report(prompt_too=mended)
        return self._delivered_end

    async def _open(self) -> list[int]:
        """Open the job on all stages; return for each the step where its rows begin."""
        keys: Sequence[Hash] = self.decision.lineage if self.decision.reuses_prefix else ()
        windows = len(keys)
        for index, stage in enumerate(self.route):
            frame = open_frame(
                self._task,
                self.decision,
                self._signed,
                index=index,
                lineage=keys[:windows],
                before=self._hops.before(stage.node).steps,
                pay=self._payer.pay,
            )
            await self._line.send(index, frame)
            if windows:
                # Each stage's cached outputs name the next stage's cached inputs, so they are asked in order.
                keys = [Hash(key) for key in (await self._await_opened(stage.node)).lineage]
                windows = min(windows, len(keys))
        opened = [await self._await_opened(stage.node) for stage in self.route]
        self.reused_windows = windows
        self.lacking = frozenset(owner for owner, each in self._opened.items() if each.kept < windows)
        reused = reused_row(windows)
        return [each.held if self._signed.message.row else reused for each in opened]

    async def _await_opened(self, owner: Address) -> stage_pb2.Opened:
        try:
            async with asyncio.timeout(self._tools.patience.open_s):
                while owner not in self._opened:
                    await self._take(await self._line.next(self._tools.patience.open_s))
        except TimeoutError:
            raise self._line.failure(
                owner, f"it did not open the job within {self._tools.patience.open_s:g} s"
            ) from None
        return self._opened[owner]

    async def _begin(self, rows: list[int]) -> None:
        for index, start in enumerate(start_frames(self.job, rows)):
            await self._line.send(index, start)
        ids = [*self._task.ids, *self.answer.ids]
        first, row = rows[0], self._signed.message.row
        # No frame spans the job's first row, nor the end of the payer's prompt: rows may change their codec there.
        edges = sorted({first, *(edge for edge in (row, len(self._task.ids)) if first < edge < len(ids)), len(ids)})
        for begin, end in pairwise(edges):
            for frame in rows_frames(self.job, ids[begin:end], step=begin, chunk=self.decision.chunk):
                await self._line.send(0, frame)
        self._ahead.begin()
        self._since = asyncio.get_running_loop().time()

    async def _next(self, limit_s: float) -> Event | None:
        """Return the next event, None after a tick; raise when nothing moves for `limit_s`."""
        event = await self._line.next(min(_TICK_S, self._watch.wake_s))
        if event is None:
            self._hops.check_overdue()
            await self._look()
            if asyncio.get_running_loop().time() - self._since > limit_s:
                await self._stalled(limit_s)
            return None
        if not (isinstance(event, Arrived) and event.frame.HasField("at")):
            self._since = asyncio.get_running_loop().time()
        return event

    async def _look(self) -> None:
        """Ask the stages where they are when a token is long overdue."""
        now = asyncio.get_running_loop().time()
        if self._ended or self._starved() or not self._ahead.begun:
            self._watch.rest(now)
        elif self._watch.asks(now):
            await self._line.send_all(stage_pb2.Frame(where=stage_pb2.Where(job=self.job)))

    def _limit_s(self) -> float:
        patience = self._tools.patience
        if not self.answer.ids:
            return patience.first_token_s
        return patience.pay_s if self._starved() else patience.step_s

    async def _stalled(self, limit_s: float) -> None:
        self._since = asyncio.get_running_loop().time()
        if self._starved() and not self._ended:
            _log.warning("payer stopped paying request=%s to=%d", to_hex(self._task.digest), self._payer.to)
            self.answer.finish = Finish.FAILED
            return
        stage = self.route[self.book.laggard()]
        raise self._line.failure(stage.node, f"nothing came from it for {limit_s:g} s")

    async def _take(self, event: Event | None) -> None:
        if isinstance(event, Lost):
            raise self._line.failure(event.owner, f"the link to it ended: {event.reason}", unheard=True)
        if not isinstance(event, Arrived):
            return
        try:
            await self._take_frame(event.owner, event.frame)
        except MalformedMessageError as error:
            await self._line.accuse(event.owner, error.text)
            raise self._line.failure(event.owner, error.text) from error

    async def _take_frame(self, owner: Address, frame: stage_pb2.Frame) -> None:
        match frame.WhichOneof("body"):
            case "opened":
                if any(len(key) != 32 for key in frame.opened.lineage):
                    raise MalformedMessageError("a lineage key has 32 bytes")
                if frame.opened.held not in (0, self._signed.message.row):
                    raise MalformedMessageError("a stage holds all rows before the job's first one, or none")
                self._opened[owner] = frame.opened
            case "tokens":
                await self._take_token(owner, frame.tokens)
            case "at":
                place = next(at for at, stage in enumerate(self.route) if stage.node == owner)
                if (holder := await self._watch.judge(place, frame.at)) is not None:
                    raise self._line.failure(self.route[holder].node, "it holds rows far longer than it should")
            case "leaf":
                self._waiting += await self.book.add(owner, signed_from_pb(frame.leaf.leaf, Leaf))
            case _:
                raise await self._line.judge(owner, frame.fault)

    async def _take_token(self, owner: Address, tokens: stage_pb2.Tokens) -> None:
        if owner != self.route[-1].node:
            raise MalformedMessageError("tokens come from the last stage only")
        self._ahead.check(tokens.step, tokens.ids)
        if self.answer.finish is not None:
            return  # it was guessed and sent before the end was known
        now = asyncio.get_running_loop().time()
        self._pace.token(now)
        self._watch.moved(now)
        for token in tokens.ids:
            self.answer.take(token)
            self._ahead.take(token)
            if self.answer.finish is not None:
                break
        await self._feed()  # the stages work on while the token is sealed and published
        if self.answer.finish is None:
            await self._deliver()  # the last ids go out with the windows that cover them: until then all can be redone

    async def _deliver(self) -> None:
        chunk = self.answer.seal_new()
        if chunk is not None and self._publisher is not None:
            await self._publisher.chunk(self.job, chunk)

    async def _advance(self) -> None:
        await self._cover()
        await self._feed()
        if self.answer.finish is not None and not self._ended:
            self._ended = True
            self.book.last_step = self.answer.end
            await self._line.send_all(stage_pb2.Frame(end=stage_pb2.End(job=self.job, step=self.answer.end)))
        await self._report()

    async def _feed(self) -> None:
        """Send the newest id, and guesses, to the first stage, if the answer goes on and the payer's credit allows it.

        The answer ends only where every row that was called certain has its token.
        """
        if self.answer.finish is not None or not self._ahead.news:
            return
        if self._payer.cancelled:
            self.answer.finish = Finish.CANCELLED
        elif self._tools.clock() > self._task.request.deadline - self._tools.patience.deadline_s:
            self.answer.finish = Finish.FAILED
        starved = self._starved()
        self._pace.wait(asyncio.get_running_loop().time(), starved=starved)
        if self.answer.finish is not None or starved:
            return
        for sent in self._ahead.frames(self._guess_end()):
            rows, note = step_frames(self.job, sent)
            if note is not None:
                await self._line.send(len(self.route) - 1, note)
            await self._line.send(0, rows)

    def _guess_end(self) -> int:
        """Return the first step that is not guessed.

        None is that the answer has no place for, and never the last one within the credit line: guessed rows are signed
        when the next row comes, and with that one waiting for a payment, which waits for signatures, none would come.
        """
        request = self._task.request
        return min(request.input_tokens + request.max_tokens, self._purse.credit_end(self._paid_end())) - 1

    async def _report(self, *, prompt_too: bool = False) -> None:
        """Publish a progress over the windows that are whole and whose tokens were delivered."""
        if self._ended and self.book.complete:
            await self._deliver()
        ready = [each for each in self._waiting if self._progress_to(each[0]) <= self.answer.sealed]
        if not ready or (ready[-1][0].end < self._prompt_end and not prompt_too):
            return
        window = ready[-1][0]
        to = self._progress_to(window)
        progress = Progress(job=self.job, to=to, tokens=self.answer.hash_at(to), leaves=self.book.root(window))
        self.progress = self._tools.signer.progress(progress)
        self._delivered_end = window.end
        del self._waiting[: len(ready)]
        if self._publisher is not None:
            await self._publisher.progress(self.progress, [leaf for _, leaves in ready for leaf in leaves])
        else:
            await self._cover()

    def _progress_to(self, window: Window) -> int:
        return progress_to(
            prompt_end=self._prompt_end,
            input_tokens=self._task.request.input_tokens,
            start=self._signed.message.start,
            window_end=window.end,
        )

    async def _cover(self, *, wait: bool = False) -> None:
        """Pay the stages for what the payer paid; a request from the chain is paid in advance."""
        to = len(self.answer.ids) if self._task.quote is None else self._payer.to
        await self._hops.cover(paid_end=self._paid_end(), to=to, payer=self._payer.pay)
        if wait:
            await self._hops.acknowledged()

    def _paid_end(self) -> int:
        return self._purse.paid_end(closed=self.book.end if self.progress else 0)

    def _starved(self) -> bool:
        """Tell whether the next row waits for a payment, and nothing else is under way."""
        return self._ahead.begun and not self._ahead.waits and self._purse.starved(self._ahead.step)
