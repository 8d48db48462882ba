"""Every method and combination on one, two and three stages: the tokens are those of one job alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import chain, combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.model.smollm2 import PATH, TIE, built, greedy_answers
from tests.node.engine.small import (
    BLOCKS,
    DRAWN,
    GREEDY,
    LENGTHS,
    VOCABULARY,
    asked,
    by_transformers,
    model,
    prompt,
    route,
    ties,
)

from plait.protocol.ids import keccak
from plait_node.engine import StageEngine
from plait_node.engine.errors import BadRowsError, NoRoomError
from plait_node.engine.local_route import LocalRequest, LocalRoute
from plait_node.engine.methods import MethodRefusedError

torch.set_num_threads(1)

SHARED = {"continuous-batching": 3, "prefix-cache": 1, "chunked-prefill": 32}
PROPOSING = [{}, {"prompt-lookup": 6}, {"draft-model": 3}]
SUBSETS = chain.from_iterable(combinations(SHARED.items(), count) for count in range(4))
COMBINATIONS: list[dict[str, int]] = [dict(some) | more for some in SUBSETS for more in PROPOSING]


def mixed() -> list[LocalRequest]:
    """Return prompts of all lengths, greedy and sampled, one with a repetition, two that come later."""
    plain = [asked(prompt(length), f"greedy {length}") for length in LENGTHS]
    drawn = [asked(prompt(length, 1), f"drawn {length}", sampling=DRAWN) for length in LENGTHS]
    again = asked((*prompt(9, 2),) * 8, "again", count=30)
    late = [asked(prompt(length), f"late {length}", after=3) for length in (100, 33)]
    return [*plain, *drawn, again, *late]


@pytest.mark.parametrize("methods", COMBINATIONS, ids=lambda methods: "+".join(methods) or "plain")
@pytest.mark.parametrize("stages", [1, 2, 3])
def test_run_with_methods_gives_the_tokens_of_one_job_alone(stages: int, methods: dict[str, int]) -> None:
    requests = mixed()

    answers = route(stages).run(requests, methods)

    assert sum(map(ties, requests, answers)) == 0


def test_run_of_greedy_prompts_answers_as_transformers_does() -> None:
    requests = [asked(prompt(length), f"greedy {length}") for length in LENGTHS]

    answers = route(3).run(requests, SHARED | {"prompt-lookup": 6})

    assert [list(answer.ids) for answer in answers] == [by_transformers(prompt(length), 20) for length in LENGTHS]


requests_ = st.lists(
    st.builds(
        lambda length, seed, count, sampling, end, salt, after: asked(
            prompt(length, seed),
            f"{length} {seed} {sampling.temperature}",
            count=count,
            sampling=sampling,
            end=end,
            salt=salt,
            after=after,
        ),
        st.sampled_from(LENGTHS),
        st.integers(0, 2),
        st.integers(1, 24),
        st.sampled_from([GREEDY, DRAWN]),
        st.frozensets(st.integers(0, VOCABULARY - 1), max_size=30),
        st.sampled_from([b"", b"payer"]),
        st.integers(0, 9),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda request: request.request,
)
methods_ = st.builds(
    lambda some, more: some | more,
    st.fixed_dictionaries(
        {},
        optional={
            "continuous-batching": st.integers(1, 8),
            "prefix-cache": st.just(1),
            "chunked-prefill": st.integers(1, 8).map(lambda windows: 16 * windows),
        },
    ),
    st.one_of(
        st.just({}),
        st.fixed_dictionaries({"prompt-lookup": st.integers(1, 12)}),
        st.fixed_dictionaries({"draft-model": st.integers(1, 8)}),
    ),
)


@settings(max_examples=60, deadline=None)
@given(stages=st.integers(1, 3), requests=requests_, methods=methods_)
def test_run_of_anything_gives_the_tokens_of_one_job_alone(
    stages: int, requests: list[LocalRequest], methods: dict[str, int]
) -> None:
    answers = route(stages).run(requests, methods)

    assert sum(map(ties, requests, answers)) == 0


@pytest.mark.timeout(300)
@pytest.mark.parametrize("methods", [{}, SHARED | {"prompt-lookup": 8}], ids=["plain", "all"])
def test_run_with_real_weights_answers_as_transformers_does(methods: Mapping[str, int]) -> None:
    manifest, tensors = built().manifest, built().tensors
    engines = [
        StageEngine(PATH, manifest, first=first, last=first + 10, kv_steps=1_024, tensors=tensors)
        for first in (0, 10, 20)
    ]
    expected = greedy_answers()[:4]
    requests = [asked(each.prompt, f"question {index}", count=12) for index, each in enumerate(expected)]

    answers = LocalRoute(engines).run(requests, methods)

    unequal = [
        each.gaps[index] >= TIE
        for each, answer in zip(expected, answers, strict=True)
        for index, pair in enumerate(zip(answer.ids, each.answer, strict=False))
        if pair[0] != pair[1]
    ]
    assert unequal == []


def test_run_with_repetition_accepts_most_proposals() -> None:
    request = asked(prompt(5), "loop", count=100)  # greedy, this small model soon goes round in circles

    (answer,) = route(1).run([request], {"prompt-lookup": 8})

    assert answer.proposed >= answer.accepted > 40
    assert answer.gaps_s.count(0.0) == answer.accepted


def test_run_with_a_draft_accepts_some_and_rejects_some() -> None:
    (answer,) = route(2).run([asked(prompt(17), "drafted", count=60)], {"draft-model": 3})

    assert 0 < answer.accepted < answer.proposed


def test_run_with_prefix_cache_reuses_whole_windows_of_one_payer() -> None:
    fresh = prompt(50, 7)
    same, other = asked(fresh, "one", salt=b"a"), asked(fresh, "other", salt=b"b")
    route_ = route(3)

    first, again, foreign = (
        route_.run([request], {"prefix-cache": 1})[0]
        for request in (same, replace(same, request=keccak(b"same")), other)
    )

    assert (first.reused, again.reused, foreign.reused) == (0, 48, 0)
    assert again.ids == first.ids == foreign.ids
    assert route_.run([same])[0].reused == 0


def test_run_in_passes_counts_times_from_arrival() -> None:
    clock = iter(range(1_000))
    ticking = LocalRoute([model().engine(0, BLOCKS)], clock=lambda: float(next(clock)))
    early = asked(prompt(17), "early", count=5)
    late = asked(prompt(40), "late", count=3, after=2)

    one, two = ticking.run([early, late], {"continuous-batching": 2, "chunked-prefill": 16})

    # A tick for each arrival and each pass: the first answer's prompt takes two passes, the second's three.
    assert one.times == (2.0, 4.0, 5.0, 6.0, 7.0)
    assert two.times == (3.0, 4.0, 5.0)
    assert one.first_token_s == 2.0
    assert one.longest_gap_s == 2.0


def test_run_one_after_the_other_lets_the_second_wait() -> None:
    clock = iter(range(1_000))
    ticking = LocalRoute([model().engine(0, BLOCKS)], clock=lambda: float(next(clock)))

    one, two = ticking.run([asked(prompt(4), "one", count=3), asked(prompt(5), "two", count=1)])

    assert (one.times, two.times) == ((2.0, 3.0, 4.0), (4.0,))
    assert two.longest_gap_s == 0.0


def test_run_past_an_end_token_stops_with_it() -> None:
    request = asked(prompt(16), "ends", count=20)
    whole = route(1).run([request])[0].ids
    end = whole[7]

    for methods in ({}, {"prompt-lookup": 8}, {"draft-model": 8}):
        (answer,) = route(2).run([replace(request, end_tokens=frozenset({end}))], methods)

        assert answer.ids == whole[: whole.index(end) + 1]


def test_run_without_room_for_all_waits_and_without_room_for_one_raises() -> None:
    small = LocalRoute([model().engine(0, BLOCKS, kv_steps=128)])
    requests = [asked(prompt(60, seed), f"room {seed}") for seed in range(3)]

    answers = small.run(requests, {"continuous-batching": 8})

    assert sum(map(ties, requests, answers)) == 0
    with pytest.raises(NoRoomError) as caught:
        small.run([asked(prompt(120), "much")])
    assert caught.value.limit == 128


def test_run_that_fails_closes_its_jobs() -> None:
    made = route(2)
    bad = asked((5, VOCABULARY), "bad id")

    for _ in range(2):
        with pytest.raises(BadRowsError):
            made.run([asked(prompt(20), "good"), bad], {"continuous-batching": 2})

    assert sum(map(ties, mixed()[:1], made.run(mixed()[:1]))) == 0


def test_run_of_what_is_no_request_raises() -> None:
    for wrong in ([asked((), "empty")], [asked((5,), "none", count=0)], [asked((5,), "a"), asked((6,), "a")]):
        with pytest.raises(ValueError, match="give"):
            route(1).run(wrong)


@pytest.mark.parametrize("methods", [{"int8": 1}, {"codec-bf16": 1}, {"prompt-lookup": 1, "draft-model": 1}])
def test_run_with_methods_that_cannot_run_raises(methods: dict[str, int]) -> None:
    with pytest.raises(MethodRefusedError):
        route(1).run([asked((5,), "a")], methods)


@pytest.mark.parametrize("ranges", [[], [(0, 2)], [(1, 3)], [(0, 1), (2, 3)], [(0, 2), (1, 3)]])
def test_route_of_engines_with_gaps_or_overlaps_raises(ranges: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="no route"):
        LocalRoute([model().engine(first, last) for first, last in ranges])
