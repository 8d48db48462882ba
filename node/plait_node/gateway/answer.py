"""One request's stream as the gateway judges it: fenced by attempt, checked against chain and DHT, its end held back.

A pure order of events in gives the same order out, so a gateway that restarts reads the stream again and stands where
it stood. What the gateway cannot see (it holds no content key) the SDK checks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Container
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from plait.protocol import checks, codec
from plait.protocol.checks import check_job, check_signer
from plait.protocol.errors import (
    BusyError,
    PlaitError,
    ProtocolError,
    RefusedError,
    VerificationError,
    error_from_fault,
)
from plait.protocol.ids import Address, Hash, to_hex
from plait.protocol.messages import Finish, Job, Leaf, Progress, Quote, Receipt, Request
from plait.protocol.pb import gateway_pb2
from plait.protocol.sealing import MAX_CHUNK_IDS, MAX_NOTE_BYTES
from plait.protocol.typed import Signed, struct_hash
from plait_node.broker import Result
from plait_node.broker.subjects import NOBODY
from plait_node.gateway.errors import WithheldError
from plait_node.gateway.faces import Found, Outside
from plait_node.gateway.parts import Part, parts_of
from plait_node.gateway.windows import Attempt

Kind = Literal["job", "chunk", "progress", "receipt", "error"]

# ChaCha20-Poly1305's tag and the byte that tells ids from the note.
_SEAL_BYTES = 17
_LEAST_CHUNK = _SEAL_BYTES + 4
_MOST_IDS_CHUNK = _SEAL_BYTES + 4 * MAX_CHUNK_IDS
_MOST_CHUNK = _SEAL_BYTES + MAX_NOTE_BYTES
_RETRY_S = 0.1

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event for the payer; `data` is a serialised ResultEvent."""

    sequence: int
    kind: Kind
    data: bytes


class Answer:
    """Takes the broker's results of one request in order, gives the events to deliver."""

    def __init__(
        self,
        outside: Outside,
        quote: Quote,
        request: Request,
        *,
        name: Hash,
        blocks: int,
        proven: Container[int] = (),
        on_proven: Callable[[int], None] = lambda _: None,
        on_drop: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`proven` holds the sequences of jobs and receipts that the DHT confirmed before a restart."""
        self._outside, self._quote, self._request = outside, quote, request
        self._name, self._blocks = name, blocks
        self._proven, self._on_proven, self._on_drop = proven, on_proven, on_drop
        self._attempts: list[Attempt] = []
        self._held: list[Event] = []
        self._delivered = 0  # tokens in the chunks of accepted attempts
        self._seen = 0
        self.receipt: Signed[Receipt] | None = None
        self.fault: RefusedError | None = None  # what the worker itself said went wrong

    @property
    def worker(self) -> Address | None:
        """Return the worker of the accepted attempt."""
        return self._attempts[-1].job.worker if self._attempts else None

    @property
    def windows(self) -> int:
        """Return how many windows have passed, over all attempts."""
        return sum(attempt.windows for attempt in self._attempts if attempt.progress)

    def price(self) -> int:
        """Return what all that passed costs, in base units."""
        return sum(part.amount for part in self.parts())

    def parts(self) -> tuple[Part, ...]:
        """Return what of it is which attempt's."""
        return parts_of(self._quote, self._request, self._attempts)

    async def take(self, result: Result) -> list[Event]:
        """Judge the next result; raise `RefusedError` where the answer ends without its end."""
        self._seen += 1
        if self._seen > 8 * self._request.max_tokens + 1_000:
            raise WithheldError("the worker sent more events than an answer of this length has; ask again")
        kind = result.event.WhichOneof("body")
        try:
            match kind:
                case "job":
                    return await self._take_job(result)
                case "chunk":
                    return self._take_chunk(result)
                case "progress":
                    return await self._take_progress(result)
                case "receipt":
                    return await self._take_receipt(result)
                case "error":
                    return self._take_error(result)
                case _:
                    return self._drop("empty")
        except ProtocolError:
            return self._drop("malformed")
        except VerificationError as error:
            raise WithheldError(
                f"the worker's {kind} failed the gateway's check ({error.text}); nothing after it is delivered or owed"
            ) from error

    async def _take_job(self, result: Result) -> list[Event]:
        signed = codec.signed_from_pb(result.event.job, Job)
        job = signed.message
        if result.worker != job.worker or all(worker.node != job.worker for worker in self._quote.workers):
            return self._drop("stranger")
        if self._attempts and job.attempt <= self._attempts[-1].job.attempt:
            return self._drop("old_attempt")
        check_job(self._quote, self._request, job, request_digest=self._name, blocks=self._blocks)
        if self._missed_some(job):
            return self._drop("behind")
        self._check_start(job)
        if result.sequence not in self._proven:
            await self._check_chain(signed)
            await self._deposited("job", signed, job.worker, self._outside.lookup.job)
            self._on_proven(result.sequence)
        events = [*self._release(), _event(result, "job")]
        self._attempts.append(Attempt(signed, self._request))
        return events

    def _take_chunk(self, result: Result) -> list[Event]:
        attempt = self._current(result, result.event.chunk.job)
        if attempt is None:
            return self._drop("old_attempt")
        size = len(result.event.chunk.sealed)
        if not _LEAST_CHUNK <= size <= _MOST_CHUNK:
            raise VerificationError("chunk", f"{size} bytes are no chunk")
        event = _event(result, "chunk")
        if attempt.surely_over:
            if any(held.kind == "chunk" and held.sequence > self._closed_at() for held in self._held):
                raise VerificationError("chunk", "more than a note follows the last progress")
            self._held.append(event)
            return []
        events = self._release()
        self._held.append(event)
        if size <= _MOST_IDS_CHUNK:
            self._delivered += (size - _SEAL_BYTES) // 4
        return events

    async def _take_progress(self, result: Result) -> list[Event]:
        received = result.event.progress
        progress = codec.signed_from_pb(received.progress, Progress)
        attempt = self._current(result, progress.message.job)
        if attempt is None:
            return self._drop("old_attempt")
        leaves = [codec.signed_from_pb(leaf, Leaf) for leaf in received.leaves]
        await self._patiently(
            lambda: attempt.accept(progress, leaves, domain=self._outside.domain, directory=self._outside.directory)
        )
        event = _event(result, "progress")
        if attempt.surely_over:
            self._held.append(event)
            return []
        return [*self._release(), event]

    async def _take_receipt(self, result: Result) -> list[Event]:
        signed = codec.signed_from_pb(result.event.receipt, Receipt)
        if not self._attempts or result.worker != self._attempts[-1].job.worker:
            return self._drop("stranger")
        self._check_receipt(signed.message)
        if result.sequence not in self._proven:
            worker = self._attempts[-1].job.worker
            await self._signed_by(signed, worker, "receipt")
            await self._deposited("receipt", signed, worker, self._outside.lookup.receipt)
            self._on_proven(result.sequence)
        self.receipt = signed
        return [*self._release(), _event(result, "receipt")]

    def _take_error(self, result: Result) -> list[Event]:
        ours = self._attempts[-1].job.worker if self._attempts else None
        quoted = {worker.node for worker in self._quote.workers}
        if result.worker != NOBODY and (result.worker != ours if ours else result.worker not in quoted):
            return self._drop("stranger")
        self.fault = error_from_fault(codec.fault_from_pb(result.event.error))
        return self._release()

    def _current(self, result: Result, job: bytes) -> Attempt | None:
        if not self._attempts:
            return None
        attempt = self._attempts[-1]
        return attempt if (attempt.struct_hash, attempt.job.worker) == (job, result.worker) else None

    def _missed_some(self, job: Job) -> bool:
        """Tell whether another worker published tokens after this one looked: it will see that and come again."""
        return self.worker not in (None, job.worker) and job.start < self._relayed

    @property
    def _relayed(self) -> int:
        """Return how many tokens were relayed."""
        before = self._attempts[-1] if self._attempts else None
        over = before is not None and before.surely_over
        return before.progress.message.to if over and before and before.progress else self._delivered

    def _check_start(self, job: Job) -> None:
        before = self._attempts[-1] if self._attempts else None
        if before is not None and job.profile != before.job.profile:
            raise VerificationError("job", "a later attempt keeps the first one's profile")
        if job.start != self._relayed:
            raise VerificationError("job", f"it starts at token {job.start}, {self._relayed} were delivered")
        if job.row and (before is None or before.job.worker != job.worker or before.end != job.row):
            raise VerificationError("job", "it goes on behind other windows than those its worker's last job closed")
        passed = next((each.progress for each in reversed(self._attempts) if each.progress), None)
        if passed is not None and passed.message.to == job.start and passed.message.tokens != job.tokens:
            raise VerificationError("job", "its running hash is not that of the delivered tokens")

    async def _check_chain(self, signed: Signed[Job]) -> None:
        job = signed.message
        await self._signed_by(signed, job.worker, "job")
        for node in {job.worker, *(stage.node for stage in job.route)}:
            if not await self._patiently(lambda node=node: self._outside.directory.active(node)):
                raise VerificationError("job", f"node {to_hex(node)} has no stake or is jailed")

    async def _signed_by(self, signed: Signed[Any], owner: Address, check: str) -> None:
        await self._patiently(
            lambda: check_signer(
                self._outside.domain,
                self._outside.directory,
                signed,
                owner=owner,
                request=self._request,
                check=check,
            )
        )

    async def _deposited(
        self,
        what: str,
        signed: Signed[Job] | Signed[Receipt],
        worker: Address,
        find: Callable[[Hash, Address], Awaitable[Found | None]],
    ) -> None:
        """Find the very same message in the DHT; a record takes a moment to spread, so look until patience ends.

        The table keeps the newest job of a worker alone: one that it replaced meanwhile is confirmed by that one.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + self._outside.patience_s
        while True:
            why = "there is none"
            try:
                found = await find(self._name, worker)
            except PlaitError as error:
                found, why = None, error.text
            if found is not None:
                if found.covers(self._outside.domain, signed) or _newer(found, signed.message):
                    return
                why = "it is another one"
            if loop.time() >= until:
                raise VerificationError(what, f"the DHT's record of {to_hex(worker)} does not confirm it: {why}")
            await asyncio.sleep(min(_RETRY_S, self._outside.patience_s))

    def _check_receipt(self, receipt: Receipt) -> None:
        done = [attempt.progress for attempt in self._attempts if attempt.progress]
        last = done[-1].message if done else None
        expected: dict[str, tuple[object, object]] = {
            "request": (receipt.request, self._name),
            "segments": (receipt.segments, tuple(struct_hash(progress.message) for progress in done)),
            "inputTokens": (receipt.input_tokens, self._request.input_tokens),
            "outputTokens": (receipt.output_tokens, last.to if last else 0),
            "tokens": (receipt.tokens, last.tokens if last else receipt.tokens),
            "price": (receipt.price, self.price()),
            "closesAt": (receipt.closes_at, checks.closes_at(self._request)),
        }
        for name, (said, found) in expected.items():
            if said != found:
                raise VerificationError("receipt", f"its {name} is not what was relayed under the quote")
        if receipt.finish > Finish.FAILED:
            raise VerificationError("receipt", f"finish {receipt.finish} is unknown")

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask the chain again while it is away, until patience ends: that is nobody's guilt."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._outside.patience_s
        while True:
            try:
                return await ask()
            except (VerificationError, ProtocolError, RefusedError):
                raise
            except PlaitError as error:
                if loop.time() >= until:
                    text = f"the gateway cannot check the answer against the chain now ({error.text}); resume later"
                    raise BusyError(text) from error
                await asyncio.sleep(min(_RETRY_S, self._outside.patience_s))

    def _release(self) -> list[Event]:
        held, self._held = self._held, []
        return held

    def _closed_at(self) -> int:
        return max((held.sequence for held in self._held if held.kind == "progress"), default=0)

    def _drop(self, reason: str) -> list[Event]:
        self._on_drop(reason)
        return []


def _newer(found: Found, message: Job | Receipt) -> bool:
    return isinstance(message, Job) and found.job is not None and found.job.message.attempt > message.attempt


def _event(result: Result, kind: Kind) -> Event:
    return Event(sequence=result.sequence, kind=kind, data=result.event.SerializeToString())


def fault_event(name: Hash, sequence: int, error: PlaitError) -> Event:
    """Return the event that ends a stream with an error."""
    event = gateway_pb2.ResultEvent(request=name, error=codec.fault_to_pb(error.fault()))
    return Event(sequence=sequence, kind="error", data=event.SerializeToString())
