"""The measured history: one row a cell and candidate, kept as Parquet; its matrix P is cells by candidates."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import Any, Final, cast, overload

import numpy as np
from numpy.typing import NDArray

from plait_node.selector.errors import HistoryError
from plait_node.selector.facts import Candidate, CellKey, HardwareFacts, ModelFacts, TaskFacts

__all__ = ["Matrix", "Outcome", "Row", "Rows"]

VERSION: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a candidate took, medians over `repeats`; seconds, bytes, joules."""

    repeats: int
    discarded: int  # repeats thrown away because something else was using the machine
    tokens_s: float  # all requests' new tokens over the time until the last was there
    seconds: float  # that time
    seconds_low: float  # a quarter of the repeats took at most this, and three quarters at most the next
    seconds_high: float
    ttft_s: float  # mean over the requests
    tpot_p50_s: float
    tpot_p99_s: float
    peak_memory_bytes: int  # weights, KV room and the most that was held besides while it ran
    energy_j: float | None  # None: the machine does not tell
    agreement: float  # share of tokens equal to those of "none" up to the first that differs; -1: not scored
    accepted: float  # share of proposed tokens that were right; -1: nothing was proposed
    overlap: float  # share of the answer's tokens that end a run of three seen in the prompt: what look-up lives from
    load: float  # cores that other processes used meanwhile
    at: str  # UTC day
    versions: str  # JSON: package to version

    @property
    def noise(self) -> float:
        """Return by which share of it the median may err by chance.

        A median of n normal values errs by 0.93 times their middle half's width over the root of n.
        """
        return 0.93 * (self.seconds_high - self.seconds_low) / math.sqrt(self.repeats) / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measurement."""

    task: TaskFacts
    model: ModelFacts
    hardware: HardwareFacts
    candidate: Candidate
    outcome: Outcome

    @property
    def cell(self) -> CellKey:
        """Return what candidates are compared within."""
        return self.task.kind, self.model.name, self.hardware.name, self.task.batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """The paper's P: `values[i, j]` is what candidate j took or gave in cell i, NaN where it was not measured."""

    cells: tuple[CellKey, ...]
    candidates: tuple[str, ...]
    values: NDArray[np.float64]


_GROUPS: Final = {
    "task": TaskFacts,
    "model": ModelFacts,
    "hardware": HardwareFacts,
    "candidate": Candidate,
    "outcome": Outcome,
}


class Rows(Sequence[Row]):
    """Measured rows in the order in which they came."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self._rows = tuple(rows)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Rows: ...
    def __getitem__(self, index: int | slice) -> Row | Rows:
        return Rows(self._rows[index]) if isinstance(index, slice) else self._rows[index]

    def matrix(self, value: str = "tokens_s") -> Matrix:
        """Return P for one field of `Outcome`; a cell measured twice counts with its last row."""
        cells = tuple(dict.fromkeys(row.cell for row in self._rows))
        names = tuple(dict.fromkeys(row.candidate.name for row in self._rows))
        values = np.full((len(cells), len(names)), np.nan)
        for row in self._rows:
            values[cells.index(row.cell), names.index(row.candidate.name)] = getattr(row.outcome, value)
        return Matrix(cells=cells, candidates=names, values=values)

    @classmethod
    def load(cls, *paths: Path) -> Rows:
        """Read one or more Parquet files; raise `HistoryError`."""
        return cls(row for path in paths for row in _read(path))

    def to_list(self) -> list[dict[str, Any]]:
        """Return flat rows, a word a column, as the Parquet file has them."""
        return [_flat(row) for row in self._rows]

    @classmethod
    def from_list(cls, flat: Iterable[Mapping[str, Any]]) -> Rows:
        """Return what `to_list` gave; raise `HistoryError`."""
        try:
            return cls(_row(each) for each in flat)
        except (KeyError, TypeError, ValueError) as error:
            raise HistoryError(f"a row is damaged ({error}); measure anew with plait node bench-methods") from error

    def save(self, path: Path) -> None:
        """Write a Parquet file, in one move: a reader never sees half of it."""
        arrow = _arrow()
        table = arrow.Table.from_pylist(self.to_list(), schema=_schema(arrow)).replace_schema_metadata(
            {"plait": str(VERSION)}
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        arrow.parquet.write_table(table, partial, compression="zstd")
        partial.replace(path)


def _read(path: Path) -> list[Row]:
    arrow = _arrow()
    try:
        table = arrow.parquet.read_table(path)
    except (OSError, arrow.ArrowException) as error:
        raise HistoryError(f"cannot read {path}: {error}; measure with plait node bench-methods") from error
    metadata = cast("dict[bytes, bytes]", table.schema.metadata or {})
    found = metadata.get(b"plait", b"none").decode(errors="replace")
    if found != str(VERSION):
        raise HistoryError(f"{path} has version {found}, not {VERSION}; measure anew with plait node bench-methods")
    return list(Rows.from_list(table.to_pylist()))


def _flat(row: Row) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for group, kind in _GROUPS.items():
        for each in fields(kind):
            value = getattr(getattr(row, group), each.name)
            flat[f"{group}_{each.name}"] = json.dumps(dict(value)) if each.name == "methods" else value
    return flat


def _row(flat: Mapping[str, Any]) -> Row:
    parts: dict[str, Any] = {}
    for group, kind in _GROUPS.items():
        words = {each.name: flat[f"{group}_{each.name}"] for each in fields(kind)}
        if "methods" in words:
            words["methods"] = cast("dict[str, int]", json.loads(words["methods"]))
        parts[group] = kind(**words)
    return Row(**parts)


def _arrow() -> Any:  # noqa: ANN401 -- it has no types
    """Return pyarrow, loaded when a file is touched: what only passes rows on has no need of it."""
    import_module("pyarrow.parquet")
    return import_module("pyarrow")


def _schema(arrow: Any) -> Any:  # noqa: ANN401 -- as above
    kinds = {"int": arrow.int64(), "float": arrow.float64(), "bool": arrow.bool_(), "float | None": arrow.float64()}
    return arrow.schema(
        [
            arrow.field(f"{group}_{each.name}", kinds.get(str(each.type), arrow.string()))
            for group, kind in _GROUPS.items()
            for each in fields(kind)
        ]
    )
