from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plait_node.wire import TensorError, decode_rows, encode_rows, row_bytes
from plait_node.wire.tensor import BF16, FP32, IDS, INT8

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


def test_encode_ids_are_big_endian() -> None:
    assert encode_rows(np.array([1, 0x01020304]), codec=IDS) == bytes([0, 0, 0, 1, 1, 2, 3, 4])


def test_encode_fp32_is_little_endian() -> None:
    assert encode_rows(np.array([[1.0]], dtype=np.float32), codec=FP32) == bytes.fromhex("0000803f")


@given(ids=st.lists(st.integers(0, 49_151), min_size=1, max_size=64))
def test_ids_decoded_are_those_encoded(ids: list[int]) -> None:
    data = encode_rows(np.array(ids, dtype=np.int64), codec=IDS)
    back = decode_rows(data, codec=IDS, count=len(ids), width=8, limit=49_152)
    assert back.dtype == np.int64
    assert back.tolist() == ids


@given(
    values=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=4, max_size=64).filter(
        lambda values: len(values) % 4 == 0
    )
)
def test_fp32_decoded_is_bit_for_bit_what_was_encoded(values: list[float]) -> None:
    rows = np.array(values, dtype=np.float32).reshape(-1, 4)
    back = decode_rows(encode_rows(rows, codec=FP32), codec=FP32, count=len(rows), width=4, limit=0)
    assert back.dtype == np.float32
    assert back.tobytes() == rows.tobytes()
    back[0, 0] = 1.0  # whoever computes on rows may write to them


@settings(max_examples=300)
@given(
    data=st.binary(max_size=96),
    codec=st.sampled_from([IDS, FP32, BF16, INT8, "fp16", "", "pickle"]),
    count=st.integers(-2, 9),
    width=st.integers(1, 5),
)
def test_decode_any_bytes_give_rows_of_the_shape_or_an_error(data: bytes, codec: str, count: int, width: int) -> None:
    try:
        rows = decode_rows(data, codec=codec, count=count, width=width, limit=1_000)
    except TensorError:
        return
    assert rows.shape == ((count,) if codec == IDS else (count, width))
    assert np.isfinite(rows).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_decode_not_finite_is_refused(value: float) -> None:
    rows = np.array([[0.0, value]], dtype=np.float32)
    with pytest.raises(TensorError, match="NaN"):
        decode_rows(rows.tobytes(), codec=FP32, count=1, width=2, limit=0)


def test_decode_id_beyond_the_vocabulary_is_refused() -> None:
    with pytest.raises(TensorError, match="vocabulary"):
        decode_rows(encode_rows(np.array([9]), codec=IDS), codec=IDS, count=1, width=2, limit=9)


@pytest.mark.parametrize("rows", [np.zeros(0), np.array([-1]), np.array([1 << 32]), np.zeros((1, 2))])
def test_encode_ids_of_a_wrong_shape_or_range_are_refused(rows: np.ndarray) -> None:
    with pytest.raises(TensorError):
        encode_rows(rows, codec=IDS)


def test_encode_unknown_codec_is_refused() -> None:
    with pytest.raises(TensorError):
        encode_rows(np.zeros((1, 2)), codec="fp16")


def rows_of(codec: str, data: bytes, width: int) -> np.ndarray:
    rows = decode_rows(data, codec=codec, count=len(data) // row_bytes(codec, width), width=width, limit=0)
    assert rows.dtype == np.float32
    return rows


matrices = st.integers(1, 200).flatmap(
    lambda width: st.lists(st.lists(FINITE, min_size=width, max_size=width), min_size=1, max_size=3)
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1.0, "803f"),
        (-2.0, "00c0"),
        (-0.0, "0080"),
        (1.0 + 2.0**-8, "803f"),  # a tie goes to the even neighbour, here below
        (1.0 + 3 * 2.0**-8, "823f"),  # and here above
        (1.0 + 2.0**-8 + 2.0**-20, "813f"),
        (1e-45, "0000"),
    ],
)
def test_encode_bf16_rounds_to_nearest_even(value: float, expected: str) -> None:
    assert encode_rows(np.array([[value]], dtype=np.float32), codec=BF16).hex() == expected


@given(values=matrices)
def test_bf16_error_is_half_of_the_eighth_bit(values: list[list[float]]) -> None:
    rows = np.array(values, dtype=np.float32).clip(-3.3e38, 3.3e38)
    back = rows_of(BF16, encode_rows(rows, codec=BF16), rows.shape[1])
    normal = np.abs(rows) >= 2.0**-126
    exact = rows.astype(np.float64)
    assert (np.abs(back - exact)[normal] <= np.abs(exact)[normal] * 2.0**-8).all()
    assert (np.abs(back - exact)[~normal] <= 2.0**-134).all()


def test_encode_int8_has_scales_then_values() -> None:
    rows = np.zeros((2, 66), dtype=np.float32)
    rows[0, 0], rows[0, 1], rows[0, 65], rows[1, 3] = 254.0, -3.0, -127.0, 63.5

    data = encode_rows(rows, codec=INT8)

    # Scales 2 and 1, values 127, -2 (of -1.5, ties to even) and, in the short block, -127; scales 0.5 and none.
    assert data[:70].hex() == "0040803f" + "7ffe" + 63 * "00" + "81"
    assert data[70:].hex() == "003f0000" + "0000007f" + 62 * "00"
    assert len(data) == 2 * row_bytes(INT8, 66)


@given(values=matrices)
def test_int8_error_is_half_of_a_step_of_its_block(values: list[list[float]]) -> None:
    rows = np.array(values, dtype=np.float32)
    back = rows_of(INT8, encode_rows(rows, codec=INT8), rows.shape[1])
    for start in range(0, rows.shape[1], 64):
        exact = rows[:, start : start + 64].astype(np.float64)
        largest = np.abs(exact).max(axis=1, keepdims=True)
        # The scale is rounded to 8 bits, so that the largest value may lose half of a step too.
        assert (np.abs(back[:, start : start + 64] - exact) <= largest / 127 * 0.51 + 2.0**-119).all()


@pytest.mark.parametrize(("codec", "error"), [(BF16, 0.0017), (INT8, 0.0075)])
def test_relative_error_of_rows_is_as_documented(codec: str, error: float) -> None:
    rows = np.random.default_rng(0).normal(size=(64, 576)).astype(np.float32)
    back = rows_of(codec, encode_rows(rows, codec=codec), 576)
    measured = np.linalg.norm(back - rows) / np.linalg.norm(rows)
    assert 0.8 * error < measured < error


@settings(max_examples=300)
@given(values=matrices, codec=st.sampled_from([FP32, BF16, INT8]))
def test_rows_decoded_and_encoded_again_are_the_same_bytes(values: list[list[float]], codec: str) -> None:
    rows = np.array(values, dtype=np.float32).clip(-3.3e38, 3.3e38)
    data = encode_rows(rows, codec=codec)
    back = rows_of(codec, data, rows.shape[1])
    assert encode_rows(back, codec=codec) == data
    assert len(data) == len(rows) * row_bytes(codec, rows.shape[1])
    assert b"".join(encode_rows(row[None], codec=codec) for row in rows) == data  # each row by itself
    back[0, 0] = 1.0  # whoever computes on rows may write to them


@settings(max_examples=500)
@given(data=st.data(), codec=st.sampled_from([BF16, INT8]), width=st.sampled_from([1, 3, 64, 66]))
def test_bytes_that_decode_are_those_that_encode(data: st.DataObject, codec: str, width: int) -> None:
    size = row_bytes(codec, width)
    raw = data.draw(st.binary(min_size=size, max_size=size))
    if codec == INT8 and data.draw(st.booleans()):
        raw = raw[: size - width] + b"\x7f" + raw[size - width + 1 :]
    try:
        rows = rows_of(codec, raw, width)
    except TensorError:
        return
    assert encode_rows(rows, codec=codec) == raw


@pytest.mark.parametrize(
    "head",
    ["c07f", "807f", "80ff", "80bf", "0080", "0100", "047c", "0000"],
    ids=["nan", "inf", "-inf", "negative", "-0", "subnormal", "127 times infinite", "0 with a value"],
)
def test_decode_int8_with_a_scale_nobody_makes_is_refused(head: str) -> None:
    with pytest.raises(TensorError):
        rows_of(INT8, bytes.fromhex(head) + b"\x7f\x00", 2)


@pytest.mark.parametrize("body", ["7e00", "8000", "807f", "0000"], ids=["no 127", "-128", "-128 and 127", "zeros"])
def test_decode_int8_with_values_nobody_makes_is_refused(body: str) -> None:
    with pytest.raises(TensorError):
        rows_of(INT8, bytes.fromhex("803f" + body), 2)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -np.float32(3.4e38)])
def test_encode_of_what_the_codec_cannot_hold_is_refused(value: float) -> None:
    rows = np.array([[1.0, value]], dtype=np.float32)
    with pytest.raises(TensorError):
        encode_rows(rows, codec=BF16)
    if not np.isfinite(value):
        with pytest.raises(TensorError):
            encode_rows(rows, codec=INT8)


def test_int8_of_the_largest_values_stays_finite() -> None:
    rows = np.full((1, 64), np.finfo(np.float32).max)
    back = rows_of(INT8, encode_rows(rows, codec=INT8), 64)
    assert np.abs(back / rows - 1).max() < 0.01


@pytest.mark.parametrize("codec", [FP32, BF16, INT8])
@pytest.mark.parametrize("rows", [np.zeros(2), np.zeros((0, 2)), np.zeros((2, 0)), np.zeros((1, 1, 1))])
def test_encode_rows_of_a_wrong_shape_are_refused(codec: str, rows: np.ndarray) -> None:
    with pytest.raises(TensorError):
        encode_rows(rows, codec=codec)
