"""What each user of a broker may publish and hear: no more than its role needs.

Three limits of what subjects can say. Whoever may read a stream reads all of it, so a worker can read what gateways
forward to other workers of this broker (payments signed by payers; prompts and answers are sealed). A worker may end an
answer as given up, because any worker of a group may be the one that finds a job handed out too often. And a worker may
serve every group of its model and device: which tier it has earned, gateways check against the chain.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from plait.protocol.ids import Address, Group
from plait_node.broker import subjects
from plait_node.broker.access import inbox
from plait_node.broker.face import PRIORITIES

_API = "$JS.API"
_ANY_REQUEST, _ANY_GATEWAY, _ANY_WORKER = "*", "*", "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A user as a server knows it; `name` is for people."""

    name: str
    nkey: str  # public
    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def gateway_user(nkey: str, owner: Address) -> User:
    """Return an owner's gateways: they queue jobs, forward payments, follow their own answers, read offers."""
    me = owner.hex()
    return User(
        name=f"gateway {me}",
        nkey=nkey,
        publish=(
            *_looks(),
            subjects.JOBS.pattern,
            subjects.PAYS.pattern,
            f"$KV.{subjects.PROMPTS_BUCKET}.*",
            *_reads(subjects.RESULTS.name, subjects.ACKS.name, subjects.OFFERS_STREAM),
            *_shares(owner),
            f"{_API}.STREAM.PURGE.{subjects.RESULTS.name}",
            f"{_API}.CONSUMER.INFO.{subjects.JOBS.name}.*",
        ),
        subscribe=(
            f"{inbox(nkey)}.>",
            subjects.wake(f"plait.result.{me}.{_ANY_REQUEST}.{_ANY_WORKER}"),
            subjects.wake(f"plait.ack.{me}.{_ANY_REQUEST}"),
        ),
    )


def worker_user(nkey: str, owner: Address, groups: Sequence[Group]) -> User:
    """Return an owner's workers of these groups: they take jobs, answer as themselves, offer as themselves."""
    me = owner.hex()
    return User(
        name=f"worker {me}",
        nkey=nkey,
        publish=(
            *_looks(),
            *(subject for group in groups for subject in _group_calls(group)),
            f"plait.result.{_ANY_GATEWAY}.{_ANY_REQUEST}.{me}",
            f"plait.result.{_ANY_GATEWAY}.{_ANY_REQUEST}.{subjects.NOBODY.hex()}",
            subjects.ACKS.pattern,
            f"$KV.{subjects.OFFERS_BUCKET}.*.{me}.*",
            *_reads(subjects.PAYS.name, subjects.RESULTS.name, subjects.PROMPTS_STREAM),
        ),
        subscribe=(
            f"{inbox(nkey)}.>",
            *(subjects.wake(subjects.jobs(group)) for group in groups),
            subjects.wake(f"plait.pay.{me}.{_ANY_REQUEST}"),
            subjects.wake(subjects.RESULTS.pattern),
        ),
    )


def operator_user(nkey: str) -> User:
    """Return who makes the streams and looks after dead letters; no running node holds this key."""
    made = [f"{_API}.STREAM.{act}.{name}" for name in subjects.ALL_STREAMS for act in ("CREATE", "UPDATE")]
    return User(
        name="operator",
        nkey=nkey,
        publish=(
            *_looks(),
            *made,
            *_reads(subjects.DEAD.name),
            f"{_API}.STREAM.MSG.DELETE.{subjects.DEAD.name}",
            f"{_API}.STREAM.PURGE.{subjects.RESULTS.name}",
            subjects.JOBS.pattern,
        ),
        subscribe=(f"{inbox(nkey)}.>",),
    )


def _looks() -> Iterator[str]:
    return (f"{_API}.STREAM.INFO.{name}" for name in subjects.ALL_STREAMS)


def _reads(*streams: str) -> Iterator[str]:
    return (f"{_API}.DIRECT.GET.{name}" for name in streams)


def _shares(owner: Address) -> Iterator[str]:
    """Yield what an owner's gateways write for each other, and what they read of it."""
    me = owner.hex()
    yield f"$KV.{subjects.LEASES_BUCKET}.{me}.*"
    yield subjects.books(owner)
    yield f"plait.taken.{me}.{_ANY_REQUEST}"
    yield from _reads(subjects.LEASES_STREAM, subjects.BOOKS.name)
    yield f"{_API}.DIRECT.GET.{subjects.BOOKS.name}.{subjects.books(owner)}"
    yield f"{_API}.DIRECT.GET.{subjects.TAKEN.name}.plait.taken.{me}.{_ANY_REQUEST}"


def _group_calls(group: Group) -> Iterator[str]:
    """Yield what a worker of a group says to the consumers it shares, and where it puts what nobody could take."""
    jobs = subjects.JOBS.name
    for priority in PRIORITIES:
        consumer = subjects.consumer(group, priority)
        yield f"{_API}.CONSUMER.CREATE.{jobs}.{consumer}.{subjects.job(group, priority)}"
        yield f"{_API}.CONSUMER.MSG.NEXT.{jobs}.{consumer}"
        yield f"$JS.ACK.{jobs}.{consumer}.>"
    yield f"plait.dead.{group.hex()}.*"
