"""What goes into a pass, whatever waits."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from plait.protocol.ids import keccak
from plait_node.engine.batching import FAIR_EVERY, Pace, Share, Waiting, compose

DECODE_ROWS = 16


def job(number: int, rows: int, *, whole: bool = False, priority: float = 0, step: int = 0, since: int = 0) -> Waiting:
    name = keccak(number.to_bytes(4, "big"))
    return Waiting(job=name, step=step, rows=rows, whole=whole, priority=priority, since=since)


@st.composite
def queues(draw: st.DrawFn) -> list[Waiting]:
    count = draw(st.integers(0, 12))
    return [
        job(
            number,
            draw(st.integers(1, 9)) if whole else draw(st.integers(1, 300)),
            whole=whole,
            priority=draw(st.integers(-3, 3)),
            step=draw(st.integers(0, 40)),
            since=draw(st.integers(0, 20)),
        )
        for number, whole in enumerate(draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    ]


budgets = st.integers(1, 40).map(lambda windows: 16 * windows)


@given(queues(), budgets, st.booleans())
def test_compose_is_within_its_bounds_and_takes_each_job_at_most_once(
    waiting: list[Waiting], budget: int, fair: bool
) -> None:
    shares = compose(waiting, decode_rows=DECODE_ROWS, budget=budget, fair=fair)
    by_job = {each.job: each for each in waiting}
    assert len({share.job for share in shares}) == len(shares)
    decodes = [share for share in shares if by_job[share.job].whole]
    prompts = [share for share in shares if not by_job[share.job].whole]
    assert all(share.rows == by_job[share.job].rows for share in decodes)
    assert sum(share.rows for share in decodes) <= DECODE_ROWS or len(decodes) == 1
    assert all(0 < share.rows <= by_job[share.job].rows for share in prompts)
    assert sum(share.rows for share in prompts) <= max(16, budget - sum(share.rows for share in decodes))
    assert bool(decodes) == any(each.whole for each in waiting)
    assert bool(prompts) == any(not each.whole for each in waiting)


@given(queues(), budgets)
def test_compose_splits_prompts_at_whole_windows(waiting: list[Waiting], budget: int) -> None:
    by_job = {each.job: each for each in waiting}
    for share in compose(waiting, decode_rows=DECODE_ROWS, budget=budget, fair=False):
        each = by_job[share.job]
        assert share.rows == each.rows or (each.step + share.rows) % 16 == 0


@given(queues(), budgets)
def test_compose_respects_priority(waiting: list[Waiting], budget: int) -> None:
    taken = {share.job for share in compose(waiting, decode_rows=DECODE_ROWS, budget=budget, fair=False)}
    for whole in (True, False):
        kind = [each for each in waiting if each.whole == whole]
        left_out = [each.priority for each in kind if each.job not in taken]
        if whole and left_out:
            assert all(each.priority >= max(left_out) for each in kind if each.job in taken)
        elif left_out:
            best = max(kind, key=lambda each: (each.priority, -each.since))
            assert any(each.job in taken and each.priority == best.priority for each in kind)


@given(queues(), budgets)
def test_compose_again_and_again_starves_nobody(waiting: list[Waiting], budget: int) -> None:
    """However low its priority: a stream of decode rows and of new short prompts goes on all the time."""
    served = {each.job: 0 for each in waiting}
    queue = {each.job: replace(each, rows=10_000) if not each.whole else each for each in waiting}
    rounds = FAIR_EVERY * (len(waiting) + 1)
    for turn in range(rounds):
        newcomers = [job(1_000 + turn, 16, priority=9, since=100 + turn), job(5_000 + turn, 9, whole=True, priority=9)]
        newcomers[1] = replace(newcomers[1], since=100 + turn)
        fair = turn % FAIR_EVERY == FAIR_EVERY - 1
        shares = compose([*queue.values(), *newcomers], decode_rows=DECODE_ROWS, budget=budget, fair=fair)
        for share in shares:
            if share.job in queue:
                served[share.job] += 1
                queue[share.job] = replace(queue[share.job], since=100 + turn)
    assert all(served.values())


def test_compose_short_prompt_is_not_stuck_behind_a_long_one() -> None:
    long, short = job(1, 5_000, priority=1), job(2, 20)
    shares = {share.job: share.rows for share in compose([long, short], decode_rows=16, budget=128, fair=False)}
    assert shares == {long.job: 96, short.job: 20}


def test_compose_first_prompt_gets_half_and_the_rest_is_dealt() -> None:
    prompts = [job(number, 5_000) for number in range(3)]
    shares = [share.rows for share in compose(prompts, decode_rows=16, budget=160, fair=False)]
    assert shares == [112, 32, 16]


def test_compose_speculation_larger_than_the_cap_goes_alone() -> None:
    waiting = [job(1, 40, whole=True, priority=1), job(2, 1, whole=True)]
    assert compose(waiting, decode_rows=16, budget=16, fair=False) == [Share(job=waiting[0].job, rows=40)]


def test_compose_takes_no_more_jobs_than_allowed_and_all_of_a_prompts_rows() -> None:
    waiting = [job(number, 1, whole=True, priority=number) for number in range(8)] + [job(9, 30)]
    shares = compose(waiting, decode_rows=DECODE_ROWS, decode_jobs=3, budget=160, fair=False)
    assert [share.job for share in shares[:3]] == [waiting[number].job for number in (7, 6, 5)]
    assert shares[3:] == [Share(job=waiting[8].job, rows=30)]


def test_pace_begins_with_a_window_and_settles_at_what_is_measured() -> None:
    pace = Pace.start(0.25)
    assert pace.rows == 16
    budgets_seen = []
    for _ in range(40):
        budgets_seen.append(pace.rows)
        pace = pace.after(pace.rows, pace.rows / 2_000)
    assert all(after <= 2 * before for before, after in pairwise(budgets_seen))
    assert pace.rows == 496  # 2,000 rows a second for a quarter of a second, in whole windows


@given(st.lists(st.tuples(st.integers(1, 5_000), st.floats(0, 1e6)), max_size=30))
def test_pace_is_always_whole_windows_within_bounds(passes: list[tuple[int, float]]) -> None:
    pace = Pace.start(0.25)
    for rows, seconds in passes:
        pace = pace.after(rows, seconds)
        assert 16 <= pace.rows <= 4_096
        assert pace.rows % 16 == 0
    assert 16 <= pace.halved().rows <= pace.rows


def test_pace_is_not_spoilt_by_small_passes() -> None:
    pace = Pace.start(0.25)
    for _ in range(40):
        pace = pace.after(pace.rows, pace.rows / 2_000)
    before = pace.rows
    for _ in range(3):
        pace = pace.after(16, 0.1)
        pace = pace.after(3, 5.0)
    assert pace.rows > 0.9 * before
