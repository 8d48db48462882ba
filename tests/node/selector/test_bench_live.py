"""The live comparison without a network: jobs, pins, pairing, intervals, targets."""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bench.live.__main__ import Session, _run_all
from bench.live.jobs import LONGEST, SHORTEST, Job, mixed_jobs, orders
from bench.live.payer import Taken
from bench.live.pins import FIXED, SELECTOR, best_fixed, follows
from bench.live.report import compared, lines, report, written
from tests.node.selector.made_rows import made_rows

from plait.errors import PlaitError
from plait_node.selector.candidates import CANDIDATES
from plait_node.selector.combinations import Combination
from plait_node.selector.pin import PIN
from plait_node.selector.rows import Row
from plait_node.selector.tasks import KINDS

WAYS = ("always-on", "lookup-10")
JOB = Job(number=0, kind="chat", text="Why?", max_tokens=40, warm=False)


def taken(job: int, way: str, seconds: float, *, kind: str = "chat", tokens: int = 40) -> Taken:
    made = FIXED[way].combination if way in FIXED else Combination(reuse=True)
    return Taken(
        job=job,
        kind=kind,
        way=way,
        warm=False,
        seconds=seconds,
        ttft_s=seconds / 4,
        tokens=tokens,
        prompt_tokens=50,
        max_tokens=40,
        method=made.method,
        amounts=made.amounts,
        predicted={"first_token_s": 1.0, "total_s": 4.9, "total_low_s": 3.0, "total_high_s": 6.0},
        reason="plain: 50 prompt tokens over 3 stages; the default, because of this",
        text="same",
    )


def test_jobs_cover_all_kinds_evenly_and_are_the_same_for_a_seed() -> None:
    jobs = mixed_jobs(100, seed=3)

    counts = Counter(job.kind for job in jobs)
    assert set(counts) == set(KINDS)
    assert max(counts.values()) - min(counts.values()) <= 1
    assert [job.number for job in jobs] == list(range(100))
    assert all(SHORTEST <= job.max_tokens <= LONGEST for job in jobs)
    assert jobs == mixed_jobs(100, seed=3) != mixed_jobs(100, seed=4)
    assert len({job.text for job in jobs}) == 100


def test_questions_about_one_text_follow_each_other_and_all_but_the_first_are_warm() -> None:
    jobs = mixed_jobs(100, seed=0)

    warm = [job for job in jobs if job.warm]
    assert warm
    for job in warm:
        before = jobs[job.number - 1]
        assert job.kind == before.kind == "shared-context"
        assert before.text[:400] == job.text[:400]


@pytest.mark.parametrize("count", [5, 1_501])
def test_jobs_out_of_range_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match="6 to 1,500"):
        mixed_jobs(count, seed=0)


def test_every_job_is_run_each_way_in_an_order_of_its_own() -> None:
    jobs = mixed_jobs(60, seed=0)
    ways = (SELECTOR, *WAYS)

    made = orders(jobs, ways, seed=0)

    assert all(sorted(order) == sorted(ways) for order in made)
    assert {order[0] for order in made} == set(ways)


def measured(name: str, seconds: float) -> Row:
    base = next(row for row in made_rows() if row.task.batch == 1 and row.model.real_weights)
    return replace(base, candidate=CANDIDATES[name], outcome=replace(base.outcome, seconds=seconds))


def test_best_fixed_keeps_always_on_and_ranks_the_others_by_the_history() -> None:
    times = {"always-on": 4.0, "lookup-10": 2.0, "lookup-3": 3.0, "small-chunks": 8.0}
    times |= {"prefix-cache": 10.0, "combined": 11.0, "none": 30.0}

    found = best_fixed(measured(name, seconds) for name, seconds in times.items())

    assert found == {
        "always-on": 1.0,
        "prefix-cache, lookup-10": pytest.approx(2.0 * 1.1),
        "lookup-10": pytest.approx(2.0),
        "prefix-cache, lookup-3": pytest.approx(4 / 3 * 1.1),
    }


def test_best_fixed_ranks_nothing_that_was_not_measured() -> None:
    assert best_fixed([measured("always-on", 4.0), measured("lookup-3", 5.0)]) == {
        "always-on": 1.0,
        "lookup-3": pytest.approx(0.8),
    }


@pytest.mark.parametrize(
    ("method", "amounts", "followed"),
    [
        ("prefix-cache+chunked-prefill+prompt-lookup", {"chunk": 128, "depth": 10}, True),
        ("prompt-lookup", {"depth": 10}, True),  # nothing was cached, and the prompt was shorter than a chunk
        ("prompt-lookup", {"depth": 3}, False),
        ("prefix-cache+chunked-prefill", {"chunk": 128}, False),
        ("chunked-prefill+prompt-lookup", {"chunk": 32, "depth": 10}, False),
    ],
)
def test_a_pin_is_followed_up_to_what_changes_nothing(method: str, amounts: dict[str, int], *, followed: bool) -> None:
    assert follows(FIXED["lookup-10"].combination, method, amounts) is followed


@dataclass
class Payer:
    """Stands for a client: says what the pin file held when it was asked, and fails if it is told to."""

    folder: Path
    fails: bool = False
    seen: list[Any] = field(default_factory=list)


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    async def ask(client: Payer, _: str, job: Job, *, way: str) -> Taken:
        path = client.folder / PIN
        client.seen.append(json.loads(path.read_text()) if path.exists() else None)
        if client.fails:
            raise PlaitError("the stream ended")
        return taken(job.number, way, 4.0)

    monkeypatch.setattr("bench.live.__main__.ask", ask)
    clients = {way: Payer(tmp_path) for way in (SELECTOR, *WAYS, "plain")}
    return Session(network=SimpleNamespace(selector_folder=tmp_path), clients=clients)


async def test_each_way_is_asked_under_its_pin_and_the_selector_under_none(session: Session) -> None:
    await session.run(JOB, ["lookup-10", SELECTOR, "always-on", "plain"])

    assert {way: client.seen for way, client in session.clients.items()} == {
        SELECTOR: [None],
        "always-on": [{"method": "prefix-cache+chunked-prefill", "amounts": {"chunk": 128}}],
        "lookup-10": [{"method": "prefix-cache+chunked-prefill+prompt-lookup", "amounts": {"chunk": 128, "depth": 10}}],
        "plain": [{"method": "plain", "amounts": {}}],
    }
    assert [each.way for each in session.taken] == ["lookup-10", SELECTOR, "always-on", "plain"]


async def test_a_job_that_fails_one_way_is_told_and_the_others_go_on(session: Session) -> None:
    session.clients["always-on"].fails = True

    await session.run(JOB, ["always-on", SELECTOR])

    assert [each.way for each in session.taken] == [SELECTOR]
    assert session.failed == ["job 0 always-on: the stream ended"]


async def test_time_that_is_up_ends_the_run_between_two_jobs(
    session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    given = argparse.Namespace(seed=0, limit_s=-1.0)

    await _run_all(session, mixed_jobs(6, seed=0), given)

    assert session.taken == []
    assert "the time is up after 0 jobs" in capsys.readouterr().out


def test_ratios_are_paired_by_job() -> None:
    found = compared([2.0, 1.0, 8.0], [1.0, 1.0, 2.0])  # ratios 2, 1, 4

    assert found["pairs"] == 3
    assert found["median"] == pytest.approx(2.0)
    assert found["geometric_mean"] == pytest.approx(2.0)
    assert found["interval"] == [pytest.approx(1.0), pytest.approx(4.0)]  # all three draws of one job: 1 in 27


def test_intervals_shrink_with_jobs_and_hold_the_mean() -> None:
    own = [1.0] * 400
    fixed = [math.exp(0.1 * math.sin(index)) * 1.05 for index in range(400)]

    low, high = compared(fixed, own)["interval"]

    # the standard error of the mean of 400 logs that spread by 0.0707 is 0.0035
    assert low < 1.05 < high
    assert math.log(high / low) == pytest.approx(2 * 1.96 * 0.0707 / 20, rel=0.15)


def test_report_compares_seconds_a_token_with_the_best_fixed_of_each_kind() -> None:
    rows = [
        *(taken(0, SELECTOR, 4.0), taken(0, "always-on", 5.0), taken(0, "lookup-10", 6.0)),
        *(taken(1, SELECTOR, 4.0, kind="code"), taken(1, "always-on", 9.0, kind="code")),
        taken(1, "lookup-10", 2.0, kind="code", tokens=20),  # as many seconds a token as the selector
    ]

    found = report(rows, WAYS)

    assert found["kinds"]["chat"]["best_fixed"] == "always-on"
    assert found["kinds"]["chat"]["median"] == pytest.approx(1.25)
    assert found["kinds"]["code"]["best_fixed"] == "lookup-10"
    assert found["kinds"]["code"]["median"] == pytest.approx(1.0)
    assert found["overall"]["lookup-10"]["geometric_mean"] == pytest.approx(math.sqrt(1.5))
    assert found["targets"]["per_kind"]["met"]
    assert found["targets"]["overall"]["met"]
    assert found["chosen"] == {"prefix-cache": 2}
    assert found["reasons"] == {"the default, because of this": 2}
    assert next(iter(lines(found))).startswith("chat")


def test_report_misses_its_targets_below_their_bounds() -> None:
    rows = [taken(0, SELECTOR, 4.0), taken(0, "always-on", 3.7), taken(0, "lookup-10", 9.0)]

    targets = report(rows, WAYS)["targets"]

    assert not targets["per_kind"]["met"]
    assert not targets["overall"]["met"]


def test_report_counts_a_job_only_when_it_was_run_every_way() -> None:
    rows = [taken(0, SELECTOR, 4.0), taken(0, "always-on", 5.0), taken(0, "lookup-10", 5.0), taken(1, SELECTOR, 1.0)]

    assert report(rows, WAYS)["jobs"] == 1


def test_report_claims_nothing_where_a_pin_was_not_followed() -> None:
    stray = replace(taken(0, "lookup-10", 5.0), method="plain", amounts={})

    found = report([taken(0, SELECTOR, 4.0), taken(0, "always-on", 5.0), stray], WAYS)

    assert found["pins_not_followed"] == 1
    assert not found["targets"]["per_kind"]["met"]
    assert not found["targets"]["overall"]["met"]


def test_report_of_nothing_says_so(tmp_path: Path) -> None:
    found = report([], WAYS)

    written(found, [], tmp_path / "deep" / "live.json")
    assert json.loads((tmp_path / "deep" / "live.json").read_text())["jobs"] == 0
    assert not found["targets"]["per_kind"]["met"]


def test_prediction_is_that_of_the_tokens_that_came() -> None:
    whole, half = taken(0, SELECTOR, 4.9), taken(0, SELECTOR, 2.9, tokens=20)

    assert whole.expected_s == pytest.approx(4.9)
    assert half.expected_s == pytest.approx(1.0 + 19 * 0.1)
    assert replace(whole, predicted={}).expected_s is None


def test_predicted_and_actual_seconds_are_compared() -> None:
    rows = [taken(0, SELECTOR, 9.8), *(taken(0, way, 5.0) for way in WAYS)]

    found = report(rows, WAYS)["predicted"]

    assert found["actual_over_predicted"] == pytest.approx(2.0)
    assert found["within_interval"] == 0.0
