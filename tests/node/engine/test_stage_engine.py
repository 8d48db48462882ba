"""Three engines with the real weights against transformers on the whole model."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from tests.model.smollm2 import ANSWER, PATH, TIE, Greedy, built, chat_ids, greedy_answers
from tests.model.tiny import HIDDEN, write_tiny

from plait.protocol.ids import Hash, keccak
from plait.protocol.messages import Sampling
from plait_model.errors import WeightsMismatchError
from plait_model.manifest_build import build_manifest
from plait_model.sampler import sample
from plait_node.engine import StageEngine
from plait_node.engine.errors import (
    BadRowsError,
    JobOpenError,
    NoRoomError,
    NumericsError,
    StepOrderError,
    UnknownJobError,
)

ROUTE = ((0, 10), (10, 20), (20, 30))
JOB = keccak(b"job")
SHORT = 16


@cache
def engines() -> tuple[StageEngine, ...]:
    model = built()
    return tuple(
        StageEngine(PATH, model.manifest, first=first, last=last, kv_steps=1_024, tensors=model.tensors)
        for first, last in ROUTE
    )


def push(job: Hash, start: int, ids: Sequence[int]) -> np.ndarray:
    """Send ids through the route and return the logits of the last row."""
    rows: np.ndarray = np.array(ids, dtype=np.int64)
    output = None
    for engine in engines():
        output = engine.step_one(job, start, rows)
        rows = output.rows
    assert output is not None
    assert output.logits is not None
    return output.logits[-1]


def begin(job: Hash, room: int) -> None:
    for engine in engines():
        engine.open(job, room)


def end(job: Hash) -> None:
    for engine in engines():
        engine.close(job)


def follow(job: Hash, logits: np.ndarray, start: int, count: int) -> list[int]:
    """Answer greedily from the logits of the row before `start`."""
    answer = [int(logits.argmax())]
    while len(answer) < count:
        answer.append(int(push(job, start + len(answer) - 1, answer[-1:]).argmax()))
    return answer


def ask(prompt: Sequence[int], count: int, *, chunks: Sequence[int] = ()) -> list[int]:
    job = keccak(bytes(str([prompt, count, chunks]), "utf-8"))
    begin(job, len(prompt) + count)
    try:
        cuts = [0, *chunks, len(prompt)]
        for low, high in pairwise(cuts):
            logits = push(job, low, prompt[low:high])
        return follow(job, logits, len(prompt), count)
    finally:
        end(job)


def agreed(expected: Greedy, answer: Sequence[int]) -> int:
    """Return how many tokens agree before the first tie of the reference; fail at any other difference."""
    assert answer
    for index, (right, ours) in enumerate(zip(expected.answer, answer, strict=False)):
        if right != ours:
            assert expected.gaps[index] < TIE, f"token {index}: {ours} instead of {right}"
            return index
    return len(answer)


@pytest.fixture
def job():
    begin(JOB, 128)
    yield JOB
    end(JOB)


@pytest.mark.timeout(300)
def test_three_engines_answer_as_transformers_does() -> None:
    expected = greedy_answers()
    engines()  # loaded before the threads ask for them
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda greedy: ask(greedy.prompt, ANSWER), expected))

    assert sum(map(agreed, expected, answers)) > 0.9 * ANSWER * len(expected)


def test_step_of_a_prompt_in_chunks_gives_the_same_tokens() -> None:
    expected = greedy_answers()[5]

    answer = ask(expected.prompt, SHORT, chunks=(16, 17, 20))

    assert agreed(expected, answer) == SHORT


def test_step_after_rollback_gives_the_same_logits(job: Hash) -> None:
    prompt = chat_ids("Name three rivers.")
    first = push(job, 0, prompt)
    follow(job, first, len(prompt), 5)
    for engine in engines():
        engine.rollback(job, len(prompt) - 3)
    again = push(job, len(prompt) - 3, prompt[-3:])

    assert np.abs(again - first).max() < TIE
    assert again.argmax() == first.argmax()


def test_cached_prefix_gives_the_same_tokens(job: Hash) -> None:
    expected = greedy_answers()[5]
    keys = [[keccak(bytes([stage, window])) for window in range(9)] for stage in range(len(ROUTE))]
    push(job, 0, expected.prompt)
    windows = len(expected.prompt) // 16
    assert [engine.keep_prefix(job, keys[stage]) for stage, engine in enumerate(engines())] == [windows] * 3
    other = keccak(b"other")
    begin(other, 128)

    taken = {engine.take_prefix(other, keys[stage]) for stage, engine in enumerate(engines())}
    logits = push(other, 16 * windows, expected.prompt[16 * windows :])
    answer = follow(other, logits, len(expected.prompt), SHORT)
    end(other)

    assert taken == {16 * windows}
    assert agreed(expected, answer) == SHORT


def test_sampled_answer_repeats_under_its_seed(job: Hash) -> None:
    prompt = chat_ids("Invent a name for a cat.")
    sampling = Sampling(temperature=900_000, top_p=950_000, top_k=50, stop=keccak(b""))

    def drawn(seed: Hash) -> list[int]:
        for engine in engines():
            engine.rollback(job, 0)
        logits = push(job, 0, prompt)
        answer: list[int] = []
        for position in range(12):
            answer.append(sample(logits, seed=seed, request=JOB, position=position, sampling=sampling).id)
            logits = push(job, len(prompt) + position, answer[-1:])
        return answer

    first = drawn(keccak(b"one"))

    assert drawn(keccak(b"one")) == first
    assert drawn(keccak(b"two")) != first


def test_step_without_logits_leaves_them_out(job: Hash) -> None:
    engine = engines()[2]
    rows = np.zeros((3, 576), dtype=np.float32)

    assert engine.step_one(job, 0, rows, logits=0).logits is None
    assert engine.step_one(job, 3, rows).logits is not None
    assert engines()[1].step_one(job, 0, rows).logits is None


def test_open_beyond_the_room_says_the_limit(job: Hash) -> None:
    engine = engines()[0]

    with pytest.raises(NoRoomError) as caught:
        engine.open(keccak(b"big"), 1_000)

    assert caught.value.limit == engine.free_steps == 1_024 - 128


def test_open_beyond_the_context_says_the_limit() -> None:
    model = built()
    engine = StageEngine(PATH, model.manifest, first=10, last=11, kv_steps=20_000, tensors=model.tensors)

    with pytest.raises(NoRoomError) as caught:
        engine.open(JOB, 8_193)

    assert caught.value.limit == engine.max_steps == 8_192


def test_open_twice_raises(job: Hash) -> None:
    with pytest.raises(JobOpenError):
        engines()[0].open(job, 16)


def test_step_of_a_closed_job_raises() -> None:
    with pytest.raises(UnknownJobError):
        push(keccak(b"closed"), 0, [1])


def test_step_past_the_job_room_raises(job: Hash) -> None:
    with pytest.raises(NoRoomError):
        push(job, 0, [1] * 129)


@pytest.mark.parametrize("start", [1, -1, 4])
def test_step_out_of_order_raises(job: Hash, start: int) -> None:
    with pytest.raises(StepOrderError):
        push(job, start, [1])


def test_rollback_ahead_raises(job: Hash) -> None:
    with pytest.raises(StepOrderError):
        engines()[0].rollback(job, 1)


def test_take_prefix_into_a_started_job_raises(job: Hash) -> None:
    push(job, 0, [1])
    with pytest.raises(StepOrderError):
        engines()[0].take_prefix(job, [JOB])


@pytest.mark.parametrize(
    "rows",
    [
        np.array([-1]),
        np.array([49_152]),
        np.array([], dtype=np.int64),
        np.array([[1]]),
        np.array([1], dtype=np.int32),
        np.array([1.0]),
    ],
    ids=["negative", "too high", "none", "two axes", "int32", "float"],
)
def test_step_with_bad_ids_raises_and_changes_nothing(job: Hash, rows: np.ndarray) -> None:
    engine = engines()[0]

    with pytest.raises(BadRowsError):
        engine.step_one(job, 0, rows)

    engine.step_one(job, 0, np.array([1]))


@pytest.mark.parametrize(
    "rows",
    [
        np.full((1, 576), np.nan, dtype=np.float32),
        np.full((2, 576), np.inf, dtype=np.float32),
        np.zeros((1, 575), dtype=np.float32),
        np.zeros((0, 576), dtype=np.float32),
        np.zeros((1, 576)),
        np.zeros(576, dtype=np.float32),
    ],
    ids=["nan", "infinity", "narrow", "none", "float64", "one axis"],
)
def test_step_with_bad_rows_raises_and_changes_nothing(job: Hash, rows: np.ndarray) -> None:
    engine = engines()[1]

    with pytest.raises(BadRowsError):
        engine.step_one(job, 0, rows)

    engine.step_one(job, 0, np.zeros((1, 576), dtype=np.float32))


def test_step_with_broken_weights_raises_and_changes_nothing(tmp_path: Path) -> None:
    norm = np.full(HIDDEN, np.nan, np.float32)
    path = write_tiny(tmp_path / "tiny.gguf", changed={"blk.1.ffn_norm.weight": norm})
    engine = StageEngine(path, build_manifest(path).manifest, first=1, last=2, kv_steps=32)
    engine.open(JOB, 16)

    for _ in range(2):
        with pytest.raises(NumericsError):
            engine.step_one(JOB, 0, np.ones((1, HIDDEN), dtype=np.float32))
    engine.rollback(JOB, 0)


def test_engine_of_another_file_refuses_to_start(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf")

    with pytest.raises(WeightsMismatchError):
        StageEngine(path, built().manifest, first=0, last=1, kv_steps=32)
