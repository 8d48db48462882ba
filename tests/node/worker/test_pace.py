"""How long an attempt took, payer's pauses left out."""

from __future__ import annotations

from plait_node.worker.pace import Pace


def test_pace_counts_from_the_beginning_to_the_newest_token() -> None:
    pace = Pace(10.0)
    assert (pace.first_s, pace.seconds) == (0.0, 0.0)
    pace.token(12.0)
    pace.token(15.0)
    assert (pace.first_s, pace.seconds) == (2.0, 5.0)


def test_pace_leaves_out_what_the_payer_let_it_wait() -> None:
    pace = Pace(0.0)
    pace.token(1.0)
    pace.wait(1.0, starved=False)
    pace.wait(2.0, starved=True)
    pace.wait(3.0, starved=True)
    pace.wait(6.0, starved=False)
    pace.token(7.0)
    assert (pace.first_s, pace.seconds) == (1.0, 3.0)
