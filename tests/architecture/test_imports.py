"""The import-linter contracts hold, and they would notice if they did not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FORBIDDEN = [
    ("plait_audit/__init__.py", "import plait_node", "each other"),
    ("plait_model/__init__.py", "import plait.client", "only the protocol"),
    ("plait/protocol/__init__.py", "import plait.chain", "chain -> protocol"),
    ("plait/protocol/__init__.py", "import socket", "no I/O"),
    ("plait_node/broker/__init__.py", "import torch", "torch"),
    ("plait_node/broker/__init__.py", "import grpc", "grpc"),
    ("plait_node/gateway/__init__.py", "import plait.client", "does not use the client"),
    ("plait/ledger/__init__.py", "import plait_audit", "neither node nor auditor"),
    ("plait_audit/__init__.py", "import plait.ledger", "shares no code"),
]


def lint(packages: Path) -> subprocess.CompletedProcess[str]:
    """Run the contracts of pyproject.toml over the packages found in the given folder."""
    command = [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache"]
    command += ["--config", str(ROOT / "pyproject.toml")]
    environment = {**os.environ, "PYTHONPATH": str(packages)}
    return subprocess.run(
        command, check=False, cwd=packages, env=environment, capture_output=True, text=True, timeout=200
    )


def test_contracts_of_this_repository_are_kept(tmp_path: Path) -> None:
    done = lint(copied_packages(tmp_path))

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("module", "line", "contract"), FORBIDDEN)
def test_contracts_given_forbidden_import_are_broken(tmp_path: Path, module: str, line: str, contract: str) -> None:
    packages = copied_packages(tmp_path, bare=True)
    with (packages / module).open("a") as file:
        file.write(f"\n{line}\n")

    done = lint(packages)

    broken = [said for said in done.stdout.splitlines() if said.endswith(" BROKEN")]
    assert done.returncode == 1, done.stdout + done.stderr
    assert any(contract in said for said in broken), done.stdout


def copied_packages(folder: Path, *, bare: bool = False) -> Path:
    """Copy the four packages; bare: as empty modules, so that a broken contract has one cause."""
    for source in (ROOT / "sdk", ROOT / "node"):
        for file in sorted(source.rglob("*.py")):
            target = folder / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            if bare:
                target.write_text("")
            else:
                shutil.copyfile(file, target)
    return folder
