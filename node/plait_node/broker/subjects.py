"""Names on the broker: streams, subjects, message ids (PROTOCOL section 8). Addresses and hashes are hex without 0x."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

# Seconds. A request lives at most an hour past its acceptance; receipts and jobs count until 30 minutes later.
_HOUR = 3600.0
_ANSWER_LIFE_S = 2 * _HOUR
_DEAD_LIFE_S = 7 * 24 * _HOUR
# Nobody waits for acknowledgements: who looks at them does so at once.
_ACK_LIFE_S = 300.0
# A call that is made again is made within 20 s. The server keeps each id in memory for so long: of an answer's events,
# a few hundred bytes each, far more than of all else.
_REPEAT_S = 120.0
# What is last of its subject is kept for this long after a job ended: as long as a worker may wait for it, and longer.
LAST_LIFE_S = 120

OFFERS_BUCKET = "plait-workers"
OFFERS_STREAM = f"KV_{OFFERS_BUCKET}"
PROMPTS_BUCKET = "plait-prompts"
PROMPTS_STREAM = f"KV_{PROMPTS_BUCKET}"
LEASES_BUCKET = "plait-leases"
LEASES_STREAM = f"KV_{LEASES_BUCKET}"
# The owner that a result names when the broker's edge itself reports a job that nobody could take.
NOBODY = bytes(20)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPlan:
    """What a stream keeps, for how long, and for how long it recognises a repeated message id.

    Where it `closes`, a message may end its subject: it takes the place of all before it, and goes soon.
    """

    name: str
    pattern: str
    life_s: float
    repeat_s: float
    queue: bool = False
    wake: bool = True
    closes: bool = False


JOBS = StreamPlan(name="PLAIT_JOBS", pattern="plait.job.*.*", life_s=_HOUR, repeat_s=_HOUR, queue=True)
RESULTS = StreamPlan(name="PLAIT_RESULTS", pattern="plait.result.*.*.*", life_s=_ANSWER_LIFE_S, repeat_s=_REPEAT_S)
PAYS = StreamPlan(name="PLAIT_PAYS", pattern="plait.pay.*.*", life_s=_ANSWER_LIFE_S, repeat_s=_REPEAT_S, closes=True)
ACKS = StreamPlan(name="PLAIT_ACKS", pattern="plait.ack.*.*", life_s=_ACK_LIFE_S, repeat_s=_REPEAT_S)
DEAD = StreamPlan(name="PLAIT_DEAD", pattern="plait.dead.*.*", life_s=_DEAD_LIFE_S, repeat_s=_HOUR, wake=False)
# Money: kept for good (0), as the journals are that are made of it.
BOOKS = StreamPlan(name="PLAIT_BOOKS", pattern="plait.book.*.*", life_s=0.0, repeat_s=_REPEAT_S, wake=False)
TAKEN = StreamPlan(
    name="PLAIT_TAKEN",
    pattern="plait.taken.*.*",
    life_s=_ANSWER_LIFE_S,
    repeat_s=_REPEAT_S,
    wake=False,
    closes=True,
)
STREAMS = (JOBS, RESULTS, PAYS, ACKS, DEAD, BOOKS, TAKEN)
ALL_STREAMS = (*(plan.name for plan in STREAMS), OFFERS_STREAM, PROMPTS_STREAM, LEASES_STREAM)


def job(group: bytes, priority: int) -> str:
    """Name where jobs of a group and priority wait."""
    return f"plait.job.{_hex(group, 8)}.{priority}"


def jobs(group: bytes) -> str:
    """Match a group's jobs of every priority."""
    return f"plait.job.{_hex(group, 8)}.*"


def consumer(group: bytes, priority: int) -> str:
    """Name the durable consumer that a group's workers share."""
    return f"group-{_hex(group, 8)}-{priority}"


def result(gateway: bytes, request: bytes, worker: bytes) -> str:
    """Name where a worker publishes an answer."""
    return f"plait.result.{_hex(gateway, 20)}.{_hex(request, 32)}.{_hex(worker, 20)}"


def results(gateway: bytes, request: bytes) -> str:
    """Match every worker's events of an answer."""
    return f"plait.result.{_hex(gateway, 20)}.{_hex(request, 32)}.*"


def pay(worker: bytes, request: bytes) -> str:
    """Name where payments for a worker's request arrive."""
    return f"plait.pay.{_hex(worker, 20)}.{_hex(request, 32)}"


def ack(gateway: bytes, request: bytes) -> str:
    """Name where a worker acknowledges forwarded payments."""
    return f"plait.ack.{_hex(gateway, 20)}.{_hex(request, 32)}"


def dead(group: bytes, request: bytes) -> str:
    """Name where a job that was given up is kept."""
    return f"plait.dead.{_hex(group, 8)}.{_hex(request, 32)}"


def book(gateway: bytes, channel: bytes) -> str:
    """Name the log of a channel that pays an owner's gateways."""
    return f"plait.book.{_hex(gateway, 20)}.{_hex(channel, 32)}"


def books(gateway: bytes) -> str:
    """Match the logs of an owner's channels."""
    return f"plait.book.{_hex(gateway, 20)}.*"


def taken(gateway: bytes, request: bytes) -> str:
    """Name where an owner's gateways keep a job that one of them took."""
    return f"plait.taken.{_hex(gateway, 20)}.{_hex(request, 32)}"


def message_id(subject: str, key: str) -> str:
    """Name a message of a subject for the server, which keeps it with the message and, for a while, in memory."""
    return hashlib.blake2b(f"{subject}.{key}".encode(), digest_size=16).hexdigest()


def lease_key(gateway: bytes, holder: str) -> str:
    """Name the lease of one of an owner's gateways in the bucket."""
    return f"{_hex(gateway, 20)}.{holder}"


def wake(subject: str) -> str:
    """Name where the server repeats the headers of what it stored, so that readers wake without polling."""
    return subject.replace("plait.", "plait.wake.", 1)


def offer_key(worker: bytes, model: bytes, group: bytes) -> str:
    """Name a worker's offer for a model in the bucket: an owner may have workers of a model in several groups."""
    return f"{_hex(model, 32)}.{_hex(worker, 20)}.{_hex(group, 8)}"


def prompt_key(request: bytes) -> str:
    """Name where deliveries of an on-chain request's prompt lie in their bucket."""
    return _hex(request, 32)


def _hex(value: bytes, size: int) -> str:
    if len(value) != size:
        raise ValueError(f"a name on the broker needs {size} bytes, got {len(value)}")
    return value.hex()
