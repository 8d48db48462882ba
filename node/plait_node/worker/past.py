"""What a request's earlier workers delivered, read and checked as its payer does, from the result stream.

A worker that takes over a job goes on behind it. The stream's order is the only truth: tokens of the one before may
still come after we looked, so the job record that we publish counts only if the stream shows nothing between.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from plait.protocol.codec import signed_from_pb
from plait.protocol.ids import Address, Hash
from plait.protocol.messages import Job, Leaf, Progress, Receipt
from plait.protocol.typed import struct_hash
from plait.protocol.verify import AnswerVerifier
from plait.protocol.windows import progress_to
from plait_node.worker.hops import Owed
from plait_node.worker.told import Told

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from plait.protocol.typed import Signed
    from plait_node.broker import Broker, Result
    from plait_node.worker.admission import Task
    from plait_node.worker.tools import Tools

__all__ = ["Past"]

_QUIET_S = 0.5  # there is no end of the stream to see: what was published before we looked came within this time
_NOBODY = bytes(20)  # in whose name the broker tells that a job was given up


class Past:
    """Follows the results of one request up to now."""

    def __init__(self, broker: Broker, task: Task, tools: Tools) -> None:
        """Begin before the first event; a task without a quote has no stream."""
        if task.quote is None:
            raise ValueError("a request from the chain has no result stream")
        self._broker = broker
        self._task = task
        self._owner = tools.owner
        self._sequence = 0
        self._workers = {worker.node for worker in task.quote.message.workers}
        self._verifier = AnswerVerifier(
            domain=tools.domain,
            directory=tools.directory,
            content_key=task.content_key,
            quote=task.quote.message,
            request=task.request,
            prompt_ids=task.ids,
            stop=task.stop,
            manifest=tools.manifest,
            tokenizer=tools.tokenizer,
        )
        self.attempt = 0  # the highest that was published
        self.ended = False  # by a receipt or an error: nothing is left to do

    @property
    def profile(self) -> Hash | None:
        """Return the profile that every attempt keeps; None before the first."""
        job = self._verifier.job
        return job.profile if job is not None else None

    def told(self) -> Told:
        """Return what was delivered and signed."""
        verifier = self._verifier
        return Told(
            ids=verifier.ids,
            segments=verifier.segments,
            paid=verifier.paid_output,
            to=verifier.verified,
            owed=self._owed(),
            others=self._others(),
        )

    def _owed(self) -> dict[Address, Owed]:
        """Return what we owe the stages of our own attempts, from before a restart."""
        owed: dict[Address, Owed] = {}
        for job, end, windows in self._verifier.closed:
            for stage in job.route if job.worker == self._owner else ():
                before = owed.get(stage.node, Owed())
                steps = before.steps + end - job.row
                owed[stage.node] = Owed(steps=steps, windows=before.windows + windows)
        return owed

    def _others(self) -> int:
        """Return what of the price so far is the work of other owners."""
        request = self._task.request
        others = output = before = 0
        for job, end, _ in self._verifier.closed:
            prompt_end = request.input_tokens + job.start
            to = progress_to(prompt_end=prompt_end, input_tokens=request.input_tokens, start=job.start, window_end=end)
            output += to - job.start
            price = self._task.price(job.profile, output)
            others += price - before if job.worker != self._owner else 0
            before = price
        return others

    async def read(self) -> None:
        """Read what there is; raise `VerificationError` for what no payer would accept."""
        await self._read(until=None)

    async def accepts(self, job: Hash) -> bool:
        """Read up to a job record of ours; tell whether it begins where the stream then ends."""
        await self._read(until=job)
        current = self._verifier.job
        return current is not None and struct_hash(current) == job

    async def _read(self, *, until: Hash | None) -> None:
        results = self._broker.results(self._task.gateway, self._task.digest, after=self._sequence)
        try:
            while (result := await _next(results)) is not None:
                self._sequence = result.sequence
                await self._take(result)
                if until is not None and _job_of(result) == until:
                    return
        finally:
            await results.aclose()  # type: ignore[attr-defined]

    async def _take(self, result: Result) -> None:
        verifier, event = self._verifier, result.event
        kind = event.WhichOneof("body")
        ours = verifier.job is not None and verifier.job.worker == result.worker
        if kind == "job":
            await self._take_job(Address(result.worker), signed_from_pb(event.job, Job))
        elif kind == "error":
            known = ours if verifier.job is not None else result.worker in self._workers
            self.ended |= known or result.worker == _NOBODY
        elif not ours or verifier.job is None:
            return  # what no accepted attempt published, the gateway drops as well
        elif kind == "chunk" and event.chunk.job == struct_hash(verifier.job):
            verifier.accept_chunk(Hash(event.chunk.job), event.chunk.sealed)
        elif kind == "progress":
            progress = signed_from_pb(event.progress.progress, Progress)
            if progress.message.job == struct_hash(verifier.job):
                leaves = [signed_from_pb(leaf, Leaf) for leaf in event.progress.leaves]
                await verifier.accept_progress(progress, leaves)
        elif kind == "receipt":
            await verifier.accept_receipt(signed_from_pb(event.receipt, Receipt))
            self.ended = True

    async def _take_job(self, worker: Address, signed: Signed[Job]) -> None:
        job = signed.message
        if job.worker != worker or worker not in self._workers:
            return
        self.attempt = max(self.attempt, job.attempt)
        before = self._verifier.job
        if before is not None and job.attempt <= before.attempt:
            return
        if job.start < len(self._verifier.ids) and (before is None or before.worker != worker):
            return  # it missed some, and will come again
        await self._verifier.accept_job(signed)


async def _next(results: AsyncIterator[Result]) -> Result | None:
    try:
        async with asyncio.timeout(_QUIET_S):
            return await anext(results)
    except TimeoutError:
        return None


def _job_of(result: Result) -> Hash | None:
    if result.event.WhichOneof("body") != "job":
        return None
    return signed_from_pb(result.event.job, Job).struct_hash()
