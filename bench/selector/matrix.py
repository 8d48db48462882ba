"""The paper's matrix P as the collaborative baselines read it: log seconds over those of the cell's default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from bench.selector.cells import Cell
from bench.selector.features import Floats, relative

__all__ = ["Grid", "grid", "means", "scores"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """`values[i, j]` of cell i and candidate j, below 0 where it is faster than the default; NaN: not measured."""

    names: tuple[str, ...]
    values: Floats


def grid(cells: Sequence[Cell]) -> Grid:
    """Return P over the candidates that these cells know."""
    names = tuple(dict.fromkeys(name for cell in cells for name in cell.timings))
    values = np.full((len(cells), len(names)), np.nan)
    for index, cell in enumerate(cells):
        columns = [names.index(name) for name in cell.timings]
        values[index, columns] = relative(cell)
    return Grid(names=names, values=values)


def means(values: Floats, fallback: Floats | None = None) -> Floats:
    """Return column means over what was measured; a column without any takes the fallback's value, or 0."""
    known = ~np.isnan(values)
    count = known.sum(axis=0)
    found = np.where(known, values, 0.0).sum(axis=0) / np.maximum(count, 1)
    return np.where(count > 0, found, np.zeros(len(found)) if fallback is None else fallback)


def scores(names: Sequence[str], values: Floats) -> Mapping[str, float]:
    """Return a score per candidate's name."""
    return dict(zip(names, values.tolist(), strict=True))
