"""A counted link between engines: the same tokens, the formula's seconds, and rows rounded by their codec."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.node.engine.small import BLOCKS, DRAWN, SPLITS, asked, model, prompt

from plait_node.engine import StageEngine, StepInput, StepOutput
from plait_node.engine.errors import EngineError
from plait_node.engine.local_link import LocalLink
from plait_node.engine.local_route import Answer, LocalRoute
from plait_node.engine.methods import MethodRefusedError
from plait_node.wire import decode_rows, encode_rows

torch.set_num_threads(1)

WIDTH = model().built.manifest.hidden
# Powers of two, so that sums are exact.
RTT = 1 / 8
BYTES_S = 2.0**16
LINK = LocalLink(rtt_s=RTT, bytes_s=BYTES_S)


def engines(stages: int) -> list[StageEngine]:
    return [model().engine(first, last) for first, last in SPLITS[stages]]


def linked(stages: int, *, link: LocalLink | None = LINK, profile: str = "rounded") -> LocalRoute:
    """Return a route whose own clock stands still."""
    return LocalRoute(engines(stages), profile=profile, link=link, clock=lambda: 0.0)


def pass_s(stages: int, *, rows: int, tokens: int, row_bytes: int = 4 * WIDTH) -> float:
    return (stages + 1) * RTT / 2 + (4 * rows + (stages - 1) * row_bytes * rows + 4 * tokens) / BYTES_S


def ids(answers: Sequence[Answer]) -> list[tuple[int, ...]]:
    return [answer.ids for answer in answers]


@pytest.mark.parametrize("methods", [{}, {"continuous-batching": 4, "chunked-prefill": 32, "prompt-lookup": 4}])
@pytest.mark.parametrize("stages", [1, 2, 3])
def test_run_in_fp32_with_a_link_gives_the_same_tokens(stages: int, methods: dict[str, int]) -> None:
    requests = [asked(prompt(40), "greedy"), asked(prompt(17, 1), "drawn", sampling=DRAWN)]

    without, with_ = (linked(stages, link=link).run(requests, methods) for link in (None, LINK))

    assert ids(with_) == ids(without)
    assert [set(answer.times) for answer in without] == [{0.0}, {0.0}]


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_run_with_a_link_adds_the_formula_to_every_time(stages: int) -> None:
    route = linked(stages)

    (answer,) = route.run([asked(prompt(40), "one", count=3)], {"chunked-prefill": 32})

    chunk = pass_s(stages, rows=32, tokens=0)
    first = chunk + pass_s(stages, rows=8, tokens=1)
    step = pass_s(stages, rows=1, tokens=1)
    assert answer.times == (first, first + step, first + 2 * step)
    assert route.waited_s == first + 2 * step


def test_run_on_a_ticking_clock_has_ticks_and_link_and_counts_on() -> None:
    ticks = iter(range(100))
    route = LocalRoute(engines(2), link=LINK, clock=lambda: float(next(ticks)))

    answers = [route.run([asked(prompt(4), name, count=2)])[0] for name in "ab"]

    first, step = pass_s(2, rows=4, tokens=1), pass_s(2, rows=1, tokens=1)
    assert [answer.times for answer in answers] == [(1 + first, 2 + first + step)] * 2
    assert route.waited_s == 2 * (first + step)


def test_run_of_two_at_once_shares_the_way_and_adds_their_bytes() -> None:
    requests = [asked(prompt(10), "one", count=2), asked(prompt(6, 1), "two", count=2)]

    answers = linked(3).run(requests, {"continuous-batching": 2})

    first = pass_s(3, rows=16, tokens=2)
    assert {answer.times for answer in answers} == {(first, first + pass_s(3, rows=2, tokens=2))}


def test_run_with_guesses_sends_all_of_them_and_only_the_right_ones_come_back() -> None:
    route = linked(2)

    (answer,) = route.run([asked(prompt(5), "loop", count=60)], {"prompt-lookup": 8})

    passes = len(set(answer.times))
    rows = 5 + passes - 1 + answer.proposed
    hops = passes * 3 * RTT / 2
    assert answer.proposed > answer.accepted > 0
    assert route.waited_s == hops + (4 * rows + 4 * WIDTH * rows + 4 * 60) / BYTES_S


def test_run_with_a_draft_model_adds_nothing_for_drafting() -> None:
    drafting = LocalRoute(engines(2), link=LINK, draft=model(0.2).engine(0, BLOCKS), clock=lambda: 0.0)

    (answer,) = drafting.run([asked(prompt(5), "drafted", count=20)], {"draft-model": 3})

    rows = 5 + len(set(answer.times)) - 1 + answer.proposed
    assert drafting.waited_s == len(set(answer.times)) * 3 * RTT / 2 + (4 * rows * (1 + WIDTH) + 4 * 20) / BYTES_S


def test_link_without_limit_adds_the_way_alone() -> None:
    route = linked(2, link=LocalLink(rtt_s=RTT))

    route.run([asked(prompt(30), "one", count=1)])

    assert route.waited_s == 3 * RTT / 2


@pytest.mark.parametrize(("method", "row_bytes"), [("codec-bf16", 2 * WIDTH), ("codec-int8", 2 + WIDTH)])
def test_run_with_a_codec_counts_its_bytes(method: str, row_bytes: int) -> None:
    assert WIDTH <= 64  # one scale a row

    (answer,) = linked(3).run([asked(prompt(20), "one", count=1)], {method: 1})

    assert answer.times == (pass_s(3, rows=20, tokens=1, row_bytes=row_bytes),)


class Watched:
    """An engine that keeps what went in and came out."""

    def __init__(self, engine: StageEngine) -> None:
        self._engine = engine
        self.inputs: list[NDArray[Any]] = []
        self.outputs: list[NDArray[Any]] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)

    def step(self, inputs: Sequence[StepInput]) -> list[StepOutput | EngineError]:
        self.inputs += [given.rows.copy() for given in inputs]
        outputs = self._engine.step(inputs)
        self.outputs += [output.rows.copy() for output in outputs if isinstance(output, StepOutput)]
        return outputs


def watched(methods: dict[str, int]) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Return what the first engine gave and the second got, prompt and decode rows; there is no link."""
    one, two = map(Watched, engines(2))
    LocalRoute([one, two], profile="rounded").run([asked(prompt(9), "seen", count=3)], methods)
    return list(zip(one.outputs, two.inputs, strict=True))


def test_codec_bf16_rounds_rows_to_their_upper_half_ties_to_even() -> None:
    pairs = watched({"codec-bf16": 1})

    assert [len(given) for given, _ in pairs] == [9, 1, 1]
    for given, got in pairs:
        by_torch = torch.from_numpy(given).to(torch.bfloat16).to(torch.float32).numpy()
        assert (got == by_torch).all()
        assert (got != given).any()
        assert (got.view(np.uint32) & 0xFFFF == 0).all()


def test_codec_int8_gives_the_numbers_that_the_wire_gives() -> None:
    for given, got in watched({"codec-int8": 1}):
        data = encode_rows(given, codec="int8")
        assert (got == decode_rows(data, codec="int8", count=len(given), width=WIDTH, limit=0)).all()
        assert np.abs(got - given).max() <= np.abs(given).max() / 127


def test_without_a_codec_rows_are_as_they_were() -> None:
    assert all((got == given).all() for given, got in watched({}))


def test_a_prefix_of_one_codec_is_none_for_another() -> None:
    route = linked(2)
    reused = [
        route.run([asked(prompt(50), name, count=1)], methods | {"prefix-cache": 1})[0].reused
        for name, methods in (("a", {}), ("b", {"codec-int8": 1}), ("c", {"codec-int8": 1}), ("d", {}))
    ]

    assert reused == [0, 0, 48, 48]


@pytest.mark.parametrize("method", ["codec-bf16", "codec-int8"])
def test_codec_is_refused_on_one_engine_and_under_the_strict_profile(method: str) -> None:
    request = asked(prompt(4), "a", count=1)

    with pytest.raises(MethodRefusedError, match="no rows travel"):
        linked(1).run([request], {method: 1})
    with pytest.raises(MethodRefusedError, match="fp32"):
        linked(2, profile="fp32-strict").run([request], {method: 1})
    assert linked(2, link=None).run([request], {method: 1})[0].ids


@pytest.mark.parametrize("value", [-1.0, math.inf, math.nan])
def test_link_of_what_is_no_time_or_speed_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="rtt_s"):
        LocalLink(rtt_s=value)
    with pytest.raises(ValueError, match="bytes_s"):
        LocalLink(bytes_s=value)
