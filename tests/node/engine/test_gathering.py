"""Whether a pass waits for rows on their way."""

from __future__ import annotations

import pytest
from tests.node.engine.pipeline import Pipeline, name

from plait_node.engine.gathering import Gathering

ONE, TWO, THREE, FOUR = name(1), name(2), name(3), name(4)
BOTH = (ONE, TWO)


def seen(turnaround: float, *, entry: bool = False) -> Gathering:
    """Return a gathering of two jobs that came back once after this time, in seconds."""
    made = Gathering(entry=entry)
    gave(made, now=0.0)
    assert made.wait_s((), now=0.0, prompts=False) == 0.0  # nothing is known yet
    made.came(ONE, now=turnaround)
    made.came(TWO, now=turnaround)
    return made


def gave(made: Gathering, *, now: float, pass_s: float = 1.0) -> None:
    made.gave(BOTH, now=now, pass_s=pass_s, prompts=False)


def test_wait_for_who_is_back_soon() -> None:
    made = seen(0.1)
    gave(made, now=10.0)
    assert made.wait_s((), now=10.0, prompts=False) == pytest.approx(0.2)
    made.came(ONE, now=10.1)
    assert made.wait_s({ONE}, now=10.1, prompts=False) == pytest.approx(0.1)
    made.came(TWO, now=10.12)
    assert made.wait_s(BOTH, now=10.12, prompts=False) == 0.0


def test_wait_ends_for_who_is_late_or_gone() -> None:
    made = seen(0.1)
    gave(made, now=10.0)
    assert made.wait_s((), now=10.21, prompts=False) == 0.0
    gave(made, now=20.0)
    made.left(ONE)
    made.left(TWO)
    assert made.wait_s((), now=20.0, prompts=False) == 0.0


def test_wait_for_nobody_where_a_turnaround_is_no_shorter_than_a_pass() -> None:
    made = seen(0.6)
    gave(made, now=10.0)
    assert made.wait_s((), now=10.0, prompts=False) == 0.0
    gave(made, now=20.0, pass_s=2.0)
    assert made.wait_s((), now=20.0, prompts=False) == pytest.approx(1.0)


def test_wait_is_not_spoilt_by_a_jobs_pause() -> None:
    made = seen(0.1)
    for now, back in ((10.0, 12.0), (20.0, 20.1), (30.0, 30.1)):
        made.gave([ONE], now=now, pass_s=1.0, prompts=False)
        assert made.wait_s((), now=now, prompts=False) <= 0.5  # never longer than half a pass
        made.came(ONE, now=back)
    made.gave([ONE], now=40.0, pass_s=1.0, prompts=False)
    assert 0.2 < made.wait_s((), now=40.0, prompts=False) < 0.5
    made.came(TWO, now=50.0)  # it got no row since: that says nothing
    assert 0.2 < made.wait_s((), now=40.0, prompts=False) < 0.5


def test_wait_for_who_came_right_behind_the_last_time() -> None:
    made = seen(3.0)
    gave(made, now=4.0)
    made.came(ONE, now=7.0)
    made.came(TWO, now=7.02)
    gave(made, now=8.5)
    made.came(ONE, now=11.5)
    assert made.wait_s({ONE}, now=11.5, prompts=False) == pytest.approx(0.5)  # half a pass
    made.came(TWO, now=11.53)
    assert made.wait_s(BOTH, now=11.53, prompts=False) == 0.0


def test_wait_for_who_came_right_behind_ends_when_it_does_not_come() -> None:
    made = seen(3.0)
    gave(made, now=4.0)
    made.came(ONE, now=7.0)
    made.came(TWO, now=7.3)
    gave(made, now=8.5)
    made.came(ONE, now=11.5)
    assert made.wait_s({ONE}, now=11.5, prompts=False) == pytest.approx(0.5)
    assert made.wait_s({ONE}, now=12.0, prompts=False) == 0.0
    made.gave([ONE], now=13.0, pass_s=1.0, prompts=False)
    made.came(ONE, now=16.0)
    assert made.wait_s({ONE}, now=16.0, prompts=False) == 0.0  # the other one did not go round with it


def test_wait_for_one_after_the_other_takes_no_longer_than_a_pass() -> None:
    made, jobs = Gathering(entry=False), (ONE, TWO, THREE, FOUR)
    for turn in range(4):
        made.gave(jobs, now=10.0 * turn, pass_s=1.0, prompts=False)
        if turn == 3:
            break
        for at, job in enumerate(jobs):
            made.came(job, now=10.0 * turn + 5 + 0.4 * at)
    for at, now in enumerate((35.0, 35.45, 35.9)):
        made.came(jobs[at], now=now)
        left = made.wait_s(jobs[: at + 1], now=now, prompts=False)
        assert left == pytest.approx(min(0.5, 36.0 - now))


def test_wait_for_nobody_who_came_much_later_the_last_time() -> None:
    made = seen(3.0)
    gave(made, now=4.0)
    made.came(ONE, now=7.0)
    made.came(TWO, now=7.6)
    gave(made, now=9.0)
    made.came(ONE, now=12.0)
    assert made.wait_s({ONE}, now=12.0, prompts=False) == 0.0


def test_pipeline_lone_job_never_waits() -> None:
    made = Pipeline(4, shared=True)
    made.join(ONE, at=0.0)
    assert made.run(10) == pytest.approx(1 / (4 * (0.011 + 0.0005)), rel=0.01)
    assert max(stage.longest_s for stage in made.stages) == 0.0


@pytest.mark.parametrize("jobs", [2, 8])
@pytest.mark.parametrize("shared", [True, False])
def test_pipeline_gives_more_rows_a_second_than_stages_that_take_what_waits(*, shared: bool, jobs: int) -> None:
    made, plain = _filled(jobs, shared=shared), _filled(jobs, shared=shared)
    for stage in plain.stages:
        stage.gathering.wait_s = lambda *_, **__: 0.0  # type: ignore[method-assign]
    made.run(25)
    gain = made.run(10) / plain.run(10)
    if shared:
        assert gain > 1.5
    else:
        assert gain > (1.15 if jobs >= 8 else 0.97)  # trials cost something, where nothing is won


@pytest.mark.parametrize("shared", [True, False])
def test_pipeline_waits_are_bounded_and_nobody_starves(*, shared: bool) -> None:
    made = _filled(8, shared=shared)
    for _ in range(10):
        made.run(3)
        rows = made.drawn.values()
        assert max(rows) - min(rows) <= 0.2 * max(rows) + 8
    assert made.stages[0].longest_s <= 0.26  # a group, and the pass that it missed
    assert max(stage.longest_s for stage in made.stages[1:]) <= 0.05


def test_pipeline_goes_on_when_jobs_leave_or_pause() -> None:
    made = _filled(8, shared=True)
    made.run(20)
    before = made.run(10)
    for job in range(3):
        made.leave(name(job))
    for job in range(3, 5):
        made.gone.add(name(job))  # it says nothing more, and is not closed
    made.run(10)
    assert made.run(10) > 0.5 * before
    made.leave(name(3))
    made.leave(name(4))
    made.join(name(100), at=made.now)
    made.run(10)
    assert made.drawn[name(100)] > 100


def _filled(jobs: int, *, shared: bool) -> Pipeline:
    made = Pipeline(4, shared=shared)
    for job in range(jobs):
        made.join(name(job), at=0.003 * job)
    return made
