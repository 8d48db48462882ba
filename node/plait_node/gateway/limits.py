"""Bounds on what strangers may send, a bucket of calls for each of them, and when a refused one may come back."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from plait.protocol.errors import PlaitError, TooManyCallsError

BODY_BYTES = 900 * 1024
# 4,096 ids sealed, 21 KiB at most, and 8 capsules of the largest kind, with room to spare.
PROMPT_BODY_BYTES = 64 * 1024
# Prompts from one address: in the second until the worker looks, fewer than the broker keeps of one request.
PROMPTS_PER_S, PROMPTS_BURST = 4.0, 12.0
# Unsigned calls from one address: three stand before a job, and hundreds of callers behind one address may begin at
# once. None of them is refused here where the queue is what is full.
CALLS_PER_S, CALLS_BURST = 50.0, 1_000.0
# Jobs of one payer: more than any queue takes may come at once, so that a full queue says so itself.
JOBS_PER_S, JOBS_BURST = 20.0, 400.0
MOST_STREAMS = 1_000
STREAMS_A_REQUEST = 4
_MOST_CALLERS = 10_000
# Seconds after which a refused call may help, where the error itself says nothing: a broker's cluster chooses a leader
# within 6 s, a worker whose route came back offers itself within a second, and gateways read offers every second.
_COME_BACK_S: Mapping[str, float] = {"no_route": 5.0, "broker_away": 3.0, "stopped": 3.0}


def retry_after_s(error: PlaitError) -> int:
    """Return what `Retry-After` says of an error, in whole seconds; 0 when the same call cannot help."""
    if not error.retry:
        return 0
    return max(1, math.ceil(error.retry_after_s or _COME_BACK_S.get(error.code, 1.0)))


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float


class CallLimiter:
    """A bucket of calls for each caller: for each address of unsigned or badly signed ones, for each payer of jobs."""

    def __init__(self, clock: Callable[[], float], *, per_s: float = CALLS_PER_S, burst: float = CALLS_BURST) -> None:
        self._clock = clock
        self._per_s = per_s
        self._burst = burst
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def check(self, caller: str) -> None:
        """Raise `TooManyCallsError`, which says when to come back, while the caller has no call left."""
        left = self._bucket(caller).left
        if left < 1.0:
            text = f"too many calls from {caller}; at most {self._per_s:.0f} a second: wait a moment"
            error = TooManyCallsError(text)
            error.retry_after_s = (1.0 - left) / self._per_s
            raise error

    def charge(self, caller: str) -> None:
        """Take one call from the caller."""
        bucket = self._bucket(caller)
        bucket.left = max(0.0, bucket.left - 1.0)

    def _bucket(self, caller: str) -> _Bucket:
        now = self._clock()
        bucket = self._buckets.get(caller)
        if bucket is None:
            if len(self._buckets) >= _MOST_CALLERS:
                self._buckets.popitem(last=False)
            bucket = self._buckets[caller] = _Bucket(self._burst, now)
        else:
            self._buckets.move_to_end(caller)
            bucket.left = min(self._burst, bucket.left + max(0.0, now - bucket.at) * self._per_s)
            bucket.at = now
        return bucket
