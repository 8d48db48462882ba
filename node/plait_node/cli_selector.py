"""`plait node bench-methods`, `select`, `pin`: what an operator asks of the selector."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plait.cli.program import EXIT_USAGE, fail
from plait.protocol.errors import PlaitError
from plait.protocol.manifest import FP32_STRICT, PROFILES, Profile
from plait_node.errors import ConfigError
from plait_node.home import Home
from plait_node.selector.errors import SelectorError
from plait_node.selector.pin import PIN, pin_of, save_pin
from plait_node.selector.tasks import KINDS

if TYPE_CHECKING:
    from plait_node.selector.explain import Explanation, Question
    from plait_node.selector.rows import Rows

__all__ = ["bench_methods", "pin", "select"]

_MOST_AT_ONCE = 255  # requests of a cell


@contextmanager
def _wrong_usage() -> Generator[None]:
    """Say in one line what is wrong with what was asked, and end with status 2."""
    try:
        yield
    except (SelectorError, PlaitError, ImportError, OSError) as error:
        fail(error if isinstance(error, PlaitError) else ConfigError(str(error)), EXIT_USAGE)


def _several(given: str | None) -> list[str] | None:
    return [name.strip() for name in given.split(",") if name.strip()] if given else None


def _sizes(given: str | None) -> tuple[int, ...]:
    sizes = _several(given) or []
    if not all(size.isdecimal() and 0 < int(size) <= _MOST_AT_ONCE for size in sizes):
        raise ConfigError(f"--batches takes numbers from 1 to {_MOST_AT_ONCE} with commas between, not {given!r}")
    return tuple(map(int, sizes))


def bench_methods(
    out: Annotated[Path, typer.Argument(help="Parquet file that gets the rows; what it holds already is kept.")],
    tasks: Annotated[str | None, typer.Option(help="Comma-separated kinds of task (default: all six).")] = None,
    models: Annotated[str | None, typer.Option(help="Comma-separated models (default: four small ones).")] = None,
    settings: Annotated[
        str | None, typer.Option(help="Comma-separated settings (default: those of this machine without a GPU).")
    ] = None,
    batches: Annotated[
        str | None, typer.Option(help="Comma-separated numbers of requests at once (default: 1 to 32 in turn).")
    ] = None,
    repeats: Annotated[int, typer.Option(min=3, max=50, help="Runs of each cell and candidate, at least.")] = 3,
    plan: Annotated[int, typer.Option(min=0, max=5, help="Which part of the full design.")] = 0,
    home: Annotated[
        Path | None,
        typer.Option(
            "--home", help="Folder of a node on this machine: keep its facts, and bar methods that answer wrongly."
        ),
    ] = None,
) -> None:
    """Measure every method of the engine on this machine: tasks x models x settings, appended to a history.

    It can be stopped at any time and goes on where it stopped. Run it while the machine is idle: runs during which
    other programs use the same cores are thrown away.
    """
    from plait_node.selector.bench import Plan, bar_wrong, hardware_facts, measure_into  # noqa: PLC0415 -- loads torch
    from plait_node.selector.observe import HARDWARE, save_hardware  # noqa: PLC0415 -- as above

    chosen = {"tasks": _several(tasks), "models": _several(models), "settings": _several(settings)}
    with _wrong_usage():
        made = Plan(  # pyright: ignore[reportArgumentType] -- each is a list of names
            **{name: value for name, value in chosen.items() if value},
            batches=_sizes(batches),
            repeats=repeats,
            plan=plan,
        )
        with tempfile.TemporaryDirectory() as folder:
            rows = measure_into(out, made, folder=Path(folder))
    typer.echo(f"{len(rows)} rows in {out}")
    if home is not None:
        selector = Home(home).selector_folder
        save_hardware(selector / HARDWARE, hardware_facts("one-core", cores=len(os.sched_getaffinity(0))))
        for method, reason in bar_wrong(rows, selector).items():
            typer.echo(f"barred {method}: {reason}")


def select(
    model: Annotated[str, typer.Option("--model", help="A measured model's name, or a published one's with --models.")],
    hardware: Annotated[
        str, typer.Option("--hardware", help="A measured setting's name, a JSON file of facts, or `this` machine.")
    ],
    task: Annotated[
        str | None, typer.Option("--task", help=f"Kind of task that was measured: {', '.join(KINDS)}.")
    ] = None,
    prompt_file: Annotated[Path | None, typer.Option("--prompt-file", help="File with a prompt, UTF-8.")] = None,
    batch: Annotated[int, typer.Option(min=1, max=255, help="Requests at once.")] = 1,
    max_tokens: Annotated[int, typer.Option(min=1, max=100_000, help="Tokens of each answer.")] = 32,
    warm: Annotated[
        int | None, typer.Option(min=0, help="Leading tokens that are cached (default: as the task is measured).")
    ] = None,
    profiles: Annotated[
        str, typer.Option(help=f"Numerics that the payer allows, comma-separated, of {', '.join(PROFILES)}.")
    ] = FP32_STRICT.name,
    deadline: Annotated[float | None, typer.Option(min=0.0, help="Seconds that all answers may take.")] = None,
    budget: Annotated[float | None, typer.Option(min=0.0, help="What the machines may cost, in dollars.")] = None,
    models: Annotated[Path | None, typer.Option("--models", help="A node's folder of published models.")] = None,
    home: Annotated[
        Path | None, typer.Option("--home", help="A node's folder: what it learned counts, and what it barred.")
    ] = None,
    history: Annotated[
        Path | None, typer.Option("--history", help="Folder with rows and predictor (default: the shipped one).")
    ] = None,
    png: Annotated[Path | None, typer.Option("--png", help="Draw the bars into this file, too.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Explain a choice: what each method should take for a task, a model and a machine, and which is taken."""
    # budget: one line an option
    with _wrong_usage():
        if png is not None and find_spec("matplotlib") is None:
            raise ConfigError("--png needs matplotlib, which is not installed; run: pip install matplotlib")
        from plait_node.selector.explain import Question  # noqa: PLC0415 -- numpy and torch load for this command
        from plait_node.selector.explain_asked import hardware_named, model_named, task_asked  # noqa: PLC0415 -- as above
        from plait_node.selector.rule import Limits  # noqa: PLC0415 -- as above

        allowed, folder = _profiles(profiles), _history(history)
        rows = _rows(folder)
        asked = model_named(model, rows=rows, models=models)
        question = Question(
            task=task_asked(task, prompt_file, asked, batch=batch, answer=max_tokens, warm=warm),
            model=asked.facts,
            hardware=hardware_named(hardware, rows=rows),
            profiles=allowed,
            limits=Limits(seconds=math.inf if deadline is None else deadline, budget=budget),
        )
        _show(_explained(question, home, folder), png, as_json=as_json)


def _profiles(names: str) -> tuple[Profile, ...]:
    given = _several(names) or []
    unknown = [name for name in given if name not in PROFILES]
    if unknown or not given:
        raise ConfigError(f"unknown profile {', '.join(unknown) or repr(names)}; there are {', '.join(PROFILES)}")
    return tuple(PROFILES[name] for name in dict.fromkeys(given))


def _history(given: Path | None) -> Path:
    from plait_node.selector.training import SHIPPED  # noqa: PLC0415 -- as above

    if given is not None and not given.is_dir():
        raise ConfigError(f"{given}: no such folder; `plait node bench-methods` writes rows into one")
    return given or SHIPPED


def _rows(folder: Path) -> Rows:
    from plait_node.selector.rows import Rows  # noqa: PLC0415 -- as above

    return Rows.load(*sorted(folder.glob("*.parquet")))


def _explained(question: Question, home: Path | None, history: Path) -> Explanation:
    """Explain by the node's own predictor, factors and barred methods where there are any, else by the history's."""
    from plait_node.selector.barred import Barred  # noqa: PLC0415 -- as above
    from plait_node.selector.embeddings import text_encoder  # noqa: PLC0415 -- as above
    from plait_node.selector.explain import explain  # noqa: PLC0415 -- as above
    from plait_node.selector.live import BARRED, CORRECTIONS  # noqa: PLC0415 -- as above
    from plait_node.selector.online import Corrections  # noqa: PLC0415 -- as above
    from plait_node.selector.training import read_trained  # noqa: PLC0415 -- as above

    own = None if home is None else Home(home).selector_folder
    trained = None if own is None else read_trained(own, encoder=text_encoder)
    trained = trained or read_trained(history, encoder=text_encoder)
    if own is not None:
        question = replace(question, barred=Barred(own / BARRED).reasons)
    return explain(
        question,
        None if trained is None else trained.predictor,
        digest="" if trained is None else trained.digest,
        corrections=None if own is None else Corrections.load(own / CORRECTIONS),
    )


def _show(explanation: Explanation, png: Path | None, *, as_json: bool) -> None:
    from plait_node.selector.explain_chart import draw, lines  # noqa: PLC0415 -- as above

    if png is not None:
        draw(explanation, png)
    typer.echo(json.dumps(explanation.to_dict(), indent=2) if as_json else "\n".join(lines(explanation)))


def pin(
    home: Annotated[Path, typer.Option("--home", help="Folder of a node on this machine.")],
    method: Annotated[
        str | None,
        typer.Argument(help="plain, or some of prefix-cache, chunked-prefill, prompt-lookup, joined by +."),
    ] = None,
    chunk: Annotated[
        int | None, typer.Option(help="Prompt rows in one pass, of chunked-prefill (usually 128).")
    ] = None,
    depth: Annotated[int | None, typer.Option(help="Guessed tokens at once, of prompt-lookup (usually 10).")] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Let the selector choose again.")] = False,
) -> None:
    """Have a worker run every job by these methods, from its next job on and until they are cleared.

    What of them cannot run for a job is off for that job; which route it takes is still chosen.
    """
    with _wrong_usage():
        if clear == (method is not None):
            raise ConfigError("give the methods to pin, or --clear, not both")
        if not home.is_dir():
            raise ConfigError(f"{home}: no such folder; `plait node init` makes a node's folder")
        pinned = None if method is None else pin_of(method, chunk=chunk, depth=depth)
        save_pin(Home(home).selector_folder / PIN, pinned)
    typer.echo("no pin: the selector chooses" if pinned is None else f"pinned {pinned.title}")
