"""What a worker measures outweighs what a node says: liars are found, the honest keep their name."""

from __future__ import annotations

import random

import pytest
from tests.node.swarm.test_route import NEEDS, named, record

from plait_node.swarm.completion import Known
from plait_node.swarm.records import NodeRecord
from plait_node.swarm.route import Route, plan
from plait_node.swarm.speeds import SpeedBook

HOP_S = 0.001


def over(*records: NodeRecord) -> Route:
    return plan(records, NEEDS)


def test_book_unused_node_has_no_factor_and_a_newcomers_risk() -> None:
    book = SpeedBook()
    assert book.factor(named(1), now=0) is None
    assert book.risk(named(1)) == pytest.approx(0.04)
    assert book.known(now=0).factors == {}


def test_book_single_stage_learns_its_factor_from_two_jobs() -> None:
    book, alone = SpeedBook(), record(0, 6, owner=1, step_micros=10_000)
    for now in (1.0, 2.0):
        book.took(over(alone), 0.030 + HOP_S, now=now)
    assert book.factor(alone.owner, now=2) == pytest.approx(3.0, rel=0.15)


def test_book_honest_route_leaves_factors_at_one() -> None:
    book, stages = SpeedBook(), [record(0, 3, owner=1), record(3, 6, owner=2, step_micros=50_000)]
    for now in range(20):
        book.took(over(*stages), 0.060 + 2 * HOP_S, now=float(now))
    assert [book.factor(each.owner, now=20) for each in stages] == pytest.approx([1.0, 1.0], rel=0.02)


def test_book_one_liar_among_many_routes_is_told_from_its_neighbours() -> None:
    draw, book = random.Random(3), SpeedBook()
    heads = [record(0, 3, owner=owner, step_micros=20_000) for owner in range(1, 6)]
    tails = [record(3, 6, owner=owner, step_micros=20_000) for owner in range(6, 11)]
    liar = record(0, 3, owner=99, step_micros=2_000)  # really as slow as the others
    for now in range(60):
        head, tail = draw.choice([*heads, liar]), draw.choice(tails)
        book.took(over(head, tail), 0.040 + 2 * HOP_S, now=float(now))

    assert book.factor(liar.owner, now=60) == pytest.approx(10, rel=0.25)
    for each in [*heads, *tails]:
        factor = book.factor(each.owner, now=60)
        assert factor is not None
        assert 0.7 < factor < 1.4


def test_book_liar_is_used_once_and_then_passed_over() -> None:
    book = SpeedBook()
    honest, liar = record(0, 6, owner=1, step_micros=20_000), record(0, 6, owner=2, step_micros=1_000)
    assert plan([honest, liar], NEEDS, known=book.known(now=0)).records == (liar,)
    book.took(over(liar), 0.100, now=1)
    assert plan([honest, liar], NEEDS, known=book.known(now=1)).records == (honest,)


def test_book_factor_fades_so_that_an_overloaded_stage_is_tried_again() -> None:
    book, alone = SpeedBook(), record(0, 6, owner=1, step_micros=10_000)
    for now in (1.0, 2.0, 3.0):
        book.took(over(alone), 0.160 + HOP_S, now=now)
    at_once, later = book.factor(alone.owner, now=3), book.factor(alone.owner, now=3 + 900)
    assert at_once is not None
    assert later == pytest.approx(at_once**0.5)
    assert book.factor(alone.owner, now=3 + 36_000) == pytest.approx(1.0, abs=0.01)


def test_book_distance_is_not_taken_for_slowness() -> None:
    book, far = SpeedBook(), record(0, 6, owner=1, step_micros=10_000)
    for now in range(5):
        book.took(over(far), 0.110, now=float(now), rtt_s={far.owner: 0.100})
    assert book.factor(far.owner, now=5) == pytest.approx(1.0, abs=0.05)
    assert book.known(now=5).rtt_s == {far.owner: 0.100}
    assert book.known(now=5, rtt_s={far.owner: 0.2}).rtt_s == {far.owner: 0.2}


def test_book_stage_without_announced_time_learns_nothing() -> None:
    book = SpeedBook()
    fresh, head = record(3, 6, owner=1, step_micros=0), record(0, 3, owner=2)
    book.took(over(head, fresh), 1.0, now=0)
    assert book.factor(fresh.owner, now=0) is None
    assert book.factor(head.owner, now=0) is not None


def test_book_failures_raise_the_risk_and_good_jobs_lower_it() -> None:
    book, good, bad = SpeedBook(), named(1), named(2)
    for _ in range(10):
        book.ended([good, bad], failed=bad)
    assert book.risk(bad) > 0.4
    assert book.risk(good) < 0.03
    for _ in range(200):
        book.ended([bad])
    assert book.risk(bad) < 0.02


def test_book_reputation_halves_the_risk_with_each_tier() -> None:
    book = SpeedBook()
    book.trust({named(1): 0, named(2): 3})
    assert book.risk(named(1)) == pytest.approx(0.04)
    assert book.risk(named(2)) == pytest.approx(0.005)
    twins = [record(0, 6, owner=owner) for owner in (1, 2)]
    assert plan(twins, NEEDS, known=book.known(now=0)).records == (twins[1],)


def test_book_remembers_only_so_many_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plait_node.swarm.speeds._REMEMBERED", 3)
    book = SpeedBook()
    for owner in range(10):
        alone = record(0, 6, owner=owner)
        book.took(over(alone), 0.011, now=0, rtt_s={alone.owner: 0.002})
        book.ended([alone.owner])
    known = book.known(now=0)
    assert set(known.factors) == set(known.rtt_s) == set(known.risks) == {named(7), named(8), named(9)}


def test_known_nothing_is_the_announcement_as_it_is() -> None:
    alone = record(0, 6, owner=1, step_micros=10_000)
    assert plan([alone], NEEDS, known=Known()).step_s == plan([alone], NEEDS).step_s == pytest.approx(0.011)
