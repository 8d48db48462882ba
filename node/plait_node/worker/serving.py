"""One request from its plan to its last payment: routes are tried until one delivers, then the receipt is signed."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from plait.protocol.checks import closes_at
from plait.protocol.errors import PlaitError
from plait.protocol.ids import Address, Hash, to_hex
from plait.protocol.messages import Finish, Job, Receipt
from plait.protocol.receipts import ABORTED, RECEIPT
from plait.protocol.windows import WINDOW_STEPS
from plait_node.worker.errors import StageFailure, TakenOverError, UnpaidError
from plait_node.worker.generation import Generation
from plait_node.worker.told import Told

if TYPE_CHECKING:
    from plait.protocol.typed import Signed
    from plait_node.swarm.announcer import Announcer
    from plait_node.worker.admission import Task
    from plait_node.worker.past import Past
    from plait_node.worker.payer import PayerWatch
    from plait_node.worker.plan import Decision, Planner
    from plait_node.worker.publisher import Publisher
    from plait_node.worker.tools import Tools

_TRIES = 8
_AGAIN_S = 1.0  # until a stage that was lost is asked again, once, where nobody else serves its blocks

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """An answered task."""

    ids: tuple[int, ...]
    receipt: Signed[Receipt]
    receipt_digest: Hash
    job: Signed[Job]
    decision: Decision
    reused_windows: int


class Serving:
    """Serves one task."""

    def __init__(
        self,
        tools: Tools,
        *,
        planner: Planner,
        announcer: Announcer,
        task: Task,
        payer: PayerWatch,
        publisher: Publisher | None,
        past: Past | None = None,
    ) -> None:
        """Prepare to go on behind the `past`; without a publisher (the on-chain path) nothing is streamed."""
        self._tools = tools
        self._planner = planner
        self._announcer = announcer
        self._task = task
        self._payer = payer
        self._publisher = publisher
        self._past = past
        self._attempt = past.attempt + 1 if past else 1
        self._told = past.told() if past else Told()
        self._tried: list[Generation] = []
        self._held: Generation | None = None  # whose work the stages still hold
        self._excluded: frozenset[Address] = frozenset()
        self._asked_again: set[Address] = set()
        self._tries_left = _TRIES
        self._done: Done | None = None
        payer.signed_to = self._signed_to

    async def answer(self) -> Done:
        """Answer the task; raise a `RefusedError`, or `StageFailure` when no try is left."""
        decision = await self._decide(None)
        for self._tries_left in reversed(range(_TRIES)):
            try:
                return await self._attempt_over(decision)
            except StageFailure as error:
                self._blame(error)
                self._excluded |= {error.owner}
                decision = await self._after(error, last_try=not self._tries_left)
        raise AssertionError  # unreachable: the last turn returns or raises

    async def settle(self, *, wait_s: float) -> None:
        """Forward what the payer still pays within `wait_s`, then end the job on every hop."""
        last = self._tried[-1] if self._tried else None
        if last is not None and self._told.to and self._task.quote is not None:
            await self._payer.paid_to(self._told.to, deadline_s=wait_s)
        settled: set[Address] = set()
        for generation in reversed(self._tried):
            done = self._done if generation.progress is not None else None
            kind, leaf = (RECEIPT, done.receipt_digest) if done is not None else (ABORTED, self._task.digest)
            await generation.settle(kind, leaf, skip=frozenset(settled), latest=generation is last)
            settled |= {stage.node for stage in generation.route}

    async def _after(self, failure: StageFailure, *, last_try: bool) -> Decision:
        """Return how to go on: over the same stages with the lost one replaced if that can be, else over any.

        Raise the failure after the last try, once all is delivered that can be.
        """
        last = self._held
        mended = await self._mended(last) if last is not None and not last_try else None
        if last is not None:
            await self._abandon(last, mended=mended is not None)
        if mended is not None and self._told.row:
            return mended
        self._told.row = 0
        self._told.lacking = frozenset()
        if last is not None:
            self._held = None
            await last.cancel()
        if last_try:
            raise failure
        return await self._decide(failure)

    async def _mended(self, last: Generation) -> Decision | None:
        lost = self._excluded & {stage.node for stage in last.route}
        lacking = self._told.lacking | last.lacking
        if any(before.node in lacking - lost and after.node in lost for before, after in pairwise(last.route)):
            return None  # what the stage before gave out in windows from its cache is gone: nobody could send it again
        return await self._planner.mend(self._task, last.decision, lost=lost, excluded=self._excluded)

    async def _abandon(self, last: Generation, *, mended: bool) -> None:
        """Deliver what an attempt drew, once, and count what of it is signed."""
        if not last.abandoned:
            self._told.row = await last.abandon(mended=mended)
            self._told.add(last)

    async def _decide(self, failure: StageFailure | None) -> Decision:
        """Return route and methods for what is not delivered; raise the `failure` where there is no other route.

        A link is lost as well when we stood still ourselves, to all stages at once: where nobody else serves a stage's
        blocks, it is asked once more.
        """
        try:
            return await self._plan()
        except PlaitError:
            if failure is None:
                raise
            if not failure.unheard or failure.owner in self._asked_again:
                raise failure from None
        self._asked_again.add(failure.owner)
        self._excluded -= {failure.owner}
        await asyncio.sleep(_AGAIN_S)
        try:
            return await self._plan()
        except PlaitError:
            raise failure from None

    async def _plan(self) -> Decision:
        profile = self._tried[0].profile if self._tried else self._past.profile if self._past else None
        return await self._planner.decide(
            self._task, excluded=self._excluded, profile=profile, delivered=self._told.ids
        )

    async def _attempt_over(self, decision: Decision) -> Done:
        pool = self._tools.pool
        await asyncio.gather(*(pool.connect(record) for record in decision.route.records))
        signed = await self._announce(decision)
        self._payer.begin(unpaid=self._told.unpaid, others=self._told.others)
        generation = Generation(
            self._tools,
            task=self._task,
            decision=decision,
            signed=signed,
            publisher=self._publisher,
            payer=self._payer,
            told=self._told,
            avoidable=self._avoidable,
        )
        self._tried.append(generation)
        self._held = generation
        if generation.answer.finish is None:
            await self._wait_for_prompt_pay()
            await generation.run()
        self._told.add(generation)
        self._remember(decision, generation)
        self._done = await self._close(generation, decision, signed)
        return self._done

    async def _avoidable(self, owner: Address) -> bool:
        """Tell whether there are tries left, and a route without this stage."""
        profile = self._tried[0].profile
        without = self._excluded | {owner}
        # The last try is kept for a stage that is lost.
        return self._tries_left > 1 and await self._planner.passable(self._task, profile=profile, excluded=without)

    async def _wait_for_prompt_pay(self) -> None:
        """Let a prompt beyond the credit line wait until its gateway has paid for it; raise `UnpaidError`."""
        patience = self._tools.patience
        if self._task.request.input_tokens <= WINDOW_STEPS * patience.credit_windows:
            return
        if not await self._payer.prompt_paid(deadline_s=patience.pay_s):
            raise UnpaidError("the gateway did not pay for the prompt in time; ask another one")

    def _signed_to(self) -> int:
        return max((each.progress.message.to for each in self._tried if each.progress), default=0)

    async def _announce(self, decision: Decision) -> Signed[Job]:
        """Publish a job record that begins where everything ends that was delivered, whoever delivered it."""
        for _ in range(_TRIES):
            signed = self._tools.signer.job(self._draft(decision))
            self._attempt = signed.message.attempt + 1
            await self._deposit(signed)
            if self._publisher is not None:
                await self._publisher.job(signed)
            if self._past is None or await self._past.accepts(signed.struct_hash()):
                self._past = None
                return signed
            self._told = self._past.told()
        raise TakenOverError("another worker answers this request")

    def _draft(self, decision: Decision) -> Job:
        request = self._task.request
        return Job(
            request=self._task.digest,
            attempt=self._attempt,
            worker=self._tools.owner,
            route=decision.route.stages(),
            profile=decision.route.profile,
            choice=decision.choice.choice,
            start=len(self._told.ids),
            row=self._told.row,
            tokens=self._told.hash(self._task),
            closes_at=closes_at(request),
        )

    async def _close(self, generation: Generation, decision: Decision, signed: Signed[Job]) -> Done:
        answer, told, request = generation.answer, self._told, self._task.request
        if answer.finish is None:  # unreachable: a run ends with it
            raise AssertionError
        covered = told.to == len(told.ids)
        receipt = self._tools.signer.receipt(
            Receipt(
                request=self._task.digest,
                segments=told.segments,
                input_tokens=request.input_tokens,
                output_tokens=told.to,
                tokens=answer.hash_at(told.to),
                price=self._task.price(decision.route.profile, told.paid),
                finish=answer.finish if covered else Finish.FAILED,
                finished_at=int(self._tools.clock()),
                closes_at=closes_at(request),
            )
        )
        if self._publisher is not None:
            await self._publisher.chunk(generation.job, answer.seal_note(decision.choice))
        # The gateway looks the receipt up before it delivers the last chunk: first the table, then the stream.
        await self._deposit(receipt)
        if self._publisher is not None:
            await self._publisher.receipt(receipt)
        return Done(
            ids=tuple(answer.ids),
            receipt=receipt,
            receipt_digest=receipt.digest(self._tools.domain),
            job=signed,
            decision=decision,
            reused_windows=generation.reused_windows,
        )

    async def _deposit(self, signed: Signed[Job] | Signed[Receipt]) -> None:
        try:
            await self._announcer.deposit(signed)
        except Exception as error:  # noqa: BLE001  a table out of reach must not cost the payer the answer
            _log.warning("deposit failed request=%s error=%s", to_hex(self._task.digest), error)

    def _remember(self, decision: Decision, generation: Generation) -> None:
        memory, payer = self._planner.prefixes, self._task.request.payer
        if decision.reuses_prefix and generation.reused_windows < len(decision.lineage):
            memory.forget(payer, decision.route, decision.lineage[generation.reused_windows :])
        if generation.answer.finish != Finish.FAILED:
            memory.remember(payer, decision.route, decision.lineage)
        if generation.answer.finish not in {Finish.FAILED, Finish.CANCELLED} and len(self._tried) == 1:
            self._planner.learn(self._task, decision, generation.ran())

    def _blame(self, failure: StageFailure) -> None:
        self._planner.blame(failure.owner, failed=True)
        if failure.accuser is not None:
            self._planner.blame(failure.accuser, failed=False)
        _log.warning("stage failed node=%s reason=%s", to_hex(failure.owner), failure.reason)
