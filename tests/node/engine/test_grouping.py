"""In how many groups jobs go round: whatever gives most rows a second."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from plait_node.engine.grouping import Grouping

PAIRS, HALVES, ALL = (2, 2), (4, 4), (8, 8)
FREE = (1, None)


class World:
    """Passes that end one after the other, at so many rows a second for the bounds in force."""

    def __init__(self, rates: Mapping[tuple[int, int | None], float], *, jobs: int = 8) -> None:
        self.grouping = Grouping()
        self.rates = rates
        self.jobs = jobs
        self.now = 0.0
        self.seconds: dict[tuple[int, int | None], float] = {}

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            bounds = self.grouping.bounds(self.jobs)
            rows = bounds[1] or 1
            took = rows / self.rates.get(bounds, 50.0)
            self.seconds[bounds] = self.seconds.get(bounds, 0.0) + took
            self.now += took
            self.grouping.gave(rows, jobs=self.jobs, now=self.now)

    def share(self, bounds: tuple[int, int | None], seconds: float) -> float:
        """Return the share of the next seconds that go by under these bounds."""
        self.seconds.clear()
        self.run(seconds)
        return self.seconds.get(bounds, 0.0) / sum(self.seconds.values())


@pytest.mark.parametrize("best", [FREE, PAIRS, HALVES, ALL])
def test_grouping_keeps_what_gives_most(best: tuple[int, int | None]) -> None:
    world = World({best: 100.0})
    world.run(60)
    assert world.share(best, 200) > 0.85


def test_grouping_is_free_where_nothing_is_better() -> None:
    world = World({FREE: 50.0, HALVES: 52.0, ALL: 51.0})  # within what a busy machine makes of the same
    world.run(60)
    assert world.share(FREE, 200) > 0.85


def test_grouping_finds_out_that_the_world_changed() -> None:
    world = World({ALL: 100.0})
    world.run(60)
    world.rates = {FREE: 200.0, HALVES: 60.0, ALL: 60.0}
    world.run(300)
    assert world.share(FREE, 200) > 0.85


def test_grouping_tries_seldom_what_never_pays() -> None:
    world = World({FREE: 100.0})
    world.run(1_000)
    assert world.share(FREE, 1_000) > 0.92


def test_grouping_one_job_goes_alone() -> None:
    world = World({}, jobs=1)
    world.run(100)
    assert set(world.seconds) == {FREE}


@pytest.mark.parametrize("jobs", range(1, 40))
def test_grouping_bounds_always_let_a_pass_begin(jobs: int) -> None:
    grouping = Grouping()
    now = 0.0
    for _ in range(3_000):
        least, most = grouping.bounds(jobs)
        assert 1 <= least <= jobs
        assert most is None or least <= most <= jobs
        now += 0.02
        grouping.gave(min(jobs, most or jobs), jobs=jobs, now=now)


def test_grouping_jobs_that_come_and_go_do_not_hinder_it() -> None:
    world = World({(3, 4): 100.0, (4, 4): 100.0})
    for turn in range(120):
        world.jobs = 8 - turn % 2
        world.run(1)
    assert world.share((4, 4), 50) + world.share((3, 4), 1) > 0.8


def test_grouping_does_not_count_the_time_of_prompts() -> None:
    world = World({HALVES: 100.0})
    for _ in range(600):
        world.run(0.1)
        took = 5.0 if world.grouping.bounds(8) == HALVES else 0.1
        world.grouping.prompts(took)
        world.now += took
    assert world.share(HALVES, 200) > 0.8
