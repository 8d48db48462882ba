"""Drive one attempt: open, prefill, decode token by token, gather leaves, pay, and close every window."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from plait.protocol.checks import NodeDirectory
from plait.protocol.codec import fault_from_pb, signed_from_pb
from plait.protocol.errors import MalformedMessageError, StaleVoucherError
from plait.protocol.ids import Address, Hash, to_hex
from plait.protocol.messages import Finish, Leaf, Progress, Stage
from plait.protocol.pb import stage_pb2
from plait.protocol.typed import struct_hash
from plait.protocol.windows import WINDOW_STEPS, Cut, Window, progress_to
from plait_node.selector import Ran
from plait_node.selector.tasks import overlap
from plait_node.wire import WireError
from plait_node.worker.ahead import MOST_AHEAD, Ahead, Proposers
from plait_node.worker.answer import Answer, Decodes
from plait_node.worker.errors import StageFailure
from plait_node.worker.hops import HopDesk, HopPay
from plait_node.worker.leaves import LeafBook, blocks_of
from plait_node.worker.links import Arrived, Event, Inbox, LinkPool, Lost, PayerSpoke
from plait_node.worker.opening import open_frame, reused_row, rows_frames, step_frames
from plait_node.worker.pace import Pace

if TYPE_CHECKING:
    from plait.protocol.manifest import Manifest
    from plait.protocol.messages import Job
    from plait.protocol.typed import Domain, Signed
    from plait_node.worker.admission import Task
    from plait_node.worker.payer import PayerWatch
    from plait_node.worker.plan import Decision
    from plait_node.worker.publisher import Publisher
    from plait_node.worker.signer import WorkerSigner

_TICK_S = 0.25
_LEARN_S = 0.3  # a stage that is accused by its neighbour is given this long to be seen gone by ourselves

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a job waits, in seconds, and how far it goes unpaid."""

    open_s: float = 10.0
    first_token_s: float = 60.0
    step_s: float = 20.0
    pay_s: float = 20.0
    deadline_s: float = 2.0  # work ends this long before the request's deadline
    credit_windows: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What all jobs of a worker share."""

    owner: Address
    domain: Domain
    directory: NodeDirectory
    pool: LinkPool
    desk: HopDesk
    signer: WorkerSigner
    manifest: Manifest
    tokenizer: Decodes
    clock: Callable[[], float]
    patience: Patience = field(default_factory=Patience)
    proposers: Proposers = lambda _: None


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
    ) -> None:
        """Prepare; without a publisher (the on-chain path) nothing is streamed."""
        job, request = signed.message, task.request
        self._tools = tools
        self._task = task
        self._decision = decision
        self._signed = signed
        self._publisher, self._payer = publisher, payer
        self._job, self._route = struct_hash(job), job.route
        self._prompt_end = request.input_tokens + job.start
        self._inbox = Inbox(job=self._job, owners=frozenset(stage.node for stage in self._route))
        self.answer = Answer(task, job=self._job, manifest=tools.manifest, tokenizer=tools.tokenizer)
        self.book = LeafBook(
            domain=tools.domain,
            directory=tools.directory,
            request=request,
            job=self._job,
            route=job.route,
            cut=Cut(prompt_end=self._prompt_end),
            salt_rows=task.content_key.salt("rows"),
            token_at=self.answer.token_at,
        )
        self._ahead = Ahead.of(decision, tools.proposers, vocabulary=tools.manifest.vocabulary, ids=task.ids)
        self._hops = HopPay(tools.desk, request=task.digest, route=job.route, own=tools.owner)
        self.progress: Signed[Progress] | None = None
        self.reused_windows = 0
        self._opened: dict[Address, tuple[Hash, ...]] = {}
        self._waiting: list[tuple[Window, list[Signed[Leaf]]]] = []  # whole, not in a progress yet
        self._fed = self._delivered_end = 0  # the first steps that were not sent, and that no progress covers
        self._ended = False
        self._since = asyncio.get_running_loop().time()
        self._pace = Pace(self._since)

    @property
    def job(self) -> Hash:
        """Return the job record's struct hash."""
        return self._job

    @property
    def profile(self) -> Hash:
        """Return the profile of this attempt."""
        return self._signed.message.profile

    @property
    def route(self) -> tuple[Stage, ...]:
        """Return the stages of this attempt."""
        return self._route

    def ran(self) -> Ran:
        """Return how an attempt went that has run to its end."""
        ids = self.answer.ids
        return Ran(
            seconds=self._pace.seconds,
            ttft_s=self._pace.first_s,
            tokens=len(ids),
            reused_tokens=reused_row(self.reused_windows),
            accepted=self._ahead.accepted,
            overlap=overlap(self._task.ids, ids),
        )

    async def settle(self, kind: int, leaf: Hash, *, skip: frozenset[Address], latest: bool) -> None:
        """Pay for what the payer paid last, and end the job on the hops of all stages but those in `skip`."""
        end = self._delivered_end
        windows = [window for window in self.book.windows if window.end <= end]
        if latest:
            with contextlib.suppress(StageFailure):  # who cannot be reached is paid with the next link
                await self._cover()
        await self._hops.settle(kind, leaf, windows, payer=self._payer.pay, skip=skip)

    async def run(self) -> None:
        """Generate until the last window is whole; raise `StageFailure` blaming a stage that fails."""
        pool = self._tools.pool
        self._payer.tell(lambda: self._inbox.offer(PayerSpoke()))
        pool.subscribe(self._inbox)
        try:
            row = await self._open()
            await self._cover(wait=True)
            await self._begin(row)
            while not (self._ended and self.book.complete and not self._waiting):
                await self._take(await self._next(self._limit_s()))
                await self._advance()
        except BaseException:
            await self._cancel()
            raise
        finally:
            pool.unsubscribe(self._inbox)

    async def _open(self) -> int:
        """Open the job on all stages; return the step where rows begin."""
        keys: Sequence[Hash] = self._decision.lineage if self._decision.reuses_prefix else ()
        windows = len(keys)
        for index, stage in enumerate(self._route):
            frame = open_frame(
                self._task, self._decision, self._signed, index=index, lineage=keys[:windows], pay=self._payer.pay
            )
            await self._send(index, frame)
            if windows:
                # Each stage's cached outputs name the next stage's cached inputs, so they are asked in order.
                keys = await self._await_opened(stage.node)
                windows = min(windows, len(keys))
        for stage in self._route:
            await self._await_opened(stage.node)
        self.reused_windows = windows
        return reused_row(windows)

    async def _await_opened(self, owner: Address) -> tuple[Hash, ...]:
        try:
            async with asyncio.timeout(self._tools.patience.open_s):
                while owner not in self._opened:
                    await self._take(await self._inbox.events.get())
        except TimeoutError:
            raise self._failure(owner, f"it did not open the job within {self._tools.patience.open_s:g} s") from None
        return self._opened[owner]

    async def _begin(self, row: int) -> None:
        for index in range(len(self._route)):
            await self._send(index, stage_pb2.Frame(start=stage_pb2.Start(job=self._job, row=row)))
        for frame in rows_frames(self._job, self._task.ids[row:], step=row, chunk=self._decision.chunk):
            await self._send(0, frame)
        self._fed = self._prompt_end
        self._since = asyncio.get_running_loop().time()

    async def _next(self, limit_s: float) -> Event | None:
        """Return the next event, None after a tick; raise when nothing moves for `limit_s`."""
        try:
            event = await asyncio.wait_for(self._inbox.events.get(), _TICK_S)
        except TimeoutError:
            self._hops.check_overdue()
            if asyncio.get_running_loop().time() - self._since > limit_s:
                await self._stalled(limit_s)
            return None
        self._since = asyncio.get_running_loop().time()
        return event

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
        stage = self._route[self.book.laggard()]
        raise self._failure(stage.node, f"nothing came from it for {limit_s:g} s")

    async def _take(self, event: Event | None) -> None:
        if isinstance(event, Lost):
            raise self._failure(event.owner, f"the link to it ended: {event.reason}")
        if not isinstance(event, Arrived):
            return
        try:
            await self._take_frame(event.owner, event.frame)
        except MalformedMessageError as error:
            await self._tools.pool.accuse(event.owner, error.text)
            raise self._failure(event.owner, error.text) from error

    async def _take_frame(self, owner: Address, frame: stage_pb2.Frame) -> None:
        match frame.WhichOneof("body"):
            case "opened":
                if any(len(key) != 32 for key in frame.opened.lineage):
                    raise MalformedMessageError("a lineage key has 32 bytes")
                self._opened[owner] = tuple(Hash(key) for key in frame.opened.lineage)
            case "tokens":
                await self._take_token(owner, frame.tokens)
            case "leaf":
                self._waiting += await self.book.add(owner, signed_from_pb(frame.leaf.leaf, Leaf))
            case _:
                raise await self._fault(owner, frame.fault)

    async def _take_token(self, owner: Address, tokens: stage_pb2.Tokens) -> None:
        expected = self._fed - 1
        if owner != self._route[-1].node or tokens.step != expected or not self._fed:
            raise MalformedMessageError(f"a token of step {tokens.step} came where step {expected} of the tail is next")
        if self._has_token():
            raise MalformedMessageError(f"a second token came for step {expected}")
        self._ahead.check(tokens.ids)
        self._pace.token(asyncio.get_running_loop().time())
        for token in tokens.ids:
            self.answer.take(token)
            self._ahead.take(token)
            if self.answer.finish is not None:
                break
        self._fed = self._task.request.input_tokens + len(self.answer.ids) - 1  # all rows before the newest id's
        await self._feed()  # the stages work on while the token is sealed and published
        chunk = self.answer.seal_new()
        if chunk is not None and self._publisher is not None:
            await self._publisher.chunk(self._job, chunk)

    async def _fault(self, owner: Address, received: stage_pb2.JobFault) -> StageFailure:
        fault = fault_from_pb(received.fault)
        if fault.code == StaleVoucherError.code:
            self._tools.desk.resend_all(owner)
        blamed = Address(received.blamed)
        accused = next((stage.node for stage in self._route if stage.node == blamed), None)
        if accused is None or accused == owner:
            return self._failure(owner, f"{fault.text} ({fault.code})")
        await asyncio.sleep(_LEARN_S)
        if not self._tools.pool.alive(accused):
            return self._failure(accused, fault.text)
        # Two strangers say different things of each other: neither is believed, both are avoided for a while.
        return self._failure(accused, f"{to_hex(owner)} says: {fault.text}", accuser=owner)

    async def _advance(self) -> None:
        await self._cover()
        await self._feed()
        if self.answer.finish is not None and not self._ended:
            self._ended = True
            self.book.last_step = self.answer.end
            for index in range(len(self._route)):
                await self._send(index, stage_pb2.Frame(end=stage_pb2.End(job=self._job, step=self.answer.end)))
        await self._report()

    async def _feed(self) -> None:
        """Send the newest id to the first stage, if the answer goes on and the payer's credit reaches that far."""
        if self.answer.finish is not None or not self._has_token():
            return
        if self._payer.cancelled:
            self.answer.finish = Finish.CANCELLED
        elif self._tools.clock() > self._task.request.deadline - self._tools.patience.deadline_s:
            self.answer.finish = Finish.FAILED
        starved = self._starved()
        self._pace.wait(asyncio.get_running_loop().time(), starved=starved)
        if self.answer.finish is not None or starved:
            return
        draft = self._ahead.propose(self._room_ahead())
        rows, note = step_frames(self._job, self.answer.ids[-1], draft, step=self._fed)
        self._fed += 1
        if note is not None:
            await self._send(len(self._route) - 1, note)
        await self._send(0, rows)

    def _room_ahead(self) -> int:
        """Return how many rows may be guessed behind the next one.

        None that the answer has no place for, and never the last one within the credit line: guessed rows are signed
        when the next row comes, and with that one waiting for a payment, which waits for signatures, none would come.
        """
        left = self._task.request.max_tokens - len(self.answer.ids) - 1
        return max(0, min(MOST_AHEAD, left, self._credit_end() - 2 - self._fed))

    async def _report(self) -> None:
        """Publish a progress over the windows that are whole and whose tokens were delivered."""
        ready = [each for each in self._waiting if self._progress_to(each[0]) <= len(self.answer.ids)]
        if not ready or ready[-1][0].end < self._prompt_end:
            return
        window = ready[-1][0]
        to = self._progress_to(window)
        progress = Progress(job=self._job, to=to, tokens=self.answer.hash_at(to), leaves=self.book.root(window))
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
        """Return the first step that is not paid for: by the payer, or out of the fee on the chain."""
        if self._task.quote is None:
            return max(self._prompt_end, self.book.end) if self.progress else self._prompt_end
        return max(self._prompt_end, self._task.request.input_tokens + self._payer.to - 1)

    def _credit_end(self) -> int:
        """Return the first step beyond what is paid and the credit line."""
        return self._paid_end() + WINDOW_STEPS * self._tools.patience.credit_windows

    def _starved(self) -> bool:
        """Tell whether the next row waits for a payment."""
        if self._task.quote is None or self._fed < self._prompt_end:
            return False
        return self._fed >= self._credit_end()

    def _has_token(self) -> bool:
        """Tell whether the token of the last row sent has come."""
        return self._fed > 0 and self._task.request.input_tokens + len(self.answer.ids) > self._fed

    async def _send(self, index: int, frame: stage_pb2.Frame) -> None:
        stage = self._route[index]
        try:
            await self._tools.pool.send(stage.node, frame)
        except WireError as error:
            raise self._failure(stage.node, error.text) from error

    async def _cancel(self) -> None:
        for stage in self._route:
            with contextlib.suppress(WireError):
                await self._tools.pool.send(stage.node, stage_pb2.Frame(cancel=stage_pb2.CancelJob(job=self._job)))

    def _failure(self, owner: Address, reason: str, *, accuser: Address | None = None) -> StageFailure:
        blocks = next((blocks_of(stage) for stage in self._route if stage.node == owner), "?")
        return StageFailure(owner, blocks, reason, accuser=accuser)
