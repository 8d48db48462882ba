"""Urgent jobs go first, and no priority that waits is passed over for ever."""

from __future__ import annotations

import secrets
from collections import Counter
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.protocol.pb import gateway_pb2
from plait_node.broker import Broker
from plait_node.broker.face import PRIORITIES
from plait_node.broker.turns import PATIENCE, Turns

waiting_sets = st.sets(st.sampled_from(PRIORITIES))


def take(turns: Turns, waiting: set[int]) -> int | None:
    """Take a turn as a reader does: look in order, stop at the first that waits."""
    found = next((priority for priority in turns.order() if priority in waiting), None)
    if found is None:
        turns.idle()
    else:
        turns.served(found)
    return found


@given(st.lists(waiting_sets, max_size=200))
def test_turns_serve_whenever_something_waits(history: list[set[int]]) -> None:
    turns = Turns()
    for waiting in history:
        assert sorted(turns.order()) == list(PRIORITIES)
        served = take(turns, waiting)
        assert (served is None) == (not waiting)
        assert served is None or served in waiting


@given(before=st.lists(waiting_sets, max_size=50), others=st.lists(waiting_sets, min_size=12, max_size=60))
@pytest.mark.parametrize("priority", list(PATIENCE))
def test_turns_never_pass_over_who_waits_for_longer_than_its_patience(
    priority: int, before: list[set[int]], others: list[set[int]]
) -> None:
    turns, passed = Turns(), 0
    for waiting in before:
        take(turns, waiting)
    for waiting in others:
        served = take(turns, waiting | {priority})
        passed = 0 if served == priority else passed + 1
        assert passed <= PATIENCE[priority] + len(PATIENCE) - 1


@given(st.lists(waiting_sets, min_size=9, max_size=90))
def test_turns_leave_most_of_them_to_urgent_jobs(others: list[set[int]]) -> None:
    turns = Turns()
    served = [take(turns, waiting | {0}) for waiting in others]
    for start in range(len(served) - 8):
        assert served[start : start + 9].count(0) >= 6


async def test_urgent_jobs_without_end_starve_nobody(broker: Broker) -> None:
    group, taken = secrets.token_bytes(8), list[int]()

    async def publish(priority: int) -> None:
        call = gateway_pb2.JobCall(prompt=bytes([priority]))
        await broker.publish_job(group, priority, call, request=secrets.token_bytes(32))

    for priority in PRIORITIES:
        for _ in range(10 if priority else 3):
            await publish(priority)
    async with aclosing(broker.jobs(group)) as jobs:
        for _ in range(45):
            await publish(0)  # so that an urgent job always waits
            delivery = await anext(jobs)
            taken.append(delivery.call.prompt[0])
            await delivery.ack()

    shares = Counter(taken)
    print(f"\n45 turns while urgent jobs always waited: {dict(sorted(shares.items()))}")  # noqa: T201 - who got what is worth reading
    assert taken[0] == 0
    assert shares[1] >= 45 // (PATIENCE[1] + 2)
    assert shares[2] >= 45 // (PATIENCE[2] + 2)
    assert shares[0] >= 45 * 6 // 9
