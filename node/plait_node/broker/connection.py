"""The one place that speaks to nats-py: typed calls, a deadline on each, one error when the server is away."""

# pyright: reportUnknownMemberType=false
# (nats-py leaves **params of its methods untyped; every result used here has a type)

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TypeVar, cast

from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext, api
from nats.js.errors import APIError, BadRequestError, NotFoundError

from plait_node.broker import subjects
from plait_node.broker.access import OPEN, BrokerAccess, UserClient, connect_options
from plait_node.broker.errors import BrokerClosedError, BrokerDownError, MessageTooLargeError, StreamsMissingError
from plait_node.broker.face import MESSAGE_LIMIT
from plait_node.broker.subjects import StreamPlan
from plait_node.broker.waking import Wake

_LOG = logging.getLogger(__name__)
_CALL_S = 5.0
# A cluster that lost its leader refuses publishes for about 6 s (measured); message ids make a retry harmless.
_PUBLISH_S = 20.0
_RETRY_S = 0.2
# Shorter than a call: a server that died with a message in its hands never answers, and another leads in about 5 s.
_TRY_S = 1.0
# Copies of a stream where there is a cluster to hold them.
_REPLICAS = 3
# What the server says of a message that is gone; with the second it also says why another could not be dropped.
_NO_SUCH_SEQUENCE, _NOT_DROPPED, _GONE = 10043, 10057, "no message found"
_NO_MESSAGES = ("404", "408", "409")
# Group consumers that nobody asked for so long are dropped; a worker that comes makes its group's again.
_UNASKED_S = 24 * 3_600.0
_SEQUENCE = "Nats-Sequence"  # of a stored message, in the headers that the server repeats
# What the server says when another message is the last one of the subject.
_NOT_THE_LAST = (10071, 10164)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A message as a stream keeps it."""

    sequence: int
    subject: str
    data: bytes
    headers: dict[str, str]


class Connection:
    """A connection to nats-server that reconnects by itself."""

    def __init__(self, client: UserClient, stream: JetStreamContext) -> None:
        self._client = client
        self._stream = stream

    @classmethod
    async def open(cls, url: str, *, name: str, timeout_s: float, access: BrokerAccess = OPEN) -> Connection:
        """Connect to one of the servers in `url`, which commas separate; raise `BrokerDownError` at the deadline."""
        client = await _connect(url, name, access, timeout_s)
        return cls(client, client.jetstream(timeout=_CALL_S))

    async def ensure_stream(self, plan: StreamPlan) -> None:
        """Create the stream, or bring it to this plan; a cluster that is about to choose its leader is waited for."""
        config = _stream_config(plan, self._replicas)
        try:
            await self.insist("create a stream", lambda: self._stream.add_stream(config), keep=(BadRequestError,))
        except BadRequestError:
            await self._call("update a stream", lambda: self._stream.update_stream(config))

    async def ensure_bucket(self, name: str, *, life_s: float, kept: int) -> None:
        """Create a bucket that keeps the newest `kept` values of a key for `life_s` seconds."""
        config = api.KeyValueConfig(bucket=name, ttl=life_s, history=kept, direct=True, replicas=self._replicas)
        make = lambda: self._stream.create_key_value(config)  # noqa: E731 - two calls name it
        try:
            await self.insist("create a bucket", make, keep=(BadRequestError,))
        except BadRequestError:  # it is there with fewer copies: a single server became a cluster
            info = await self._call("look at a bucket", lambda: self._stream.stream_info(f"KV_{name}"))
            grown = info.config.evolve(num_replicas=self._replicas)
            await self._call("update a bucket", lambda: self._stream.update_stream(grown))

    async def check_stream(self, name: str) -> None:
        """Raise `StreamsMissingError` when there is no such stream."""
        try:
            await self.insist("look at a stream", lambda: self._stream.stream_info(name), keep=(NotFoundError,))
        except NotFoundError:
            raise StreamsMissingError(name) from None

    async def ensure_consumer(self, stream: str, name: str, subject: str, *, ack_wait_s: float) -> None:
        """Create a durable pull consumer; the count of deliveries is bounded by who reads, not by the server."""
        # With `name` the request's own subject names the filter: a user's permissions hold for it.
        config = api.ConsumerConfig(
            name=name,
            durable_name=name,
            filter_subject=subject,
            ack_wait=ack_wait_s,
            max_deliver=-1,
            max_ack_pending=1000,
            inactive_threshold=_UNASKED_S,
        )
        await self._call("create a consumer", lambda: self._stream.add_consumer(stream, config))

    async def publish(
        self, subject: str, data: bytes, *, name: str, headers: dict[str, str] | None = None, last_s: int = 0
    ) -> bool:
        """Store a message once; return False when its name was stored before.

        With `last_s` it takes the place of all others of its subject, and is kept for so many seconds.
        """
        if len(data) > MESSAGE_LIMIT:
            raise MessageTooLargeError(len(data), MESSAGE_LIMIT)
        sent = {**(headers or {}), api.Header.MSG_ID.value: name}
        if last_s:
            sent |= {api.Header.ROLLUP.value: "sub", api.Header.MSG_TTL.value: f"{last_s}s"}
        ack = await self.insist(
            "store a message", lambda: self._stream.publish(subject, data, headers=sent, timeout=_TRY_S)
        )
        return not ack.duplicate

    async def append(self, subject: str, data: bytes, *, name: str, headers: dict[str, str], after: int) -> int | None:
        """Store a message where `after` is the last one of its subject; return its sequence, or None."""
        if len(data) > MESSAGE_LIMIT:
            raise MessageTooLargeError(len(data), MESSAGE_LIMIT)
        expected = {api.Header.MSG_ID.value: name, api.Header.EXPECTED_LAST_SUBJECT_SEQUENCE.value: str(after)}
        sent = {**headers, **expected}
        send = lambda: self._stream.publish(subject, data, headers=sent, timeout=_TRY_S)  # noqa: E731 - as above
        try:
            ack = await self.insist("store a message", send, keep=(BadRequestError,))
        except BadRequestError as error:
            if error.err_code in _NOT_THE_LAST:
                return None
            raise BrokerDownError("store a message", error) from error
        return ack.seq

    async def next_after(self, stream: str, subject: str, after: int) -> Stored | None:
        """Return the first message on a subject above a sequence, or None."""
        try:
            raw = await self._call(
                "read a message",
                lambda: self._stream.get_msg(stream, seq=after + 1, subject=subject, direct=True, next=True),
                keep=(NotFoundError,),
            )
        except NotFoundError:
            return None
        return _stored(raw)

    async def last_of(self, stream: str, subject: str) -> Stored | None:
        """Return the last message on a subject, or None."""
        try:
            raw = await self._call(
                "read a message",
                lambda: self._stream.get_last_msg(stream, subject, direct=True),
                keep=(NotFoundError,),
            )
        except NotFoundError:
            return None
        return _stored(raw)

    async def pull(self, stream: str, consumer: str) -> Msg | None:
        """Take one waiting job at once, or None: no request is left open at the server."""
        subject = f"{api.DEFAULT_PREFIX}.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        body = json.dumps({"batch": 1, "no_wait": True}).encode()
        # A pulled message keeps its own subject, which nats-py's shared reply inbox cannot match: hence old_style.
        message = await self._call(
            "hand out a job", lambda: self._client.request(subject, body, timeout=_CALL_S, old_style=True)
        )
        status = (message.headers or {}).get(api.Header.STATUS.value)
        if status is None:
            return message
        if status in _NO_MESSAGES:
            return None
        raise BrokerDownError(f"hand out a job (status {status})")

    async def insist(
        self, what: str, act: Callable[[], Coroutine[object, object, T]], *, keep: tuple[type[APIError], ...] = ()
    ) -> T:
        """Make a call that does no harm when it is made twice, until it is answered or 20 s are over."""
        deadline = asyncio.get_running_loop().time() + _PUBLISH_S
        while True:
            try:
                return await self._call(what, act, keep=keep)
            except BrokerDownError:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(_RETRY_S)

    async def settle(self, what: str, act: Callable[[], Coroutine[object, object, object]]) -> None:
        """Send an acknowledgement of any kind."""
        await self._call(what, act)

    async def on_wake(self, subject: str, wake: Wake) -> Callable[[], Coroutine[object, object, None]]:
        """Ring whenever something was stored on a subject, or may have been unheard; return how to stop."""

        async def ring(message: Msg) -> None:
            sequence = (message.headers or {}).get(_SEQUENCE, "")
            wake.ring(int(sequence) if sequence.isascii() and sequence.isdigit() else None)

        subscription = await self._call(
            "take a subscription", lambda: self._client.subscribe(subjects.wake(subject), cb=ring)
        )

        self._client.wakes.add(wake)

        async def stop() -> None:
            self._client.wakes.discard(wake)
            if not self._client.is_closed:
                await self._call("end a subscription", subscription.unsubscribe)

        return stop

    async def count(self, stream: str, subject: str) -> int:
        """Count what a stream holds on a subject."""
        info = await self._call("count messages", lambda: self._stream.stream_info(stream, subjects_filter=subject))
        return sum((info.state.subjects or {}).values())

    async def subjects_of(self, stream: str, pattern: str) -> list[str]:
        """Return the subjects on which a stream holds something."""
        info = await self._call("list subjects", lambda: self._stream.stream_info(stream, subjects_filter=pattern))
        return list(info.state.subjects or {})

    async def turnover(self, stream: str, consumer: str) -> int:
        """Count the deliveries of a consumer that ended, ever: acknowledged, given back or expired."""
        try:
            info = await self._call(
                "describe a consumer", lambda: self._stream.consumer_info(stream, consumer), keep=(NotFoundError,)
            )
        except NotFoundError:
            return 0
        handed_out = info.delivered.consumer_seq if info.delivered else 0
        return max(0, handed_out - (info.num_ack_pending or 0))

    async def delete(self, stream: str, sequence: int) -> None:
        """Drop one message; one that is gone already is no error."""
        try:
            await self._call("drop a message", lambda: self._stream.delete_msg(stream, sequence), keep=(APIError,))
        except APIError as error:
            gone = error.err_code == _NOT_DROPPED and error.description == _GONE
            if not gone and error.err_code != _NO_SUCH_SEQUENCE:
                raise BrokerDownError("drop a message", error) from error

    async def purge(self, stream: str, subject: str) -> None:
        """Drop what a stream holds on a subject."""
        await self._call("drop messages", lambda: self._stream.purge_stream(stream, subject=subject))

    async def put(self, bucket: str, key: str, value: bytes | None) -> None:
        """Store the newest value of a key in a bucket, or None to take it back."""
        if value is not None and len(value) > MESSAGE_LIMIT:
            raise MessageTooLargeError(len(value), MESSAGE_LIMIT)
        values = await self._call("open a bucket", lambda: self._stream.key_value(bucket))
        if value is None:
            await self._call(f"drop a value of {bucket}", lambda: values.delete(key))
        else:
            await self._call(f"keep a value of {bucket}", lambda: values.put(key, value))

    async def close(self) -> None:
        """Flush and disconnect; a server that is away is no error."""
        if self._client.is_closed:
            return
        try:
            async with asyncio.timeout(_CALL_S):
                await self._client.flush()
        except (TimeoutError, NatsError, OSError):
            _LOG.warning("broker connection closed without a last flush")
        await self._client.close()

    @property
    def _replicas(self) -> int:
        return _REPLICAS if self._client.clustered else 1

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._client.is_closed

    async def _call(
        self, what: str, act: Callable[[], Coroutine[object, object, T]], *, keep: tuple[type[APIError], ...] = ()
    ) -> T:
        if self._client.is_closed:
            raise BrokerClosedError
        # A task of its own: nats-py waits with asyncio.wait_for, which on Python 3.11 can swallow a cancellation.
        task = asyncio.get_running_loop().create_task(act())
        try:
            await asyncio.wait({task}, timeout=2 * _CALL_S)
        finally:
            if not task.done():
                task.cancel()
                task.add_done_callback(_look_away)
        return self._outcome(what, task, keep)

    def _outcome(self, what: str, task: asyncio.Task[T], keep: tuple[type[APIError], ...]) -> T:
        if not task.done():
            raise BrokerDownError(what)
        try:
            return task.result()
        except keep:
            raise
        except (TimeoutError, OSError, NatsError) as error:
            if self._client.is_closed:
                raise BrokerClosedError from error
            raise BrokerDownError(what, error) from error


def _stored(raw: api.RawStreamMsg) -> Stored:
    return Stored(
        sequence=raw.seq or 0,
        subject=raw.subject or "",
        data=raw.data or b"",
        headers=cast("dict[str, str]", raw.headers or {}),
    )


def _look_away(task: asyncio.Task[T]) -> None:
    """Take the outcome of a call whose caller is gone, so that asyncio does not report it as forgotten."""
    if not task.cancelled():
        task.exception()


async def _connect(url: str, name: str, access: BrokerAccess, timeout_s: float) -> UserClient:
    why: list[Exception] = [TimeoutError()]

    async def report(error: Exception) -> None:
        if not isinstance(why[0], NatsError):  # what a server said tells more than how the line broke then
            why[:] = [error]
        _LOG.warning("broker connection error=%r", error)

    key = access.key()
    client = UserClient(key)
    connecting = asyncio.create_task(
        client.connect(
            [each.strip() for each in url.split(",")],
            name=name,
            connect_timeout=2,
            reconnect_time_wait=_RETRY_S,  # pyright: ignore[reportArgumentType] - annotated int, seconds of a sleep()
            max_reconnect_attempts=-1,
            error_cb=report,
            reconnected_cb=client.ring_all,
            **connect_options(access, key),
        )
    )
    try:
        await asyncio.wait({connecting}, timeout=timeout_s)
        if not connecting.done():
            raise BrokerDownError(f"accept a connection at {url}", why[0]) from why[0]
        connecting.result()
    except (OSError, NatsError) as error:
        raise BrokerDownError(f"accept a connection at {url}", error) from error
    finally:
        await _abandon(connecting, client)
    return client


async def _abandon(connecting: asyncio.Task[None], client: UserClient) -> None:
    """End what did not connect in time; again and again, as in `_call` a cancellation may be swallowed."""
    if connecting.done():
        return
    while not connecting.done():
        connecting.cancel()
        await asyncio.wait({connecting}, timeout=_RETRY_S)
    async with asyncio.timeout(_CALL_S):
        await client.close()


def _stream_config(plan: StreamPlan, replicas: int) -> api.StreamConfig:
    republish = None
    if plan.wake:
        republish = api.RePublish(src=plan.pattern, dest=_wake_of(plan.pattern), headers_only=True)
    return api.StreamConfig(
        name=plan.name,
        subjects=[plan.pattern],
        retention=api.RetentionPolicy.WORK_QUEUE if plan.queue else api.RetentionPolicy.LIMITS,
        storage=api.StorageType.FILE,
        discard=api.DiscardPolicy.NEW if plan.queue else api.DiscardPolicy.OLD,
        max_age=plan.life_s,
        num_replicas=replicas,
        duplicate_window=plan.repeat_s,
        allow_direct=True,
        allow_rollup_hdrs=plan.closes,
        allow_msg_ttl=plan.closes,
        republish=republish,
    )


def _wake_of(pattern: str) -> str:
    """Turn `plait.job.*.*` into the destination with the same tokens below `plait.wake.`."""
    parts = subjects.wake(pattern).split(".")
    wildcards = iter(range(1, len(parts)))
    return ".".join(f"{{{{wildcard({next(wildcards)})}}}}" if part == "*" else part for part in parts)
