"""Where one job stands on one stage while its rows may be taken back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from tests.node.stage.tiny import MANIFEST

from plait_node.commit import RowHashes, RowOrderError
from plait_node.stage.compute import StepDone, StepWork
from plait_node.stage.errors import SpeculationError
from plait_node.stage.speculation import Speculation
from plait_node.wire.tensor import FP32


def done(step: int, count: int, *, speculative: int = 0, accepted: int | None = None) -> StepDone:
    hashes = [bytes([at]) * 32 for at in range(step, step + (count if accepted is None else accepted))]
    rows = RowHashes(start=step, hashes=hashes)
    return StepDone(
        step=step,
        count=count,
        speculative=speculative,
        codec=FP32,
        data=b"",
        inputs=rows,
        outputs=rows,
        tokens=(),
    )


def work(step: int, count: int, *, speculative: int = 0, draft: tuple[int, ...] = ()) -> StepWork:
    return StepWork(
        job=MANIFEST.model_id,
        step=step,
        count=count,
        codec=FP32,
        gives=FP32,
        data=b"",
        whole=True,
        draw=None,
        manifest=MANIFEST,
        speculative=speculative,
        draft=draft,
    )


def ranges(hashes: Sequence[tuple[RowHashes, RowHashes]]) -> list[tuple[int, int]]:
    return [(inputs.start, inputs.end) for inputs, _ in hashes]


def test_speculation_holds_back_all_but_the_certain_row() -> None:
    state = Speculation(is_tail=False)
    state.begin(16)
    assert ranges(state.take(done(16, 4))) == [(16, 20)]
    assert ranges(state.take(done(20, 5, speculative=4))) == [(20, 21)]
    for step in (20, 26):
        with pytest.raises(RowOrderError):
            state.check(work(step, 1))
    state.check(work(23, 1))
    assert ranges(state.accept(23, certain=24)) == [(21, 23)]
    assert state.computed == 23
    assert state.accept(23, certain=24) == []


def test_speculation_over_several_frames_releases_what_the_next_one_calls_certain() -> None:
    state = Speculation(is_tail=False)
    state.take(done(0, 5, speculative=4))
    state.check(work(5, 4, speculative=8))
    assert state.accept(5, certain=1) == []
    assert state.take(done(5, 4, speculative=8)) == []
    for wrong in (work(8, 4, speculative=4), work(10, 4, speculative=6), work(9, 4, speculative=13)):
        with pytest.raises(RowOrderError):
            state.check(wrong)
    state.check(work(9, 4, speculative=7))
    assert ranges(state.accept(9, certain=6)) == [(1, 5), (5, 6)]
    assert state.take(done(9, 4, speculative=7)) == []
    assert ranges(state.accept(10, certain=11)) == [(6, 9), (9, 10)]
    assert state.computed == 10


def test_speculation_tail_knows_where_it_goes_on() -> None:
    state = Speculation(is_tail=True)
    state.take(done(0, 5, speculative=4, accepted=3))
    state.check(work(3, 1))
    for step in (1, 2, 4, 5):
        with pytest.raises(SpeculationError):
            state.check(work(step, 1))
    for step in (0, 6):
        with pytest.raises(RowOrderError):
            state.check(work(step, 1))


def test_speculation_tail_passes_over_what_was_sent_before_its_answer_was_known() -> None:
    state = Speculation(is_tail=True)
    state.take(done(0, 5, speculative=4, accepted=3))
    for stale in (work(5, 4, speculative=8, draft=(1, 2, 3, 4)), work(9, 2, speculative=10, draft=(1, 2))):
        state.check(stale)
        assert state.drops(stale)
    with pytest.raises(SpeculationError):  # the worker heard of three rows, and says it heard of four
        state.check(work(11, 4, speculative=10))
    state.check(work(3, 1))


def test_speculation_tail_takes_a_guess_only_with_the_id_that_it_drew() -> None:
    state = Speculation(is_tail=True)
    state.take(replace(done(0, 5, speculative=4), tokens=(7, 8)))
    assert state.drops(work(5, 2, speculative=6, draft=(7, 8)))
    state = Speculation(is_tail=True)
    state.take(replace(done(0, 5, speculative=4), tokens=(7, 8)))
    assert not state.drops(work(5, 2, speculative=6, draft=(8, 9)))
