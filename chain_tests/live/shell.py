"""What a person types at a prompt, for the tests of `plait deploy`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from plait.cli import main as program
from plait.protocol.typed import Key


class Shell:
    """Somebody at a prompt: types `plait deploy` with a key of their own, in a folder of their own."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.key = Key.generate()
        self.folder = folder
        self.out = folder / "deployments" / "31337.json"
        self.draft = folder / "deployments" / "31337.json.draft"
        self._capsys = capsys
        (folder / "key").write_text(self.key.secret_hex())

    def words(self, url: str, *more: object) -> list[str]:
        return [str(each) for each in ("deploy", "--rpc", url, "--key-file", self.folder / "key", *more)]

    def runs(self, url: str, *more: object) -> tuple[int, str]:
        """Run the command; return its status and what it said."""
        with pytest.raises(SystemExit) as ended:
            program(self.words(url, *more))
        said = self._capsys.readouterr()
        return int(ended.value.code or 0), said.out + said.err

    def says(self, url: str, *more: object) -> dict[str, Any]:
        """Run the command with --json, which must succeed; return what it printed."""
        with pytest.raises(SystemExit) as ended:
            program(self.words(url, *more, "--json"))
        said = self._capsys.readouterr()
        assert not ended.value.code, said.err
        return json.loads(said.out)
