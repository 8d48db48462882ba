"""Jobs that no worker could take, kept for a week: what an operator may read, queue again or drop."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from plait.protocol.pb import gateway_pb2
from plait_node.broker import subjects
from plait_node.broker.connection import Connection, Stored
from plait_node.broker.face import PRIORITIES, DeadLetter

# Of jobs and letters alike: the request's digest, and how often the job was handed out before it was queued again.
REQUEST_HEADER = "Plait-Request"
BEFORE_HEADER = "Plait-Before"
_REASON_HEADER = "Plait-Reason"
_PRIORITY_HEADER = "Plait-Priority"
_MOST_REASON = 500


class DeadLetters:
    """The dead letters of a broker."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def keep(self, letter: DeadLetter, *, of: int) -> None:
        """Keep a letter about the job that has sequence `of`; the same one again is kept once."""
        await self._connection.publish(
            subjects.dead(letter.group, letter.request),
            letter.call.SerializeToString(),
            name=f"dead.{letter.request.hex()}.{of}",
            headers={
                _REASON_HEADER: " ".join(letter.reason.split())[:_MOST_REASON],
                _PRIORITY_HEADER: str(letter.priority),
                BEFORE_HEADER: str(letter.deliveries),
            },
        )

    async def all(self) -> list[DeadLetter]:
        """Return the letters, oldest first; unreadable ones are left out."""
        letters: list[DeadLetter] = []
        last = 0
        while (row := await self._connection.next_after(subjects.DEAD.name, subjects.DEAD.pattern, last)) is not None:
            last = row.sequence
            letter = _read(row)
            if letter is not None:
                letters.append(letter)
        return letters

    async def requeue(self, letter: DeadLetter) -> bool:
        """Queue the job again under its priority and forget the letter; return False when that was done before.

        What told the job's followers that it was given up is taken back; who read that already has turned away.
        """
        gateway = letter.call.quote.message.gateway
        if len(gateway) == 20:
            given_up = subjects.result(gateway, letter.request, subjects.NOBODY)
            await self._connection.purge(subjects.RESULTS.name, given_up)
        fresh = await self._connection.publish(
            subjects.job(letter.group, letter.priority),
            letter.call.SerializeToString(),
            name=f"{letter.request.hex()}.again.{letter.sequence}",
            headers={REQUEST_HEADER: letter.request.hex(), BEFORE_HEADER: str(letter.deliveries)},
        )
        await self.drop(letter)
        return fresh

    async def drop(self, letter: DeadLetter) -> None:
        """Forget a letter."""
        await self._connection.delete(subjects.DEAD.name, letter.sequence)


def count_of(headers: dict[str, str], name: str, *, most: int) -> int:
    """Return the whole number in a header, 0 for what is none or above `most`."""
    text = headers.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 7 and int(text) <= most else 0


def _read(row: Stored) -> DeadLetter | None:
    try:
        call = gateway_pb2.JobCall.FromString(row.data)
        group, request = (bytes.fromhex(part) for part in row.subject.split(".")[2:])
    except (DecodeError, ValueError):
        return None
    return DeadLetter(
        group=group,
        request=request,
        priority=count_of(row.headers, _PRIORITY_HEADER, most=max(PRIORITIES)),
        deliveries=count_of(row.headers, BEFORE_HEADER, most=100_000),
        reason=row.headers.get(_REASON_HEADER, ""),
        call=call,
        sequence=row.sequence,
        at=row.headers.get("Nats-Time-Stamp", ""),
    )
