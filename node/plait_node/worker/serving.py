"""One request from its plan to its last payment: routes are tried until one delivers, then the receipt is signed."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from plait.protocol.checks import closes_at
from plait.protocol.commitments import RunningHash
from plait.protocol.errors import PlaitError
from plait.protocol.ids import Address, Hash, to_hex
from plait.protocol.messages import Finish, Job, Receipt
from plait.protocol.receipts import ABORTED, RECEIPT
from plait.protocol.typed import struct_hash
from plait_node.worker.errors import StageFailure
from plait_node.worker.generation import Generation, Tools

if TYPE_CHECKING:
    from plait.protocol.typed import Signed
    from plait_node.swarm.announcer import Announcer
    from plait_node.worker.admission import Task
    from plait_node.worker.payer import PayerWatch
    from plait_node.worker.plan import Decision, Planner
    from plait_node.worker.publisher import Publisher

_TRIES = 3

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
        first_attempt: int = 1,
    ) -> None:
        """Prepare; without a publisher (the on-chain path) nothing is streamed."""
        self._tools = tools
        self._planner = planner
        self._announcer = announcer
        self._task = task
        self._payer = payer
        self._publisher = publisher
        self._attempt = first_attempt
        self._tried: list[Generation] = []
        self._done: Done | None = None

    async def answer(self) -> Done:
        """Answer the task; raise a `RefusedError`, or `StageFailure` when tokens were delivered or no try is left."""
        excluded: frozenset[Address] = frozenset()
        failure: StageFailure | None = None
        for _ in range(_TRIES):
            decision = await self._decide(excluded, failure)
            try:
                return await self._attempt_over(decision)
            except StageFailure as error:
                self._blame(error)
                if self._tried and self._tried[-1].answer.ids:
                    raise
                failure, excluded = error, excluded | {error.owner}
        if failure is None:  # unreachable: every turn returns, raises or fails
            raise AssertionError
        raise failure

    async def settle(self, *, wait_s: float) -> None:
        """Forward what the payer still pays within `wait_s`, then end the job on every hop."""
        last = self._tried[-1] if self._tried else None
        if last is not None and last.progress is not None and self._task.quote is not None:
            await self._payer.paid_to(last.progress.message.to, deadline_s=wait_s)
        settled: set[Address] = set()
        for generation in reversed(self._tried):
            finished = self._done is not None and generation is last
            kind, leaf = (
                (RECEIPT, self._done.receipt_digest) if finished and self._done else (ABORTED, self._task.digest)
            )
            await generation.settle(kind, leaf, skip=frozenset(settled), latest=generation is last)
            settled |= {stage.node for stage in generation.route}

    async def _decide(self, excluded: frozenset[Address], failure: StageFailure | None) -> Decision:
        profile = self._tried[0].profile if self._tried else None
        try:
            return await self._planner.decide(self._task, excluded=excluded, profile=profile)
        except PlaitError:
            if failure is not None:
                raise failure from None
            raise

    async def _attempt_over(self, decision: Decision) -> Done:
        pool = self._tools.pool
        await asyncio.gather(*(pool.connect(record) for record in decision.route.records))
        signed = self._tools.signer.job(self._draft(decision))
        self._attempt = signed.message.attempt + 1
        await self._deposit(signed)
        if self._publisher is not None:
            await self._publisher.job(signed)
        generation = Generation(
            self._tools,
            task=self._task,
            decision=decision,
            signed=signed,
            publisher=self._publisher,
            payer=self._payer,
        )
        self._tried.append(generation)
        await generation.run()
        self._remember(decision, generation)
        self._done = await self._close(generation, decision, signed)
        return self._done

    def _draft(self, decision: Decision) -> Job:
        request = self._task.request
        return Job(
            request=self._task.digest,
            attempt=self._attempt,
            worker=self._tools.owner,
            route=decision.route.stages(),
            profile=decision.route.profile,
            choice=decision.choice.choice,
            start=0,
            row=0,
            tokens=RunningHash(self._task.content_key, self._task.digest).value,
            closes_at=closes_at(request),
        )

    async def _close(self, generation: Generation, decision: Decision, signed: Signed[Job]) -> Done:
        progress, answer = generation.progress, generation.answer
        if progress is None or answer.finish is None:  # unreachable: a run ends with both
            raise AssertionError
        request, to = self._task.request, progress.message.to
        receipt = self._tools.signer.receipt(
            Receipt(
                request=self._task.digest,
                segments=(struct_hash(progress.message),),
                input_tokens=request.input_tokens,
                output_tokens=to,
                tokens=answer.hash_at(to),
                price=self._task.price(decision.route.profile, to),
                finish=answer.finish,
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
        if generation.answer.finish not in {Finish.FAILED, Finish.CANCELLED}:
            self._planner.learn(self._task, decision, generation.ran())

    def _blame(self, failure: StageFailure) -> None:
        now = self._tools.clock()
        for owner in (failure.owner, failure.accuser):
            if owner is not None:
                self._planner.blames.add(owner, now=now)
        _log.warning("stage failed node=%s reason=%s", to_hex(failure.owner), failure.reason)
