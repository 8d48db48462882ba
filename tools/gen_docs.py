#!/usr/bin/env python3
"""Write docs/cli/COMMAND.md for every command of `plait`, from the command's own help.

`--check` writes nothing and fails when a committed page differs from what the commands say.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import entry_points
from pathlib import Path

import typer
from typer.cli import get_docs_for_click
from typer.main import get_group

from plait.cli.program import GROUP, root

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs" / "cli"
NOTE = "<!-- Written by `make docs`; edits here are overwritten. -->\n\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the pages, or with --check compare them; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a committed page is stale")
    options = parser.parse_args(arguments)
    pages = {PAGES / f"{entry.name}.md": page(entry.name) for entry in entry_points(group=GROUP)}
    stale = [path for path, text in sorted(pages.items()) if not path.is_file() or path.read_text() != text]
    stale += list(left_over(pages))
    if options.check and stale:
        names = ", ".join(str(path.relative_to(ROOT)) for path in stale)
        print(f"gen_docs: stale pages: {names}; run `make docs` and commit them", file=sys.stderr)
        return 1
    if not options.check:
        write(pages, stale)
    print(f"gen_docs: {len(pages)} pages, {len(stale)} changed")
    return 0


def page(name: str) -> str:
    """Return a command's page: its summary, usage, arguments, options, and the same of its own commands."""
    program = get_group(root([name]))
    context = typer.Context(program, info_name="plait")
    command = program.get_command(context, name)
    if command is None:
        raise LookupError(f"plait has no command {name}; is its entry point in pyproject.toml?")
    below = typer.Context(command, info_name=name, parent=context)
    text = get_docs_for_click(obj=command, ctx=below, name=name, call_prefix="plait")
    return NOTE + "\n".join(line.rstrip() for line in text.splitlines()).rstrip() + "\n"


def left_over(pages: dict[Path, str]) -> Iterator[Path]:
    return (path for path in sorted(PAGES.glob("*.md")) if path not in pages)


def write(pages: dict[Path, str], stale: Sequence[Path]) -> None:
    PAGES.mkdir(parents=True, exist_ok=True)
    for path in stale:
        if path in pages:
            path.write_text(pages[path])
        else:
            path.unlink()


if __name__ == "__main__":
    sys.exit(main())
