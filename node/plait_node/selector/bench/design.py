"""Which cells are measured: every task with every model and setting, each at one batch size in turn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

from plait_node.selector.bench.models import MODELS
from plait_node.selector.bench.settings import SETTINGS
from plait_node.selector.tasks import KINDS

__all__ = ["BATCHES", "Cell", "design"]

BATCHES: Final = (1, 2, 4, 8, 16, 32)


_EVERY_OTHER: Final = frozenset({"gemma3-270m"})  # the slowest model gets every other cell


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What all candidates are measured on; `batch` is lowered where the model's texts would take too long."""

    task: str
    model: str
    setting: str
    batch: int


def design(
    *, tasks: Sequence[str], models: Sequence[str], settings: Sequence[str], plan: int = 0, batches: Sequence[int] = ()
) -> Iterator[Cell]:
    """Yield cells, those of one model and setting together.

    A fraction of the full design: batch sizes go round, so that each meets each task, model and setting; another
    `plan` starts the round elsewhere.
    """
    sizes = batches or BATCHES
    for model, setting, task in product(models, settings, tasks):
        # Places in the full lists, so that a part of the design measures what the whole would.
        m, s, t = MODELS.index(model), list(SETTINGS).index(setting), KINDS.index(task)
        if model not in _EVERY_OTHER or (s + t) % 2 == 0:
            yield Cell(task=task, model=model, setting=setting, batch=sizes[(t + 2 * s + 3 * m + plan) % len(sizes)])
