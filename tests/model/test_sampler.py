"""The sampler against its vectors and against a restatement that shares no line with it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.model.sampler_restated import draw, draw_from_all, made_logits, raw_words, vectors

from plait.protocol.ids import HASH_ZERO, Hash, hash32, keccak
from plait.protocol.messages import Sampling
from plait_model.errors import BadLogitsError, SamplingRangeError
from plait_model.sampler import gumbel, sample

VECTORS = Path(__file__).parents[2] / "chain_tests" / "vectors" / "sampler.json"
CASES: list[dict[str, Any]] = json.loads(VECTORS.read_text())["cases"]
SEED, REQUEST = keccak(b"seed"), keccak(b"request")


def settings_of(temperature: int = 1_000_000, top_p: int = 1_000_000, top_k: int = 0) -> Sampling:
    return Sampling(temperature=temperature, top_p=top_p, top_k=top_k, stop=HASH_ZERO)


def one(logits: list[float], sampling: Sampling, *, seed: Hash = SEED, position: int = 0) -> int:
    row = np.array(logits, dtype=np.float32)
    return sample(row, seed=seed, request=REQUEST, position=position, sampling=sampling).id


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_sample_of_vector_gives_its_token(case: dict[str, Any]) -> None:
    logits = case.get("logits") or made_logits(case["logits_seed"], case["vocab"])
    drawn = sample(
        np.array(logits, dtype=np.float32),
        seed=hash32(case["seed"]),
        request=hash32(case["request"]),
        position=case["position"],
        sampling=settings_of(case["temperature"], case["topP"], case["topK"]),
    )

    assert drawn.id == case["token"]


def test_vectors_are_what_the_restatement_says() -> None:
    assert vectors() == json.loads(VECTORS.read_text())


@given(
    st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=40),
    st.integers(0, 3_000_000),
    st.integers(1, 1_000_000),
    st.integers(0, 45),
    st.integers(0, 2**32 - 1),
)
def test_sample_of_anything_agrees_with_the_restatement(
    logits: list[float], temperature: int, top_p: int, top_k: int, position: int
) -> None:
    row = np.array(logits, dtype=np.float32)
    drawn = sample(row, seed=SEED, request=REQUEST, position=position, sampling=settings_of(temperature, top_p, top_k))
    again = draw(
        [float(value) for value in row],
        seed=SEED,
        request=REQUEST,
        position=position,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
    )

    assert drawn.id == again or not drawn.sure


rows = st.builds(
    lambda kind, size, seed: KINDS[kind](np.random.default_rng(seed), size).astype(np.float32),
    st.sampled_from(["normal", "tied", "flat", "wide", "masked", "peaked"]),
    st.sampled_from([1, 2, 3, 63, 64, 65, 129, 700, 1_000, 5_000, 49_152]) | st.integers(1, 3_000),
    st.integers(0, 2**32),
)
KINDS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "normal": lambda source, size: 3 * source.normal(size=size),
    "tied": lambda source, size: source.integers(-2, 3, size),
    "flat": lambda source, size: np.full(size, source.normal()),
    "wide": lambda source, size: 1e4 * source.normal(size=size),
    "masked": lambda source, size: np.where(np.arange(size) % 3 == 0, source.normal(size=size), -np.inf),
    "peaked": lambda source, size: source.normal(size=size) + 30 * (source.random(size) < 0.01),
}


@settings(max_examples=300, deadline=None)
@given(
    rows,
    st.sampled_from([0, 1, 1_000, 700_000, 1_000_000, 2_000_000, 2**32 - 1]),
    st.sampled_from([1, 100_000, 500_000, 950_000, 999_999, 1_000_000]),
    st.sampled_from([0, 1, 2, 40, 64, 65, 1_000, 50_000]),
    st.integers(0, 2**32 - 1),
)
def test_sample_has_the_token_and_the_very_margin_of_a_search_of_all(
    row: np.ndarray, temperature: int, top_p: int, top_k: int, position: int
) -> None:
    sampling = settings_of(temperature, top_p, top_k)
    drawn = sample(row, seed=SEED, request=REQUEST, position=position, sampling=sampling)

    noise = gumbel(SEED, REQUEST, position, len(row))
    expected = draw_from_all(row, noise=noise, temperature=temperature, top_p=top_p, top_k=top_k)
    assert (drawn.id, drawn.margin) == expected


def test_gumbel_comes_from_philox_as_published() -> None:
    words = raw_words(SEED, REQUEST, 77, 9)
    expected = [-math.log(-math.log(((word >> 12) + 0.5) * 2.0**-52)) for word in words]

    assert gumbel(SEED, REQUEST, 77, 9) == pytest.approx(expected, rel=1e-14)


def test_sample_follows_the_distribution() -> None:
    logits = [math.log(0.6), math.log(0.3), math.log(0.1)]
    drawn = [one(logits, settings_of(), position=position) for position in range(4_000)]

    assert [drawn.count(token) / 4_000 for token in range(3)] == pytest.approx([0.6, 0.3, 0.1], abs=0.03)


def test_sample_depends_on_seed_request_and_position() -> None:
    row = np.zeros(1_000, dtype=np.float32)
    base = sample(row, seed=SEED, request=REQUEST, position=0, sampling=settings_of())

    assert sample(row, seed=SEED, request=REQUEST, position=0, sampling=settings_of()) == base
    for seed, request, position in ((REQUEST, REQUEST, 0), (SEED, SEED, 0), (SEED, REQUEST, 1)):
        assert sample(row, seed=seed, request=request, position=position, sampling=settings_of()) != base


def test_sample_with_equal_logits_keeps_the_lower_ids() -> None:
    assert one([1.0] * 9, settings_of(temperature=0)) == 0
    assert {one([1.0] * 9, settings_of(top_k=2), position=n) for n in range(40)} == {0, 1}
    assert {one([1.0] * 10, settings_of(top_p=200_000), position=n) for n in range(40)} == {0, 1}


def test_sample_with_two_close_logits_is_unsure() -> None:
    row = np.array([1.0, 1.0], dtype=np.float32)

    assert not sample(row, seed=SEED, request=REQUEST, position=0, sampling=settings_of(temperature=0)).sure


def test_sample_on_the_border_of_top_p_is_unsure() -> None:
    row = np.zeros(10, dtype=np.float32)

    assert not sample(row, seed=SEED, request=REQUEST, position=0, sampling=settings_of(top_p=200_000)).sure
    assert sample(row, seed=SEED, request=REQUEST, position=0, sampling=settings_of(top_p=250_000)).sure


def test_sample_ignores_minus_infinity() -> None:
    logits = [-math.inf, 0.0, -math.inf, 0.0]

    assert {one(logits, settings_of(), position=n) for n in range(40)} == {1, 3}


@pytest.mark.parametrize(
    "logits", [[math.nan, 1.0], [1.0, math.inf], [-math.inf, -math.inf], []], ids=["nan", "inf", "none finite", "empty"]
)
@pytest.mark.parametrize("temperature", [0, 1_000_000])
def test_sample_of_bad_logits_raises(logits: list[float], temperature: int) -> None:
    with pytest.raises(BadLogitsError):
        one(logits, settings_of(temperature))


@pytest.mark.parametrize("top_p", [0, 1_000_001])
def test_sample_with_top_p_out_of_range_raises(top_p: int) -> None:
    with pytest.raises(SamplingRangeError):
        one([1.0, 2.0], settings_of(top_p=top_p))


def test_sample_at_temperature_zero_uses_nothing_else() -> None:
    assert one([1.0, 2.0], settings_of(temperature=0, top_p=0, top_k=1)) == 1
