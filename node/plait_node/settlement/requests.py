"""The on-chain path: find the requests that name our node, and answer each of them exactly once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence

from plait.chain import (
    Block,
    ChainReader,
    ChainWriter,
    Checkpoint,
    ContractError,
    NonceTakenError,
    ReorgError,
    Transaction,
    TxResult,
    artifact,
    canonical,
    ids_bytes,
    ids_from,
    read_logs,
)
from plait.ledger import Intent, Journal, Outbox, Outcome
from plait.protocol.ids import Address, Hash, to_hex
from plait.protocol.sealing import ContentKey
from plait_node.settlement.asked import Asked, OnchainRequest
from plait_node.settlement.outages import OUTAGES, outage

log = logging.getLogger(__name__)

_PURPOSE = "fulfil"
_CHECKPOINT = "requests"
_KEPT_CHECKPOINTS = 128
_KEPT_AFTER_DEADLINE_S = 3_600  # a clock that jumped ahead must not make the node forget what it may still answer
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 60.0
# An answer that waits for its block can be read by anybody, and once the exclusive period is over its payer can take
# the answer and cancel. A slot of Ethereum has 12 s; what is sent later than this may miss the last one that counts.
SEND_MARGIN_S = 15
# No work begins that would end too late to be sent: half of the shortest exclusive period is left for a short answer.
BEGIN_MARGIN_S = 30


class OnchainWatcher:
    """Follows `Requests` for one node from a checkpoint on disk, and fulfils through the outbox.

    The journal holds what was seen and not answered, so a restart yields it again: whoever answers is asked at least
    once, and the answer goes out once. A request whose prompt is not on chain waits until `give_prompt` brings it.
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
        self._asked = Asked(journal)
        self._block_time = 0
        self._yielded: set[Hash] = set()
        self._one_at_a_time = asyncio.Lock()

    async def requests(self) -> AsyncGenerator[OnchainRequest]:
        """Yield the requests that can be answered, those of earlier runs first, until cancelled.

        One waits for its prompt first; one whose exclusive period ends too soon is left to its payer.
        """
        pause = _FIRST_PAUSE_S
        while True:
            try:
                await self.poll()
                pause, wait = _FIRST_PAUSE_S, self._poll_s
            except OUTAGES as error:
                log.warning("requests on chain wait, %s: %s", outage(error), error.text)
                wait, pause = pause, min(2 * pause, _LONGEST_PAUSE_S)
            for request in self.unanswered():
                if not request.ids or request.digest in self._yielded:
                    continue
                self._yielded.add(request.digest)
                if self._now() < begin_before(request):
                    yield request
                else:
                    log.warning("on-chain request comes too late number=%d", request.number)
            await asyncio.sleep(wait)

    async def poll(self) -> None:
        """Read what happened since the last checkpoint; after a reorganisation go back to one that still holds."""
        head = await self._head()
        try:
            await self._read(await self._checkpoint(), head.number)
        except ReorgError as error:
            log.warning("the chain was reorganised, reading again: %s", error.text)
            await self._read(await self._checkpoint(), head.number)
        with self._journal.write():
            self._asked.forget(self._now() - _KEPT_AFTER_DEADLINE_S)

    def unanswered(self) -> list[OnchainRequest]:
        """Return the requests seen whose deadline has not passed and which nobody answered yet, oldest first.

        Those without `ids` wait for their prompt.
        """
        return [each for each in self._asked.waiting(self._now()) if self.outcome(each) is None]

    def give_prompt(self, number: int, ids: Sequence[int], content_key: ContentKey) -> None:
        """Add the prompt that a request commits to; raise `BadRequestError` when it does not fit or nobody asked."""
        with self._journal.write():
            self._asked.give(number, ids, content_key)

    def outcome(self, request: OnchainRequest) -> Outcome | None:
        """Return what became of our answer."""
        intent = self._outbox.find(_PURPOSE, request.digest)
        return self._outbox.outcome(intent) if intent else None

    async def fulfil(self, request: OnchainRequest, receipt: Hash, output: Sequence[int]) -> Outcome:
        """Answer a request with its receipt's digest and the answer's tokens; repeating it sends nothing more.

        What is sent is what was given first, and nothing once the exclusive period is as good as over: then the
        outcome is moot. Raise `ChainError` when the chain fails: call again, or `resume`.
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
        if isinstance(result, str):
            log.warning("an answer was not sent request=%s: %s", to_hex(request.digest), result)
            return self._outbox.finish(intent, "moot", note=result)
        log.info("answered request=%s tx=%s gas=%d", to_hex(request.digest), to_hex(result.hash), result.gas_used)
        return self._outbox.finish(intent, "done", result=result)

    async def _send(
        self, intent: Intent, request: OnchainRequest, receipt: Hash, output: Sequence[int]
    ) -> TxResult | str:
        """Return the transaction that answers, or why there is none."""
        if self._writer is None:
            raise TypeError("this watcher has no writer; give it one that sends with the gateway's service key")
        record = self._outbox.recorder(intent)
        variants = self._outbox.variants(intent)
        if not await self._public(variants) and await self._too_late(request):
            return "the exclusive period is over or ends too soon: the payer could take the answer and cancel"
        if variants:
            try:
                return await self._writer.resume(variants, journal=record)
            except NonceTakenError as error:
                log.warning("an answer's transaction can never land, signing another: %s", error.text)
        if await self._reader.open_request(request.number) != request.open_hash:
            return "the request was answered, cancelled or refunded already"
        return await self._writer.fulfil(request.number, request.parameters, receipt, output, journal=record)

    async def _public(self, variants: Sequence[Transaction]) -> bool:
        """Say whether the answer is out already; one that was signed right before a crash may never have been sent."""
        for each in variants:
            if await self._reader.rpc.knows(each.hash):
                return True
        return False

    async def _too_late(self, request: OnchainRequest) -> bool:
        await self._head()
        return self._now() > request.parameters.exclusive_until - SEND_MARGIN_S

    async def _head(self) -> Block:
        head = await self._reader.block()
        self._block_time = head.timestamp
        return head

    def _now(self) -> float:
        """Return the later of our clock and the newest block's: the contract goes by the block's."""
        return max(self._clock(), self._block_time)

    async def _read(self, after: Checkpoint | None, last: int) -> None:
        deployment = self._reader.deployment
        kinds = [artifact("Requests").event(name).topic for name in ("Requested", "PromptPublished")]
        async for found in read_logs(
            self._reader.rpc,
            addresses=[deployment.address("Requests")],
            first=after.block + 1 if after else deployment.block,
            last=last,
            topics=[kinds, None, [Hash(bytes(12) + self._me)]],
            after=after,
        ):
            with self._journal.write():
                for each in found.logs:
                    self._asked.take(each)
                self._keep(found.checkpoint)

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
            self._asked.unwind(to)


def begin_before(request: OnchainRequest) -> int:
    """Return until when work on a request may begin, in Unix seconds."""
    return request.parameters.exclusive_until - BEGIN_MARGIN_S


def _answer(receipt: Hash, output: Sequence[int], request: OnchainRequest) -> bytes:
    ids = ids_bytes(output)
    return receipt + len(ids).to_bytes(4, "big") + ids + request.to_bytes()


def _read_answer(body: bytes) -> tuple[Hash, tuple[int, ...], OnchainRequest]:
    end = 36 + int.from_bytes(body[32:36], "big")
    return Hash(body[:32]), ids_from(body[36:end]), OnchainRequest.from_bytes(body[end:])
