"""Vectors: a table that is kept, a bounded rest, an encoder that may be missing; and fewer numbers of them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from plait_model.errors import ModelNotFoundError
from plait_node.selector.embeddings import Embeddings, Projection, fit_projection, text_encoder
from plait_node.selector.errors import HistoryError


class Letters:
    """Counts letters: a vector that a test can tell."""

    name = "letters"
    width = 3

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.asked += texts
        return np.array([[text.count(letter) for letter in "abc"] for text in texts], dtype=np.float32)


def made(encoder: Letters, *, room: int = 4) -> Embeddings:
    return Embeddings("letters", make=lambda _: encoder, room=room)


def test_vector_is_encoded_once() -> None:
    encoder = Letters()
    embeddings = made(encoder)

    found = [embeddings.vector("aab") for _ in range(2)]

    assert found[0] is found[1]
    assert found[0] is not None
    assert found[0].tolist() == [2, 1, 0]
    assert found[0].dtype == np.float32
    assert not found[0].flags.writeable
    assert encoder.asked == ["aab"]
    assert "aab" not in embeddings


def test_vector_beyond_the_room_forgets_the_longest_unused() -> None:
    encoder = Letters()
    embeddings = made(encoder, room=2)

    for text in ("a", "b", "a", "c", "a", "b"):
        embeddings.vector(text)

    assert encoder.asked == ["a", "b", "c", "b"]


def test_vector_without_an_encoder_is_none_for_new_texts_only() -> None:
    embeddings = Embeddings("letters", {"a": np.array([1, 0, 0], np.float32)})

    assert embeddings.vector("a") is not None
    assert embeddings.vector("b") is None


@pytest.mark.parametrize("error", [ImportError("no torch"), ModelNotFoundError("no package")])
def test_vector_with_an_encoder_that_cannot_be_loaded_is_none_and_tried_once(error: Exception) -> None:
    tries: list[str] = []

    def fail(name: str) -> Letters:
        tries.append(name)
        raise error

    embeddings = Embeddings("letters", make=fail)

    assert [embeddings.vector("a"), embeddings.vector("b")] == [None, None]
    assert tries == ["letters"]


def test_vector_of_another_encoder_raises() -> None:
    with pytest.raises(HistoryError, match="the encoder is letters"):
        Embeddings("digits", make=lambda _: Letters()).vector("a")


def test_text_encoder_of_an_unknown_name_raises() -> None:
    with pytest.raises(HistoryError, match="no text encoder 'letters'"):
        text_encoder("letters")


def test_keep_encodes_what_is_new_and_is_never_forgotten() -> None:
    encoder = Letters()
    embeddings = made(encoder, room=1)
    embeddings.vector("a")

    embeddings.keep(["a", "b", "b", "c"])
    for text in ("d", "e", "a", "b", "c"):
        embeddings.vector(text)

    assert encoder.asked == ["a", "b", "c", "d", "e"]
    assert len(embeddings) == 3


def test_keep_without_an_encoder_raises() -> None:
    with pytest.raises(HistoryError, match="2 texts are new"):
        Embeddings("letters").keep(["a", "b"])


def test_load_gives_back_what_was_saved_and_needs_no_encoder(tmp_path: Path) -> None:
    embeddings = made(Letters())
    embeddings.keep(["ab", "ü ☃", "c"])
    embeddings.vector("not kept")
    path = tmp_path / "new" / "table.npz"

    embeddings.save(path)
    loaded = Embeddings.load(path)

    assert loaded.name == "letters"
    assert len(loaded) == 3
    for text in ("ab", "ü ☃", "c"):
        kept = loaded.vector(text)
        assert kept is not None
        assert np.array_equal(kept, Letters().encode([text])[0])
    assert loaded.vector("not kept") is None
    assert [each.name for each in path.parent.iterdir()] == ["table.npz"]


def test_load_of_an_empty_table_gives_an_empty_one(tmp_path: Path) -> None:
    Embeddings("letters").save(tmp_path / "table.npz")

    assert len(Embeddings.load(tmp_path / "table.npz")) == 0


def saved(path: Path, said: object, vectors: NDArray[np.float32]) -> Path:
    np.savez(path, said=np.frombuffer(json.dumps(said).encode(), np.uint8), vectors=vectors)
    return path


def test_load_of_anything_else_raises_only_our_error(tmp_path: Path) -> None:
    one = np.ones((1, 3), np.float32)
    good = {"version": 1, "encoder": "letters", "texts": ["a"]}
    whole = saved(tmp_path / "whole.npz", good, one).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.npz").write_text("no table")
    (tmp_path / "none.npz").write_bytes(b"")
    np.save(tmp_path / "array.npy", one)
    objects = np.array([{}], dtype=object)
    np.savez(tmp_path / "pickle.npz", allow_pickle=True, said=objects, vectors=objects)
    bad = [tmp_path / name for name in ("missing.npz", "cut.npz", "text.npz", "none.npz", "array.npy", "pickle.npz")]
    bad += [
        saved(tmp_path / "version.npz", {**good, "version": 2}, one),
        saved(tmp_path / "list.npz", [1], one),
        saved(tmp_path / "more.npz", {**good, "texts": ["a", "b"]}, one),
        saved(tmp_path / "nan.npz", good, one * np.nan),
        saved(tmp_path / "flat.npz", good, one[0]),
    ]

    for path in bad:
        with pytest.raises(HistoryError, match="embed the texts anew"):
            Embeddings.load(path)


def test_import_and_known_texts_leave_torch_alone(tmp_path: Path) -> None:
    embeddings = made(Letters())
    embeddings.keep(["ab"])
    embeddings.save(tmp_path / "table.npz")
    script = (
        "import sys; from pathlib import Path; import plait_node.selector.describe;"
        "from plait_node.selector.embeddings import Embeddings, text_encoder;"
        "found = Embeddings.load(Path(sys.argv[1]), make=text_encoder).vector('ab');"
        "print(found.tolist(), [each for each in ('torch', 'transformers') if each in sys.modules])"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "table.npz")]

    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=200)

    assert done.stdout == "[1.0, 1.0, 0.0] []\n"


def test_vector_of_a_real_description_comes_from_minilm() -> None:
    embeddings = Embeddings("all-minilm-l6-v2", make=text_encoder)

    found = embeddings.vector("One request comes alone.")

    assert found is not None
    assert found.shape == (384,)
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-5)


def spread(count: int, width: int, rank: int) -> NDArray[np.float32]:
    random = np.random.default_rng(0)
    return (random.normal(size=(count, rank)) @ random.normal(size=(rank, width)) + 3).astype(np.float32)


def test_fit_projection_keeps_the_directions_of_greatest_variance() -> None:
    vectors = spread(50, 12, 12)
    _, values = np.linalg.eigh(np.cov(vectors, rowvar=False))[::-1]  # an independent way to them

    made_by_svd = fit_projection(vectors, 4)
    found = made_by_svd.apply(vectors)

    assert found.shape == (50, 4)
    assert np.allclose(found.mean(axis=0), 0, atol=1e-5)
    assert np.allclose(found.var(axis=0, ddof=1), values[::-1][:4], rtol=1e-4)
    assert np.allclose(made_by_svd.axes @ made_by_svd.axes.T, np.eye(4), atol=1e-9)
    assert np.allclose(made_by_svd.apply(vectors[7]), found[7])


def test_fit_projection_does_not_depend_on_the_order_of_texts() -> None:
    vectors = spread(50, 12, 12)

    assert np.allclose(fit_projection(vectors, 4).axes, fit_projection(vectors[::-1], 4).axes, atol=1e-6)


@pytest.mark.parametrize(("count", "rank", "dims"), [(50, 3, 3), (3, 12, 2), (1, 12, 0)])
def test_fit_projection_of_few_directions_gives_fewer_numbers(count: int, rank: int, dims: int) -> None:
    vectors = spread(count, 12, rank)

    projection = fit_projection(vectors, 8)

    assert projection.dims == dims
    assert projection.apply(vectors).shape == (count, dims)


def test_fit_projection_of_equal_vectors_gives_none() -> None:
    assert fit_projection(np.repeat(spread(1, 12, 1), 7, axis=0), 8).dims == 0


@pytest.mark.parametrize(("shape", "dims"), [((0, 3), 2), ((4,), 2), ((4, 3), 0)])
def test_fit_projection_of_nothing_raises(shape: tuple[int, ...], dims: int) -> None:
    with pytest.raises(ValueError, match="cannot fit"):
        fit_projection(np.zeros(shape, np.float32), dims)


@pytest.mark.parametrize("dims", [2, 0])
def test_projection_survives_json(dims: int) -> None:
    vectors = spread(6 if dims else 1, 5, 5)
    projection = fit_projection(vectors, 2)

    read = Projection.from_lists(json.loads(json.dumps(projection.to_lists())))

    assert read.dims == dims
    assert np.array_equal(read.apply(vectors), projection.apply(vectors))


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"mean": [1.0, 2.0], "axes": [[1.0], [2.0], [3.0]]},
        {"mean": ["x"], "axes": []},
        {"mean": [float("nan")], "axes": [[1.0]]},
        {"mean": [], "axes": []},
    ],
)
def test_projection_given_damaged_lists_raises(value: dict[str, object]) -> None:
    with pytest.raises(HistoryError, match="train anew"):
        Projection.from_lists(value)
