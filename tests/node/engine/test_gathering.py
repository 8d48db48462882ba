"""Whether a pass waits for rows on their way."""

from __future__ import annotations

import pytest

from plait.protocol.ids import keccak
from plait_node.engine.gathering import Gathering

ONE, TWO = keccak(b"1"), keccak(b"2")


def seen(turnaround: float) -> Gathering:
    """Return a gathering of two jobs that came back once after this time, in seconds."""
    made = Gathering()
    made.gave([ONE, TWO], now=0.0, pass_s=1.0)
    assert made.wait_s(now=0.0) == 0.0  # nothing is known yet
    made.came(ONE, now=turnaround)
    made.came(TWO, now=turnaround)
    return made


def test_wait_for_who_is_back_soon() -> None:
    made = seen(0.1)
    made.gave([ONE, TWO], now=10.0, pass_s=1.0)
    assert made.wait_s(now=10.0) == pytest.approx(0.2)
    made.came(ONE, now=10.1)
    assert made.wait_s(now=10.1) == pytest.approx(0.1)
    made.came(TWO, now=10.12)
    assert made.wait_s(now=10.12) == 0.0


def test_wait_ends_for_who_is_late_or_gone() -> None:
    made = seen(0.1)
    made.gave([ONE, TWO], now=10.0, pass_s=1.0)
    assert made.wait_s(now=10.21) == 0.0
    made.gave([ONE, TWO], now=20.0, pass_s=1.0)
    made.left(ONE)
    made.left(TWO)
    assert made.wait_s(now=20.0) == 0.0


def test_wait_for_nobody_where_a_turnaround_is_no_shorter_than_a_pass() -> None:
    made = seen(0.6)
    made.gave([ONE, TWO], now=10.0, pass_s=1.0)
    assert made.wait_s(now=10.0) == 0.0
    made.gave([ONE, TWO], now=20.0, pass_s=2.0)
    assert made.wait_s(now=20.0) == pytest.approx(1.0)


def test_wait_is_not_spoilt_by_a_jobs_pause() -> None:
    made = seen(0.1)
    made.gave([ONE], now=10.0, pass_s=1.0)
    made.came(ONE, now=12.0)
    made.gave([ONE], now=20.0, pass_s=1.0)
    assert made.wait_s(now=20.0) == pytest.approx(0.5)  # never longer than half a pass
    made.came(ONE, now=20.1)
    made.gave([ONE], now=30.0, pass_s=1.0)
    made.came(ONE, now=30.1)
    made.gave([ONE], now=40.0, pass_s=1.0)
    assert 0.2 < made.wait_s(now=40.0) < 0.5
    made.came(TWO, now=50.0)  # it got no row: that says nothing
    assert 0.2 < made.wait_s(now=40.0) < 0.5
