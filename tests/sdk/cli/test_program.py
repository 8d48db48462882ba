from __future__ import annotations

from importlib.metadata import EntryPoint, version
from pathlib import Path

import pytest

from plait.cli import main as program
from plait.cli.program import GROUP

COMMANDS = """
import typer
from plait.protocol.errors import PlaitError
group = typer.Typer()
alone = typer.Typer()
broken = typer.Typer()

@group.command()
def one() -> None: print("one ran")
@group.command()
def two() -> None: print("two ran")
@alone.command()
def audit(*, rpc: str = "") -> None: print(f"audit of {rpc}")
@broken.command()
def run() -> None: raise PlaitError("the RPC is down; start it")
"""


@pytest.fixture(autouse=True)
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install commands beside the real ones, as another package would."""
    (tmp_path / "some_commands.py").write_text(COMMANDS)
    (tmp_path / "needs_extra.py").write_text("import a_library_that_nobody_has\n")
    monkeypatch.syspath_prepend(tmp_path)
    named = {"group": "some_commands:group", "alone": "some_commands:alone", "broken": "some_commands:broken"}
    named |= {"needy": "needs_extra:app", "text": "typer:__name__"}
    found = tuple(EntryPoint(name=name, value=value, group=GROUP) for name, value in named.items())
    monkeypatch.setattr("plait.cli.program.entry_points", lambda *, group: found if group == GROUP else ())


def status_of(*words: str) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        program(words)
    return ended.value.code


def test_program_given_help_lists_commands_without_loading_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("--help") == 0

    shown = capsys.readouterr().out
    assert all(name in shown for name in ("group", "alone", "needy"))
    assert "Exit codes" in shown


def test_program_given_version_prints_that_of_the_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("--version") == 0

    assert capsys.readouterr().out == f"plait {version('plait')}\n"


def test_program_given_command_of_group_runs_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("group", "two") == 0

    assert capsys.readouterr().out == "two ran\n"


def test_program_given_command_alone_runs_it_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("alone", "--rpc", "http://there") == 0

    assert capsys.readouterr().out == "audit of http://there\n"


def test_program_given_missing_extra_names_the_install_line_and_exits_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("needy") == 2

    assert "needs a_library_that_nobody_has" in (said := capsys.readouterr().err)
    assert "pip install 'plait[needy]'" in said


def test_program_given_error_of_a_command_prints_it_and_exits_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("broken") == 1

    assert capsys.readouterr().err == "plait: the RPC is down; start it\n"


def test_program_given_unknown_command_exits_two() -> None:
    assert status_of("nope") == 2


def test_program_given_entry_point_that_is_no_typer_raises() -> None:
    with pytest.raises(TypeError, match="not a typer"):
        program(["text"])
