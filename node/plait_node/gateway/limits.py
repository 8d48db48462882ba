"""Bounds on what strangers may send, and a bucket of calls per address."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from plait.protocol.errors import TooManyCallsError

BODY_BYTES = 900 * 1024
# 4,096 ids sealed, 21 KiB at most, and 8 capsules of the largest kind, with room to spare.
PROMPT_BODY_BYTES = 64 * 1024
# Prompts from one address: in the second until the worker looks, fewer than the broker keeps of one request.
PROMPTS_PER_S, PROMPTS_BURST = 4.0, 12.0
MOST_STREAMS = 1_000
STREAMS_A_REQUEST = 4
_MOST_ADDRESSES = 10_000


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float


class AddressLimiter:
    """A bucket of unsigned (or badly signed) calls for each address."""

    def __init__(self, clock: Callable[[], float], *, per_s: float = 50.0, burst: float = 200.0) -> None:
        self._clock = clock
        self._per_s = per_s
        self._burst = burst
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def check(self, address: str) -> None:
        """Raise `TooManyCallsError` while the address has no call left."""
        if self._bucket(address).left < 1.0:
            raise TooManyCallsError(f"too many calls from {address}; at most {self._per_s:.0f} a second: wait a moment")

    def charge(self, address: str) -> None:
        """Take one call from the address."""
        bucket = self._bucket(address)
        bucket.left = max(0.0, bucket.left - 1.0)

    def _bucket(self, address: str) -> _Bucket:
        now = self._clock()
        bucket = self._buckets.get(address)
        if bucket is None:
            if len(self._buckets) >= _MOST_ADDRESSES:
                self._buckets.popitem(last=False)
            bucket = self._buckets[address] = _Bucket(self._burst, now)
        else:
            self._buckets.move_to_end(address)
            bucket.left = min(self._burst, bucket.left + max(0.0, now - bucket.at) * self._per_s)
            bucket.at = now
        return bucket
