"""What the gateways of one operator share, on a nats-server: a bucket of leases, a stream of logs, a stream of jobs."""

from __future__ import annotations

import secrets
from typing import cast, get_args

from google.protobuf.message import DecodeError

from plait.protocol.ids import keccak
from plait.protocol.pb import gateway_pb2
from plait_node.broker import subjects
from plait_node.broker.connection import Connection, Stored
from plait_node.broker.errors import UnreadableMessageError
from plait_node.broker.leases import LEASE_LIFE_S, LogRecord, LogRow, RecordKind

_KIND, _HOLDER, _AT, _EARNED = "Plait-Kind", "Plait-Holder", "Plait-At", "Plait-Earned"


class NatsShared:
    """`Shared` over one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def renew(self, gateway: bytes, holder: str, url: str) -> None:
        """Say that a gateway lives."""
        await self._connection.put(subjects.LEASES_BUCKET, subjects.lease_key(gateway, holder), url.encode())

    async def give_back(self, gateway: bytes, holder: str) -> None:
        """Take that word back."""
        await self._connection.put(subjects.LEASES_BUCKET, subjects.lease_key(gateway, holder), None)

    async def living(self, gateway: bytes) -> dict[str, str]:
        """Return the living gateways."""
        found: dict[str, str] = {}
        subject, last = f"$KV.{subjects.LEASES_BUCKET}.{subjects.lease_key(gateway, '*')}", 0
        while (row := await self._connection.next_after(subjects.LEASES_STREAM, subject, last)) is not None:
            last = row.sequence
            if "KV-Operation" not in row.headers:
                found[row.subject.rsplit(".", 1)[1]] = row.data.decode(errors="replace")
        return found

    async def append(self, gateway: bytes, channel: bytes, record: LogRecord, *, after: int) -> int | None:
        """Store a record behind the row `after`."""
        headers = {_KIND: record.kind, _HOLDER: record.holder, _AT: str(record.at), _EARNED: str(record.earned)}
        # The name makes a retry of this very call harmless, and of no other: a fence has no content to tell it by.
        own = keccak(record.body).hex() if record.body else secrets.token_hex(8)
        subject = subjects.book(gateway, channel)
        name = subjects.message_id(subject, f"{after}.{record.holder}.{own}")
        return await self._connection.append(subject, record.body, name=name, headers=headers, after=after)

    async def last(self, gateway: bytes, channel: bytes) -> LogRow | None:
        """Return the last row of a log."""
        row = await self._connection.last_of(subjects.BOOKS.name, subjects.book(gateway, channel))
        return None if row is None else _row(row)

    async def rows(self, gateway: bytes, channel: bytes, *, after: int, most: int) -> list[LogRow]:
        """Return the first rows after a place."""
        found: list[LogRow] = []
        subject, last = subjects.book(gateway, channel), after
        while len(found) < most:
            row = await self._connection.next_after(subjects.BOOKS.name, subject, last)
            if row is None:
                break
            last = row.sequence
            found.append(_row(row))
        return found

    async def channels(self, gateway: bytes) -> list[bytes]:
        """Return the channels that have a log."""
        found = await self._connection.subjects_of(subjects.BOOKS.name, subjects.books(gateway))
        return [bytes.fromhex(subject.rsplit(".", 1)[1]) for subject in found]

    async def keep_job(self, gateway: bytes, request: bytes, call: gateway_pb2.JobCall) -> None:
        """Keep a job."""
        subject = subjects.taken(gateway, request)
        await self._connection.publish(subject, call.SerializeToString(), name=subjects.message_id(subject, "kept"))

    async def forget_job(self, gateway: bytes, request: bytes) -> None:
        """Drop a job that ended."""
        subject = subjects.taken(gateway, request)
        await self._connection.publish(subject, b"", name=subjects.message_id(subject, "gone"), last_s=1)

    async def job(self, gateway: bytes, request: bytes) -> gateway_pb2.JobCall | None:
        """Return a job."""
        row = await self._connection.last_of(subjects.TAKEN.name, subjects.taken(gateway, request))
        if row is None or not row.data:
            return None
        try:
            return gateway_pb2.JobCall.FromString(row.data)
        except DecodeError as error:
            raise UnreadableMessageError(row.subject, error) from error


async def ensure_shared(connection: Connection) -> None:
    """Make the bucket of leases; the streams are among `subjects.STREAMS`."""
    await connection.ensure_bucket(subjects.LEASES_BUCKET, life_s=LEASE_LIFE_S, kept=1)


def _row(row: Stored) -> LogRow:
    kind = row.headers.get(_KIND, "")
    try:
        if kind not in get_args(RecordKind):
            raise ValueError(f"a record of kind {kind!r}")
        record = LogRecord(
            kind=cast("RecordKind", kind),
            holder=row.headers.get(_HOLDER, ""),
            body=row.data,
            at=int(row.headers.get(_AT, "")),
            earned=int(row.headers.get(_EARNED, "")),
        )
    except ValueError as error:
        raise UnreadableMessageError(row.subject, error) from error
    return LogRow(sequence=row.sequence, record=record)
