"""The on-chain path: find the requests that name our node, and answer each of them exactly once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass

from plait.chain import (
    ChainError,
    ChainReader,
    ChainWriter,
    Checkpoint,
    ContractError,
    Log,
    NonceTakenError,
    ReorgError,
    RequestParameters,
    TxResult,
    artifact,
    canonical,
    ids_bytes,
    ids_from,
    read_logs,
)
from plait.ledger import Intent, Journal, Outbox, Outcome
from plait.protocol.ids import Address, Hash, to_hex

log = logging.getLogger(__name__)

_PURPOSE = "fulfil"
_CHECKPOINT = "requests"
_TOPICS = 4  # of a `Requested` event
_KEPT_CHECKPOINTS = 128
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OnchainRequest:
    """A request to our node; `digest` is its name everywhere, `ids` are the prompt's tokens."""

    number: int
    digest: Hash
    parameters: RequestParameters
    ids: tuple[int, ...]
    block: int
    topics: tuple[Hash, ...]  # the event as emitted, so that a restart reads the same
    data: bytes


class OnchainWatcher:
    """Follows `Requests` for one node from a checkpoint on disk, and fulfils through the outbox.

    The journal holds what was seen and not answered, so a restart yields it again: whoever answers is asked at least
    once, and the answer goes out once.
    """

    def __init__(
        self,
        journal: Journal,
        reader: ChainReader,
        me: Address,
        *,
        writer: ChainWriter | None = None,
        poll_s: float = 1.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._journal = journal
        self._reader = reader
        self._me = me
        self._writer = writer
        self._poll_s = poll_s
        self._clock = clock
        self._outbox = Outbox(journal, clock=clock)
        self._yielded: set[Hash] = set()
        self._one_at_a_time = asyncio.Lock()

    async def requests(self) -> AsyncGenerator[OnchainRequest]:
        """Yield the requests that wait for an answer, those of earlier runs first, until cancelled."""
        pause = _FIRST_PAUSE_S
        while True:
            try:
                await self.poll()
                pause, wait = _FIRST_PAUSE_S, self._poll_s
            except ChainError as error:
                log.warning("requests on chain wait, the chain failed: %s", error.text)
                wait, pause = pause, min(2 * pause, _LONGEST_PAUSE_S)
            for request in self.unanswered():
                if request.digest not in self._yielded:
                    self._yielded.add(request.digest)
                    yield request
            await asyncio.sleep(wait)

    async def poll(self) -> None:
        """Read what happened since the last checkpoint; after a reorganisation go back to one that still holds."""
        head = await self._reader.block()
        try:
            await self._read(await self._checkpoint(), head.number)
        except ReorgError as error:
            log.warning("the chain was reorganised, reading again: %s", error.text)
            await self._read(await self._checkpoint(), head.number)

    def unanswered(self) -> list[OnchainRequest]:
        """Return the requests seen whose deadline has not passed and which nobody answered yet, oldest first."""
        rows = self._journal.all("SELECT body FROM asked ORDER BY number")
        seen = [_from_bytes(row[0]) for row in rows]
        now = self._clock()
        return [each for each in seen if each.parameters.deadline > now and self.outcome(each) is None]

    def outcome(self, request: OnchainRequest) -> Outcome | None:
        """Return what became of our answer."""
        intent = self._outbox.find(_PURPOSE, request.digest)
        return self._outbox.outcome(intent) if intent else None

    async def fulfil(self, request: OnchainRequest, receipt: Hash, output: Sequence[int]) -> Outcome:
        """Answer a request with its receipt's digest and the answer's tokens; repeating it sends nothing more.

        What is sent is what was given first. Raise `ChainError` when the chain fails: call again, or `resume`.
        """
        return await self._finish(self._outbox.intend(_PURPOSE, request.digest, _answer(receipt, output, request)))

    async def resume(self) -> None:
        """Finish the answers that an earlier run began to send."""
        for intent in self._outbox.open(_PURPOSE):
            await self._finish(intent)

    async def _finish(self, intent: Intent) -> Outcome:
        async with self._one_at_a_time:
            return await self._finish_alone(intent)

    async def _finish_alone(self, intent: Intent) -> Outcome:
        known = self._outbox.outcome(intent)
        if known and not self._outbox.is_open(intent):
            return known
        receipt, output, request = _read_answer(intent.body)
        try:
            result = await self._send(intent, request, receipt, output)
        except ContractError as error:
            log.warning("an answer was refused request=%s: %s", to_hex(request.digest), error.text)
            return self._outbox.finish(intent, "refused", note=error.text)
        if result is None:
            return self._outbox.finish(intent, "moot", note="the request was answered or refunded already")
        log.info("answered request=%s tx=%s gas=%d", to_hex(request.digest), to_hex(result.hash), result.gas_used)
        return self._outbox.finish(intent, "done", result=result)

    async def _send(
        self, intent: Intent, request: OnchainRequest, receipt: Hash, output: Sequence[int]
    ) -> TxResult | None:
        if self._writer is None:
            raise TypeError("this watcher has no writer; give it one that sends with the gateway's service key")
        record = self._outbox.recorder(intent)
        if variants := self._outbox.variants(intent):
            try:
                return await self._writer.resume(variants, journal=record)
            except NonceTakenError as error:
                log.warning("an answer's transaction can never land, signing another: %s", error.text)
        if await self._reader.open_request(request.number) != request.digest:
            return None
        return await self._writer.fulfil(request.number, request.parameters, receipt, output, journal=record)

    async def _read(self, after: Checkpoint | None, last: int) -> None:
        deployment = self._reader.deployment
        topics = [[artifact("Requests").event("Requested").topic], None, [Hash(bytes(12) + self._me)]]
        async for found in read_logs(
            self._reader.rpc,
            addresses=[deployment.address("Requests")],
            first=after.block + 1 if after else deployment.block,
            last=last,
            topics=topics,
            after=after,
        ):
            with self._journal.write():
                for each in found.logs:
                    self._remember(each)
                self._keep(found.checkpoint)

    def _remember(self, found: Log) -> None:
        request = _from_event(found.block, found.topics, found.data)
        stored = _event_bytes(request)
        self._journal.run("INSERT OR REPLACE INTO asked VALUES (?, ?, ?)", request.number, request.block, stored)

    def _keep(self, checkpoint: Checkpoint) -> None:
        self._journal.run(
            "INSERT OR REPLACE INTO checkpoints VALUES (?, ?, ?)", _CHECKPOINT, checkpoint.block, checkpoint.hash
        )
        self._journal.run(
            "DELETE FROM checkpoints WHERE name = ? AND block NOT IN "
            "(SELECT block FROM checkpoints WHERE name = ? ORDER BY block DESC LIMIT ?)",
            _CHECKPOINT,
            _CHECKPOINT,
            _KEPT_CHECKPOINTS,
        )

    async def _checkpoint(self) -> Checkpoint | None:
        """Return the newest checkpoint that is still part of the chain, and forget what came after it."""
        rows = self._journal.all("SELECT block, hash FROM checkpoints WHERE name = ? ORDER BY block DESC", _CHECKPOINT)
        found: Checkpoint | None = None
        for block, hashed in rows:
            checkpoint = Checkpoint(block=block, hash=Hash(hashed))
            if await canonical(self._reader.rpc, checkpoint):
                found = checkpoint
                break
        if rows and (found is None or found.block != rows[0][0]):
            self._unwind(found.block if found else -1)
        return found

    def _unwind(self, to: int) -> None:
        with self._journal.write():
            self._journal.run("DELETE FROM checkpoints WHERE name = ? AND block > ?", _CHECKPOINT, to)
            self._journal.run("DELETE FROM asked WHERE block > ?", to)


def _event_bytes(request: OnchainRequest) -> bytes:
    return request.block.to_bytes(8, "big") + b"".join(request.topics) + request.data


def _from_event(block: int, topics: Sequence[Hash], data: bytes) -> OnchainRequest:
    values = artifact("Requests").event("Requested").decode(topics, data)
    ids = values["ids"]
    return OnchainRequest(
        number=values["id"],
        digest=Hash(values["request"]),
        parameters=RequestParameters.from_event(values["params"]),
        ids=ids_from(ids),
        block=block,
        topics=tuple(topics),
        data=data,
    )


def _from_bytes(stored: bytes) -> OnchainRequest:
    topics = [Hash(stored[at : at + 32]) for at in range(8, 8 + 32 * _TOPICS, 32)]
    return _from_event(int.from_bytes(stored[:8], "big"), topics, stored[8 + 32 * _TOPICS :])


def _answer(receipt: Hash, output: Sequence[int], request: OnchainRequest) -> bytes:
    ids = ids_bytes(output)
    return receipt + len(ids).to_bytes(4, "big") + ids + _event_bytes(request)


def _read_answer(body: bytes) -> tuple[Hash, tuple[int, ...], OnchainRequest]:
    end = 36 + int.from_bytes(body[32:36], "big")
    return Hash(body[:32]), ids_from(body[36:end]), _from_bytes(body[end:])
