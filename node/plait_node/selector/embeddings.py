"""Vectors of texts: a table of known ones that is kept as npz, and an encoder, if there is one, for new ones.

The encoder needs torch and seconds to load. It is made when the first unknown text comes, not before; a process that
must not load torch gives none.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from plait_model.errors import ModelError
from plait_node.selector.errors import HistoryError

if TYPE_CHECKING:
    from plait_model.text_encoder import TextEncoder

__all__ = ["Embeddings", "Projection", "Vector", "fit_projection", "text_encoder"]

VERSION: Final = 1
_ROOM: Final = 1_024

Vector = NDArray[np.float32]


def text_encoder(name: str = "all-minilm-l6-v2") -> TextEncoder:
    """Load an encoder by the name that its tables carry.

    Raises:
        HistoryError: there is none of this name.
        ImportError: torch is not installed.
        ModelError: its weights are not installed, or damaged.
    """
    from plait_model.text_encoder import TEXT_ENCODERS  # noqa: PLC0415 -- torch loads for new texts only

    if name not in TEXT_ENCODERS:
        raise HistoryError(f"there is no text encoder {name!r}, only {', '.join(TEXT_ENCODERS)}; embed the texts anew")
    return TEXT_ENCODERS[name]()


class Embeddings:
    """Text to vector by one encoder; for one thread.

    The table only grows, by `keep`; other texts' vectors are forgotten, the longest unused first, beyond `room`.
    `make` is called once at most; without it, unknown texts have no vector.
    """

    def __init__(
        self,
        name: str,
        table: Mapping[str, Vector] | None = None,
        *,
        make: Callable[[str], TextEncoder] | None = None,
        room: int = _ROOM,
    ) -> None:
        self.name: Final = name  # of the encoder
        self._table = {text: _frozen(vector) for text, vector in (table or {}).items()}
        self._recent: OrderedDict[str, Vector] = OrderedDict()
        self._make, self._room = make, room
        self._encoder: TextEncoder | None = None

    def __len__(self) -> int:
        return len(self._table)

    def __contains__(self, text: object) -> bool:
        return text in self._table

    def vector(self, text: str) -> Vector | None:
        """Return a text's vector, (width,), read-only; None for a new text if no encoder is there or can be loaded.

        Raises:
            HistoryError: the encoder that can be loaded is another one than the table's.
            ValueError: the text is empty.
        """
        if (known := self._known(text)) is not None:
            return known
        encoder = self._loaded()
        if encoder is None:
            return None
        made = self._recent[text] = _frozen(encoder.encode([text])[0])
        while len(self._recent) > self._room:
            self._recent.popitem(last=False)
        return made

    def keep(self, texts: Iterable[str]) -> None:
        """Put texts into the table, those that have no vector yet encoded together; raise `HistoryError`."""
        wanted = [text for text in dict.fromkeys(texts) if text not in self._table]
        new = [text for text in wanted if text not in self._recent]
        if new:
            encoder = self._loaded()
            if encoder is None:
                raise HistoryError(f"{len(new)} texts are new and {self.name} is not here to embed them; install it")
            self._table |= {text: _frozen(row) for text, row in zip(new, encoder.encode(new), strict=True)}
        self._table |= {text: self._recent.pop(text) for text in wanted if text in self._recent}

    def save(self, path: Path) -> None:
        """Write the table as npz, in one move: a reader never sees half of it."""
        texts = sorted(self._table)
        said = json.dumps({"version": VERSION, "encoder": self.name, "texts": texts}).encode()
        vectors = np.stack([self._table[text] for text in texts]) if texts else np.empty((0, 0), np.float32)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.savez_compressed(file, said=np.frombuffer(said, np.uint8), vectors=vectors)
        partial.replace(path)

    @classmethod
    def load(cls, path: Path, *, make: Callable[[str], TextEncoder] | None = None, room: int = _ROOM) -> Embeddings:
        """Read a table; `make` is given the encoder's name; raise `HistoryError`."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as parts:
                said, vectors = (cast("NDArray[Any]", parts[name]) for name in ("said", "vectors"))
            header = cast("dict[str, Any]", json.loads(said.tobytes()))
            if header["version"] != VERSION:
                raise HistoryError(f"{path} has version {header['version']}, not {VERSION}; embed the texts anew")
            if vectors.ndim != 2 or vectors.dtype != np.float32 or not np.isfinite(vectors).all():
                raise HistoryError(f"{path} holds no vectors of finite fp32 numbers; embed the texts anew")
            table = dict(zip(cast("list[str]", header["texts"]), vectors, strict=True))
            return cls(str(header["encoder"]), table, make=make, room=room)
        except OSError as error:
            raise HistoryError(f"cannot read {path}: {error}; embed the texts anew") from error
        except (KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise HistoryError(f"{path} is damaged ({error}); embed the texts anew") from error

    def _known(self, text: str) -> Vector | None:
        if text in self._recent:
            self._recent.move_to_end(text)
        return self._table.get(text, self._recent.get(text))

    def _loaded(self) -> TextEncoder | None:
        """Return the encoder; None where none can be made, and then it is not tried again."""
        if self._encoder is None and self._make is not None:
            make, self._make = self._make, None
            self._encoder = _made(make, self.name)
        return self._encoder


@dataclass(frozen=True, slots=True, kw_only=True)
class Projection:
    """Vectors to the few numbers along which those it was fitted on differ most."""

    mean: NDArray[np.float64]  # (width,)
    axes: NDArray[np.float64]  # (dims, width), orthonormal rows

    @property
    def dims(self) -> int:
        """Return how many numbers come out."""
        return len(self.axes)

    def apply(self, vectors: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Return (n, dims) of vectors (n, width), or (dims,) of one."""
        return (vectors - self.mean) @ self.axes.T

    def to_lists(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {"mean": self.mean.tolist(), "axes": self.axes.tolist()}

    @classmethod
    def from_lists(cls, value: Mapping[str, Any]) -> Projection:
        """Return what `to_lists` gave; raise `HistoryError`."""
        try:
            mean = np.asarray(value["mean"], dtype=np.float64)
            axes = np.asarray(value["axes"], dtype=np.float64).reshape(-1, len(mean))
        except (KeyError, TypeError, ValueError) as error:
            raise HistoryError(f"the projection is damaged ({error}); train anew") from error
        if not (np.isfinite(mean).all() and np.isfinite(axes).all()):
            raise HistoryError("the projection is damaged (not all its numbers are finite); train anew")
        return cls(mean=mean, axes=axes)


def fit_projection(vectors: NDArray[np.floating[Any]], dims: int) -> Projection:
    """Fit by a truncated SVD of the centred vectors, (n, width): those of training texts, never of texts to predict.

    Vectors that span fewer than `dims` directions give fewer numbers. A text that comes n times counts n times.
    """
    if vectors.ndim != 2 or not len(vectors) or dims < 1:
        raise ValueError(f"cannot fit {dims} dimensions to vectors of shape {vectors.shape}; give at least one of each")
    wide = vectors.astype(np.float64)
    mean = wide.mean(axis=0)
    _, sizes, axes = np.linalg.svd(wide - mean, full_matrices=False)
    # What is smaller is rounding of the fp32 values.
    least = np.finfo(np.float32).eps * np.linalg.norm(wide)
    kept = axes[: min(dims, int((sizes > least).sum()))]
    # An SVD leaves the sign open: an axis' largest value is positive.
    signs = np.sign(kept[np.arange(len(kept)), np.abs(kept).argmax(axis=1)])
    return Projection(mean=mean, axes=kept * signs[:, None])


def _frozen(vector: NDArray[np.float32]) -> Vector:
    made = np.array(vector, dtype=np.float32)
    made.flags.writeable = False
    return made


def _made(make: Callable[[str], TextEncoder], name: str) -> TextEncoder | None:
    try:
        made = make(name)
    except (ImportError, ModelError):
        return None
    if made.name != name:
        raise HistoryError(f"the table is of {name}, the encoder is {made.name}; they cannot be compared")
    return made
