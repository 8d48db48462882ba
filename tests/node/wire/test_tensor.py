from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plait_node.wire import TensorError, decode_rows, encode_rows
from plait_node.wire.tensor import FP32, IDS


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
    codec=st.sampled_from([IDS, FP32, "fp16", "", "pickle"]),
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
