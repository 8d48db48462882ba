"""The measured history: one row a cell and candidate, kept as Parquet; its matrix P is cells by candidates."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, cast, overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
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
    seconds_low: float  # least and greatest of the kept repeats
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
        """Return half the spread of the kept repeats as a share of the median."""
        return (self.seconds_high - self.seconds_low) / 2 / self.seconds


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

    def save(self, path: Path) -> None:
        """Write a Parquet file, in one move: a reader never sees half of it."""
        flat = [_flat(row) for row in self._rows]
        table = pa.Table.from_pylist(flat, schema=_schema()).replace_schema_metadata({"plait": str(VERSION)})
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        pq.write_table(table, partial, compression="zstd")
        partial.replace(path)


def _read(path: Path) -> list[Row]:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise HistoryError(f"cannot read {path}: {error}; measure with plait node bench-methods") from error
    found = (table.schema.metadata or {}).get(b"plait", b"none").decode()
    if found != str(VERSION):
        raise HistoryError(f"{path} has version {found}, not {VERSION}; measure anew with plait node bench-methods")
    try:
        return [_row(each) for each in table.to_pylist()]
    except (KeyError, TypeError, ValueError) as error:
        raise HistoryError(f"{path} is damaged ({error}); measure anew with plait node bench-methods") from error


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


def _schema() -> pa.Schema:
    kinds = {"int": pa.int64(), "float": pa.float64(), "bool": pa.bool_(), "float | None": pa.float64()}
    return pa.schema(
        [
            pa.field(f"{group}_{each.name}", kinds.get(str(each.type), pa.string()))
            for group, kind in _GROUPS.items()
            for each in fields(kind)
        ]
    )
