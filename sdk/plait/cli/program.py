"""The `plait` program: a root that loads the one command it is asked for.

A command belongs to the package that does its work. It is named in the entry-point group `plait.commands` and is a
`typer.Typer`. Only the command that runs is imported, so that `plait --help` needs none of the extras.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, entry_points, version
from typing import Annotated

import typer

from plait.protocol.errors import PlaitError

GROUP = "plait.commands"
EXIT_FAILED = 1
EXIT_USAGE = 2
SUMMARIES = {
    "ask": "Ask one question; the answer streams, checked and paid for.",
    "audit": "Replay a deployment's logs and report what does not add up.",
    "deploy": "Put the contracts on a chain and write the deployment file.",
    "job": "Show whether a job's receipt is signed, claimed or final.",
    "node": "Serve blocks of a model: publish, stake, run, drain, status.",
    "proxy": "Serve OpenAI's API on this machine; each answer is checked and paid.",
}
EXTRAS = {"proxy": "web"}  # of commands whose extra has another name than they
EXIT_CODES = "Exit codes: 0 done, 1 failed or findings, 2 wrong usage or a missing extra."


class MissingExtraError(PlaitError):
    """A command's package is installed without the libraries it needs: install the named extra."""

    def __init__(self, command: str, missing: str) -> None:
        super().__init__(
            f"`plait {command}` needs {missing}, which is not installed; "
            f"run: pip install 'plait[{EXTRAS.get(command, command)}]'"
        )
        self.command = command
        self.missing = missing


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program; always raises `SystemExit`."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        root(words)(args=words, prog_name="plait")
    except MissingExtraError as error:
        fail(error, EXIT_USAGE)
    except PlaitError as error:
        fail(error, EXIT_FAILED)


def fail(error: PlaitError, status: int) -> None:
    """Print what happened and what to do, and end."""
    print(f"plait: {error}", file=sys.stderr)
    raise SystemExit(status)


def root(words: Sequence[str]) -> typer.Typer:
    """Return the program with the command that these words ask for; the others only as a line of help."""
    app = typer.Typer(no_args_is_help=True, add_completion=False, epilog=EXIT_CODES, pretty_exceptions_enable=False)
    app.callback()(describe)
    asked = next((word for word in words if not word.startswith("-")), None)
    for entry in sorted(entry_points(group=GROUP), key=lambda each: each.name):
        if entry.name == asked:
            add(app, entry.name, load(entry))
        else:
            app.command(entry.name, help=SUMMARIES.get(entry.name))(unloaded(entry.name))
    return app


def add(app: typer.Typer, name: str, command: typer.Typer) -> None:
    """Mount a command; one that has no commands of its own is called by its name alone."""
    alone = len(command.registered_commands) == 1 and not (command.registered_groups or command.registered_callback)
    call = command.registered_commands[0].callback if alone else None
    if call is not None:
        app.command(name)(call)
    else:
        app.add_typer(command, name=name, help=SUMMARIES.get(name))


def print_version(*, asked: bool) -> None:
    """Print the version and end, if asked."""
    if asked:
        print(f"plait {version('plait')}")
        raise typer.Exit


def describe(
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Ask a swarm of staked nodes, serve one, or audit all of them."""


def load(entry: EntryPoint) -> typer.Typer:
    """Import a command; raise `MissingExtraError` when a library of its extra is not installed."""
    try:
        loaded = entry.load()
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("plait"):
            raise
        raise MissingExtraError(entry.name, error.name) from error
    if not isinstance(loaded, typer.Typer):
        raise TypeError(f"the entry point {entry.name} of {GROUP} is a {type(loaded).__name__}, not a typer.Typer")
    return loaded


def unloaded(name: str) -> Callable[[], None]:
    """Return what stands for a command in the help of another."""

    def run() -> None:
        raise AssertionError(name)  # the words that reach it would have loaded it

    return run
