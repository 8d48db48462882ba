"""A session of measuring: goes through the design, appends to the history after each cell, goes on where it stopped."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final, Protocol
from zlib import crc32

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from plait_node.selector.bench.design import Cell, design
from plait_node.selector.bench.models import MODELS, SMALL, open_model
from plait_node.selector.bench.requests import prepare
from plait_node.selector.bench.runner import Runner
from plait_node.selector.bench.settings import SETTINGS, hardware_facts
from plait_node.selector.candidates import ALWAYS_ON
from plait_node.selector.errors import UnknownModelError, UnknownSettingError, UnknownTaskError
from plait_node.selector.facts import HardwareFacts
from plait_node.selector.rows import Row, Rows
from plait_node.selector.tasks import KINDS

__all__ = ["Plan", "measure_into"]

SEED: Final = 20_261_126


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to measure; `plan` picks one of the fractions of the full design."""

    tasks: Sequence[str] = KINDS
    models: Sequence[str] = SMALL
    settings: Sequence[str] = tuple(name for name, setting in SETTINGS.items() if setting.device == "cpu")
    batches: Sequence[int] = ()
    repeats: int = 3
    plan: int = 0


class _Says(Protocol):
    def __call__(self, cell: Cell, what: str, *, done: int = 0) -> None: ...


def measure_into(path: Path, plan: Plan, *, folder: Path) -> Rows:
    """Append rows of every cell that `path` does not hold yet; return all of its rows.

    `folder` gets the random models. Raises:
        UnknownModelError, UnknownSettingError, UnknownTaskError: the plan names what there is not.
        HistoryError: `path` is there and cannot be read.
    """
    _check(plan)
    rows = list(Rows.load(path)) if path.exists() else []
    cells = list(
        design(tasks=plan.tasks, models=plan.models, settings=plan.settings, plan=plan.plan, batches=plan.batches)
    )
    facts = {name: _hardware(name) for name in plan.settings}
    with _progress(len(cells)) as say:
        for (name, setting), group in groupby(cells, key=lambda cell: (cell.model, cell.setting)):
            model = open_model(name, folder)
            runner = Runner(model, facts[setting])
            for cell in group:
                asked = prepare(cell, model, seed=SEED)
                key = (cell.task, name, setting, asked.facts.batch)
                if not any(row.cell == key for row in rows):
                    turn = crc32(repr(key).encode())
                    measured = runner.measure(
                        asked, repeats=plan.repeats, seed=turn, step=lambda what, cell=cell: say(cell, what)
                    )
                    rows += measured
                    Rows(rows).save(path)
                    say(cell, _summary(measured))
                say(cell, "", done=1)
    return Rows(rows)


def _summary(rows: Sequence[Row]) -> str:
    best = min(rows, key=lambda row: row.outcome.seconds)
    default = next(row for row in rows if row.candidate.name == ALWAYS_ON.name)
    times = default.outcome.seconds / best.outcome.seconds
    return f"x{best.task.batch}: best {best.candidate.name}, {times:.2f} times {ALWAYS_ON.name}'s speed\n"


def _check(plan: Plan) -> None:
    """Raise for a name that there is not, before anything is measured."""
    for name in plan.models:
        if name not in MODELS:
            raise UnknownModelError(f"there is no model {name[:64]!r} to measure, only {', '.join(MODELS)}")
    for name in plan.settings:
        if name not in SETTINGS:
            raise UnknownSettingError(f"there is no setting {name[:64]!r}, only {', '.join(SETTINGS)}")
    for name in plan.tasks:
        if name not in KINDS:
            raise UnknownTaskError(name, known=KINDS)


def _hardware(name: str) -> HardwareFacts:
    return hardware_facts(name, cores=len(os.sched_getaffinity(0)))


@contextmanager
def _progress(cells: int) -> Generator[_Says]:
    columns = (
        TextColumn("{task.description:<58}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(file=sys.stderr)) as bar:
        shown = bar.add_task("", total=cells)

        def say(cell: Cell, what: str, *, done: int = 0) -> None:
            line = f"{cell.model} {cell.setting} {cell.task} {what}"
            if line.endswith("\n"):
                bar.console.print(line, end="", highlight=False)
            else:
                bar.update(shown, description=line[:58], advance=done)

        yield say
