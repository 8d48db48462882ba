"""The broker over NATS JetStream: a work queue for jobs, kept logs for results and payments, two buckets."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from typing import Self, TypeVar

from google.protobuf.message import DecodeError, Message
from nats.aio.msg import Msg

from plait.protocol.pb import gateway_pb2, signed_pb2
from plait_node.broker import subjects
from plait_node.broker.access import OPEN, BrokerAccess
from plait_node.broker.connection import Connection, Stored
from plait_node.broker.dead import BEFORE_HEADER, REQUEST_HEADER, DeadLetters, count_of
from plait_node.broker.errors import BrokerDownError, BrokerError, UnreadableMessageError
from plait_node.broker.face import (
    MAX_DELIVERIES,
    OFFER_LIFE_S,
    PRIORITIES,
    PROMPT_LIFE_S,
    PROMPTS_KEPT,
    Acknowledged,
    BroughtPrompt,
    DeadLetter,
    Delivery,
    Notice,
    Result,
    given_up,
)
from plait_node.broker.nats_leases import NatsShared, ensure_shared
from plait_node.broker.pulse import pulse
from plait_node.broker.turns import Turns
from plait_node.broker.waking import Wake

_LOG = logging.getLogger(__name__)
# Between two tries of a broker that is away.
_PAUSE_S = 0.5

M = TypeVar("M", bound=Message)


class NatsBroker:
    """Jobs, results, payments, prompts and offers on a nats-server."""

    def __init__(self, connection: Connection, *, ack_wait_s: float) -> None:
        self._connection = connection
        self._dead = DeadLetters(connection)
        self._ack_wait_s = ack_wait_s
        self._returning: set[asyncio.Task[None]] = set()
        self.shared = NatsShared(connection)

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        name: str = "plait",
        access: BrokerAccess = OPEN,
        ack_wait_s: float = 6.0,
        timeout_s: float = 10.0,
    ) -> NatsBroker:
        """Connect and make sure that the streams exist; raise `BrokerDownError` at the deadline.

        With a key the streams are the operator's to make: raise `StreamsMissingError` when they are not there.
        """
        connection = await Connection.open(url, name=name, timeout_s=timeout_s, access=access)
        try:
            if access.nkey is None:
                await ensure_streams(connection)
            else:
                for stream in subjects.ALL_STREAMS:
                    await connection.check_stream(stream)
        except BrokerError:
            await connection.close()
            raise
        return cls(connection, ack_wait_s=ack_wait_s)

    async def __aenter__(self) -> Self:
        """Return the connection; leaving the block closes it."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close."""
        await self.close()

    async def publish_job(self, group: bytes, priority: int, call: gateway_pb2.JobCall, *, request: bytes) -> bool:
        """Hand a job to a group; return False when this request was published before."""
        if priority not in PRIORITIES:
            raise ValueError(f"priority {priority} is not one of {PRIORITIES}")
        return await self._connection.publish(
            subjects.job(group, priority),
            call.SerializeToString(),
            name=request.hex(),
            headers={REQUEST_HEADER: request.hex()},
        )

    async def jobs(self, group: bytes) -> AsyncIterator[Delivery]:
        """Yield jobs for a worker of this group in `Turns`' order; a broker that is away is waited for."""
        async with self._woken(subjects.jobs(group)) as wake:
            known, turns = False, Turns()
            while True:
                wake.clear()
                try:
                    if not known:
                        await self._ensure_group(group)
                        known = True
                    delivery = await self._pull_any(group, turns)
                except BrokerDownError as error:
                    known = False
                    _LOG.warning("broker away, jobs wait group=%s error=%s", group.hex(), error)
                    await asyncio.sleep(_PAUSE_S)
                    continue
                if delivery is not None:
                    yield delivery
                else:
                    await wake.wait(steady=True)  # nobody rings for a job that is handed out again

    async def backlog(self, group: bytes) -> int:
        """Count the jobs of a group that are waiting or running."""
        return await self._connection.count(subjects.JOBS.name, subjects.jobs(group))

    async def turnover(self, group: bytes) -> int:
        """Count the deliveries of a group's jobs that ended, ever."""
        counts = [
            await self._connection.turnover(subjects.JOBS.name, subjects.consumer(group, priority))
            for priority in PRIORITIES
        ]
        return sum(counts)

    async def publish_result(
        self, gateway: bytes, request: bytes, worker: bytes, event: gateway_pb2.ResultEvent, *, key: str
    ) -> None:
        """Append an event of an answer; a repeated key is dropped."""
        await self._append(subjects.result(gateway, request, worker), event, key)

    async def results(self, gateway: bytes, request: bytes, *, after: int = 0) -> AsyncIterator[Result]:
        """Yield results after a sequence, then wait for more."""
        async with aclosing(self._follow(subjects.RESULTS.name, subjects.results(gateway, request), after)) as rows:
            async for row in rows:
                worker = bytes.fromhex(row.subject.rsplit(".", 1)[1])
                event = _read(gateway_pb2.ResultEvent, row)
                if event is not None:
                    yield Result(sequence=row.sequence, worker=worker, event=event)

    async def forget_results(self, gateway: bytes, request: bytes) -> None:
        """Drop an answer that was delivered and paid."""
        await self._connection.purge(subjects.RESULTS.name, subjects.results(gateway, request))

    async def publish_pay(
        self, worker: bytes, request: bytes, notice: gateway_pb2.PayNotice, *, key: str, last: bool = False
    ) -> None:
        """Forward a payment or a cancellation to the worker of a request."""
        await self._append(subjects.pay(worker, request), notice, key, last_s=subjects.LAST_LIFE_S if last else 0)

    async def payments(self, worker: bytes, request: bytes, *, after: int = 0) -> AsyncIterator[Notice]:
        """Yield payments after a sequence, then wait for more."""
        async with aclosing(self._follow(subjects.PAYS.name, subjects.pay(worker, request), after)) as rows:
            async for row in rows:
                notice = _read(gateway_pb2.PayNotice, row)
                if notice is not None:
                    yield Notice(sequence=row.sequence, notice=notice)

    async def publish_ack(self, gateway: bytes, request: bytes, ack: signed_pb2.Acknowledgement, *, key: str) -> None:
        """Tell the gateway that its forwarded payment was journaled."""
        await self._append(subjects.ack(gateway, request), ack, key)

    async def acks(self, gateway: bytes, request: bytes, *, after: int = 0) -> AsyncIterator[Acknowledged]:
        """Yield acknowledgements after a sequence, then wait for more."""
        async with aclosing(self._follow(subjects.ACKS.name, subjects.ack(gateway, request), after)) as rows:
            async for row in rows:
                ack = _read(signed_pb2.Acknowledgement, row)
                if ack is not None:
                    yield Acknowledged(sequence=row.sequence, ack=ack)

    async def offer(self, worker: bytes, model: bytes, offer: gateway_pb2.WorkerOffer, *, group: bytes) -> None:
        """Put what this worker offers for a model in a group."""
        key = subjects.offer_key(worker, model, group)
        await self._connection.put(subjects.OFFERS_BUCKET, key, offer.SerializeToString())

    async def withdraw_offer(self, worker: bytes, model: bytes, *, group: bytes) -> None:
        """Take this worker's offer for a model in a group back."""
        await self._connection.put(subjects.OFFERS_BUCKET, subjects.offer_key(worker, model, group), None)

    async def offers(self) -> list[gateway_pb2.WorkerOffer]:
        """Return every live offer."""
        rows = await self._rows(subjects.OFFERS_STREAM, f"$KV.{subjects.OFFERS_BUCKET}.>")
        newest = {row.subject: row for row in rows}  # one that was renewed while we read came twice
        offers = [_read(gateway_pb2.WorkerOffer, row) for row in newest.values() if "KV-Operation" not in row.headers]
        return [offer for offer in offers if offer is not None]

    async def bring_prompt(self, request: bytes, call: gateway_pb2.PromptCall) -> None:
        """Keep a delivery of an on-chain request's prompt."""
        await self._connection.put(subjects.PROMPTS_BUCKET, subjects.prompt_key(request), call.SerializeToString())

    async def prompts(self, request: bytes, *, after: int = 0) -> list[BroughtPrompt]:
        """Return what was delivered for a request after a sequence, oldest first."""
        subject = f"$KV.{subjects.PROMPTS_BUCKET}.{subjects.prompt_key(request)}"
        rows = await self._rows(subjects.PROMPTS_STREAM, subject, after=after)
        calls = [(row.sequence, _read(gateway_pb2.PromptCall, row)) for row in rows]
        return [BroughtPrompt(sequence=sequence, call=call) for sequence, call in calls if call is not None]

    async def dead_letters(self) -> list[DeadLetter]:
        """Return the jobs that were given up."""
        return await self._dead.all()

    async def close(self) -> None:
        """Give back what was fetched and not yielded, and disconnect."""
        if self._returning:
            await asyncio.wait(self._returning, timeout=_PAUSE_S)
        await self._connection.close()

    async def bury(self, message: Msg, call: gateway_pb2.JobCall, request: bytes, reason: str) -> None:
        """Keep a job among the dead letters, tell who follows its answer, then take it off the queue."""
        group, priority = message.subject.split(".")[2:]
        place = message.metadata.sequence.stream
        letter = DeadLetter(
            group=bytes.fromhex(group),
            priority=int(priority),
            request=request,
            deliveries=handed_out(message),
            reason=reason,
            call=call,
        )
        await self._dead.keep(letter, of=place)
        gateway = call.quote.message.gateway
        if len(gateway) == 20:
            await self.publish_result(gateway, request, subjects.NOBODY, given_up(request, reason), key=f"dead.{place}")
        await self._connection.insist("take a job off", message.ack_sync)

    async def _ensure_group(self, group: bytes) -> None:
        for priority in PRIORITIES:
            await self._connection.ensure_consumer(
                subjects.JOBS.name,
                subjects.consumer(group, priority),
                subjects.job(group, priority),
                ack_wait_s=self._ack_wait_s,
            )

    async def _pull_any(self, group: bytes, turns: Turns) -> _NatsDelivery | None:
        for priority in turns.order():
            while (message := await self._pull(subjects.consumer(group, priority))) is not None:
                delivery = await self._open(message)
                if delivery is not None:
                    turns.served(priority)
                    return delivery
        turns.idle()
        return None

    async def _pull(self, consumer: str) -> Msg | None:
        """Take one job; if we are cancelled meanwhile, give it back instead of stranding it until ack_wait."""
        pulling = asyncio.ensure_future(self._connection.pull(subjects.JOBS.name, consumer))
        try:
            return await asyncio.shield(pulling)
        except asyncio.CancelledError:
            task = asyncio.get_running_loop().create_task(self._return(pulling))
            self._returning.add(task)
            task.add_done_callback(self._returning.discard)
            raise

    async def _return(self, pulling: asyncio.Future[Msg | None]) -> None:
        with suppress(BrokerError):
            message = await pulling
            if message is not None:
                await self._connection.settle("take a job back", message.nak)

    async def _open(self, message: Msg) -> _NatsDelivery | None:
        try:
            call = gateway_pb2.JobCall.FromString(message.data)
            request = bytes.fromhex((message.headers or {}).get(REQUEST_HEADER, ""))
            if len(request) != 32:
                raise ValueError("no request in the headers")
        except (DecodeError, ValueError) as error:
            _LOG.error("job dropped %s", UnreadableMessageError(message.subject, error))
            await self._connection.settle("take a job off", message.term)
            return None
        if message.metadata.num_delivered > MAX_DELIVERIES:
            await self.bury(message, call, request, f"handed out {MAX_DELIVERIES} times without an end")
            return None
        return _NatsDelivery(
            self,
            connection=self._connection,
            message=message,
            call=call,
            request=request,
            ack_wait_s=self._ack_wait_s,
        )

    async def _append(self, subject: str, message: Message, key: str, *, last_s: int = 0) -> None:
        name = subjects.message_id(subject, key)
        await self._connection.publish(subject, message.SerializeToString(), name=name, last_s=last_s)

    @asynccontextmanager
    async def _woken(self, subject: str) -> AsyncGenerator[Wake]:
        wake = Wake()
        stop = await self._connection.on_wake(subject, wake)
        try:
            yield wake
        finally:
            with suppress(BrokerError):
                await stop()

    async def _follow(self, stream: str, subject: str, after: int) -> AsyncGenerator[Stored]:
        async with self._woken(subject) as wake:
            last = after
            while True:
                wake.clear()
                try:
                    row = await self._connection.next_after(stream, subject, last)
                except BrokerDownError as error:
                    _LOG.warning("broker away, reading waits subject=%s error=%s", subject, error)
                    await asyncio.sleep(_PAUSE_S)
                    continue
                if row is None:
                    wake.read(last)
                    await wake.wait()
                    continue
                last = row.sequence
                yield row
                if wake.done(last):
                    await wake.wait(found=True)

    async def _rows(self, stream: str, subject: str, *, after: int = 0) -> list[Stored]:
        rows: list[Stored] = []
        last = after
        while (row := await self._connection.next_after(stream, subject, last)) is not None:
            rows.append(row)
            last = row.sequence
        return rows


class _NatsDelivery:
    """One job in the hands of this worker."""

    def __init__(
        self,
        broker: NatsBroker,
        *,
        connection: Connection,
        message: Msg,
        call: gateway_pb2.JobCall,
        request: bytes,
        ack_wait_s: float,
    ) -> None:
        self._broker = broker
        self._connection = connection
        self._message = message
        self._ack_wait_s = ack_wait_s
        self.call = call
        self.request = request
        self.deliveries = handed_out(message)

    async def extend(self) -> None:
        """Say that the job is still being worked on."""
        await self._connection.settle("extend a job", self._message.in_progress)

    def working(self) -> AbstractAsyncContextManager[None]:
        """Extend in the background for as long as the block runs."""
        return pulse(self.extend, every_s=self._ack_wait_s / 3)

    async def ack(self) -> None:
        """End the delivery for good."""
        if not self._message.is_acked:
            await self._connection.insist("take a job off", self._message.ack_sync)

    async def nak(self, *, delay_s: float = 0.0) -> None:
        """Give the job back to the group."""
        if not self._message.is_acked:
            await self._connection.settle("take a job back", lambda: self._message.nak(delay_s))

    async def dead(self, reason: str) -> None:
        """Put the job among the dead letters and end the delivery."""
        if not self._message.is_acked:
            await self._broker.bury(self._message, self.call, self.request, reason)


async def ensure_streams(connection: Connection) -> None:
    """Make every stream and bucket, or bring it to its plan; raise `BrokerDownError`."""
    for plan in subjects.STREAMS:
        await connection.ensure_stream(plan)
    await connection.ensure_bucket(subjects.OFFERS_BUCKET, life_s=OFFER_LIFE_S, kept=1)
    await connection.ensure_bucket(subjects.PROMPTS_BUCKET, life_s=PROMPT_LIFE_S, kept=PROMPTS_KEPT)
    await ensure_shared(connection)


def handed_out(message: Msg) -> int:
    """Return how often a job was handed out, before it was queued again too."""
    return message.metadata.num_delivered + count_of(message.headers or {}, BEFORE_HEADER, most=100_000)


def _read(kind: type[M], row: Stored) -> M | None:
    try:
        return kind.FromString(row.data)
    except DecodeError as error:
        _LOG.error("message skipped %s", UnreadableMessageError(row.subject, error))
        return None
