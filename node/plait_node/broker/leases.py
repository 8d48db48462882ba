"""What the gateways of one operator share: who of them lives, a log for each channel, and the jobs that they took.

A log grows by compare-and-set: a record is stored only behind the row that its writer saw last. Whoever did not see the
newest row can therefore append nothing, however long it slept.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from plait.protocol.pb import gateway_pb2
from plait_node.broker.errors import BrokerClosedError

# A gateway renews its lease every second; one that stops is taken for gone after this time, by the broker's clock.
LEASE_LIFE_S = 3.0

# fence: a gateway took the channel over. pay: a payment. receipt: a receipt that passed. hop: what a gateway pays a
# worker of another owner out of what this channel paid.
RecordKind = Literal["fence", "pay", "receipt", "hop"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRecord:
    """One record of a channel's log, by the gateway `holder`; `at` in Unix seconds, `earned` in base units.

    `body` is a Payment for `pay` and `hop`, a ReceiptEntry for `receipt`, serialised.
    """

    kind: RecordKind
    holder: str
    body: bytes = b""
    at: int = 0
    earned: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRow:
    """A record with its place in the broker's stream; places of one channel only grow."""

    sequence: int
    record: LogRecord


class Shared(Protocol):
    """All calls raise `BrokerError`. Owners are 20 bytes, channels and requests 32; holders name gateways."""

    async def renew(self, gateway: bytes, holder: str, url: str) -> None:
        """Say that one of an owner's gateways lives, and where payers reach it, for `LEASE_LIFE_S` seconds."""
        ...

    async def give_back(self, gateway: bytes, holder: str) -> None:
        """Take that word back."""
        ...

    async def living(self, gateway: bytes) -> dict[str, str]:
        """Return the URLs of an owner's living gateways by holder."""
        ...

    async def append(self, gateway: bytes, channel: bytes, record: LogRecord, *, after: int) -> int | None:
        """Store a record behind the row `after`, 0 for none, and return its place; None when that is not the last row.

        A call that failed may have stored it all the same: the log says whether.
        """
        ...

    async def last(self, gateway: bytes, channel: bytes) -> LogRow | None:
        """Return the last row of a channel's log."""
        ...

    async def rows(self, gateway: bytes, channel: bytes, *, after: int, most: int) -> list[LogRow]:
        """Return the first rows of a channel's log after a place, oldest first, `most` at most."""
        ...

    async def channels(self, gateway: bytes) -> list[bytes]:
        """Return the channels that have a log."""
        ...

    async def keep_job(self, gateway: bytes, request: bytes, call: gateway_pb2.JobCall) -> None:
        """Keep a job that was taken, for as long as its answer is kept; again is no error."""
        ...

    async def forget_job(self, gateway: bytes, request: bytes) -> None:
        """Drop a job that ended."""
        ...

    async def job(self, gateway: bytes, request: bytes) -> gateway_pb2.JobCall | None:
        """Return a job that was taken."""
        ...


class MemoryShared:
    """The same within one process; `closed` says that the broker around it was closed."""

    def __init__(self, clock: Callable[[], float], closed: Callable[[], bool]) -> None:
        self._clock, self._closed = clock, closed
        self._numbers = itertools.count(1)
        self._leases: dict[tuple[bytes, str], tuple[float, str]] = {}
        self._logs: dict[tuple[bytes, bytes], list[LogRow]] = {}
        self._jobs: dict[tuple[bytes, bytes], bytes] = {}

    async def renew(self, gateway: bytes, holder: str, url: str) -> None:
        """Say that a gateway lives."""
        self._check_open()
        self._leases[gateway, holder] = (self._clock() + LEASE_LIFE_S, url)

    async def give_back(self, gateway: bytes, holder: str) -> None:
        """Take that word back."""
        self._check_open()
        self._leases.pop((gateway, holder), None)

    async def living(self, gateway: bytes) -> dict[str, str]:
        """Return the living gateways."""
        self._check_open()
        now = self._clock()
        found = self._leases.items()
        return {holder: url for (owner, holder), (until, url) in found if owner == gateway and until > now}

    async def append(self, gateway: bytes, channel: bytes, record: LogRecord, *, after: int) -> int | None:
        """Store a record behind the row `after`."""
        self._check_open()
        log = self._logs.setdefault((gateway, channel), [])
        if after != (log[-1].sequence if log else 0):
            return None
        log.append(LogRow(sequence=next(self._numbers), record=record))
        return log[-1].sequence

    async def last(self, gateway: bytes, channel: bytes) -> LogRow | None:
        """Return the last row of a log."""
        self._check_open()
        log = self._logs.get((gateway, channel))
        return log[-1] if log else None

    async def rows(self, gateway: bytes, channel: bytes, *, after: int, most: int) -> list[LogRow]:
        """Return the first rows after a place."""
        self._check_open()
        return [row for row in self._logs.get((gateway, channel), ()) if row.sequence > after][:most]

    async def channels(self, gateway: bytes) -> list[bytes]:
        """Return the channels that have a log."""
        self._check_open()
        return [channel for (owner, channel), log in self._logs.items() if owner == gateway and log]

    async def keep_job(self, gateway: bytes, request: bytes, call: gateway_pb2.JobCall) -> None:
        """Keep a job."""
        self._check_open()
        self._jobs.setdefault((gateway, request), call.SerializeToString())

    async def forget_job(self, gateway: bytes, request: bytes) -> None:
        """Drop a job that ended."""
        self._check_open()
        self._jobs.pop((gateway, request), None)

    async def job(self, gateway: bytes, request: bytes) -> gateway_pb2.JobCall | None:
        """Return a job."""
        self._check_open()
        kept = self._jobs.get((gateway, request))
        return None if kept is None else gateway_pb2.JobCall.FromString(kept)

    def _check_open(self) -> None:
        if self._closed():
            raise BrokerClosedError
