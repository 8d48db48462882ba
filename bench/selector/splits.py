"""Which cells are trained on and which are asked about; a cell is never on both sides of a fold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from bench.selector.cells import Cell

__all__ = ["SPLITS", "Fold", "left_out", "random_folds"]

_FOLDS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """Positions of cells; `name` says what is held out."""

    name: str
    train: tuple[int, ...]
    test: tuple[int, ...]


def random_folds(cells: Sequence[Cell], seed: int, *, folds: int = _FOLDS) -> list[Fold]:
    """Deal the cells out at random; each is asked about in exactly one fold."""
    order = np.random.default_rng(seed).permutation(len(cells)).tolist()
    dealt = [sorted(order[start::folds]) for start in range(min(folds, len(cells)))]
    return [_fold(f"part {index + 1}", len(cells), test) for index, test in enumerate(dealt)]


def left_out(cells: Sequence[Cell], value: Callable[[Cell], str]) -> list[Fold]:
    """Hold each value out in turn; no folds where there is only one, since nothing would be left to train on."""
    values = [value(cell) for cell in cells]
    kinds = tuple(dict.fromkeys(values))
    if len(kinds) < 2:
        return []
    return [_fold(kind, len(cells), [index for index, each in enumerate(values) if each == kind]) for kind in kinds]


def _fold(name: str, count: int, test: Sequence[int]) -> Fold:
    held = set(test)
    return Fold(name=name, train=tuple(each for each in range(count) if each not in held), test=tuple(test))


def _device(cell: Cell) -> str:
    return f"{cell.question.hardware.device} {cell.question.hardware.chip}"


# The seed matters to the random split only; the others repeat with the selector's own seed.
SPLITS: Final[Mapping[str, Callable[[Sequence[Cell], int], list[Fold]]]] = {
    "random": random_folds,
    "leave-one-model-out": lambda cells, _seed: left_out(cells, lambda cell: cell.question.model.name),
    "leave-one-setting-out": lambda cells, _seed: left_out(cells, lambda cell: cell.question.hardware.name),
    "leave-one-task-out": lambda cells, _seed: left_out(cells, lambda cell: cell.question.task.kind),
    "leave-one-hardware-out": lambda cells, _seed: left_out(cells, _device),
}
