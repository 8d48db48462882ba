"""The set-up needs no compiler: nothing it installed was built here, nothing it would install has to be."""

from __future__ import annotations

import importlib.metadata
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMPILERS = ("cc", "gcc", "g++", "c++", "clang", "clang++", "rustc", "cargo", "go")
BUILT_HERE = re.compile(r"^Tag: .*-linux_\w+$", re.MULTILINE)  # what a local build is tagged; wheels say manylinux
TORCH = "torch"  # some builds of it are published with the plain tag


def pins() -> dict[str, str]:
    """Return the exact versions of constraints.txt by normalised name."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {normalised(name): version for name, version in pairs}


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def installed() -> Iterator[importlib.metadata.Distribution]:
    return (found for found in importlib.metadata.distributions() if normalised(found.name) != "plait")


@pytest.fixture
def trapped(tmp_path: Path) -> tuple[dict[str, str], Path]:
    """Return an environment where every compiler fails and leaves a line in the returned file, and no Node.js is."""
    caught, folder = tmp_path / "caught", tmp_path / "bin"
    folder.mkdir()
    for place in os.environ["PATH"].split(os.pathsep):
        for program in Path(place).iterdir() if Path(place).is_dir() else ():
            if program.name not in {"node", "npm", "npx", *COMPILERS} and not (folder / program.name).is_symlink():
                (folder / program.name).symlink_to(program)
    for name in COMPILERS:
        # pip asks rustc for its version, to say so to the index; that is no compilation
        (folder / name).write_text(f'#!/bin/sh\n[ "$*" = --version ] || echo "{name} $*" >> "{caught}"\nexit 1\n')
        (folder / name).chmod(0o755)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("COV_", "COVERAGE_"))}
    return environment | {"PATH": str(folder), "CC": "cc", "CXX": "g++", "CI": "true"}, caught


def test_installed_packages_are_the_pinned_ones() -> None:
    expected = pins()

    wrong = {found.name: found.version for found in installed() if not pinned_as(found, expected)}

    assert not wrong, f"not what constraints.txt pins: {wrong}; pin them, or run tools/setup --force"


def pinned_as(found: importlib.metadata.Distribution, expected: dict[str, str]) -> bool:
    return found.version.split("+")[0] == expected.get(normalised(found.name))


def test_installed_packages_are_wheels_nobody_built_here() -> None:
    built = [
        found.name
        for found in installed()
        if normalised(found.name) != TORCH and BUILT_HERE.search(found.read_text("WHEEL") or "Tag: none-linux_unknown")
    ]

    assert not built, f"built on this machine, or without a wheel: {built}; choose a version with wheels"


def worked_s() -> float:
    """Return how long processes that ended kept a core busy: what else the machine does adds nothing to it."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_setup_given_nothing_changed_ends_under_five_seconds(trapped: tuple[dict[str, str], Path]) -> None:
    environment, caught = trapped
    before = worked_s()

    done = run_setup(ROOT, environment, timeout=110)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "setup 1/" not in done.stdout, "a second run repeated the steps: was a key file changed since `make setup`?"
    assert worked_s() - before < 5
    assert not caught.exists(), caught.read_text()


def test_setup_given_package_without_wheel_fails_without_compiling(
    tmp_path: Path, trapped: tuple[dict[str, str], Path]
) -> None:
    environment, caught = trapped
    source = tmp_path / "needs-compiler"
    source.mkdir()
    (source / "pyproject.toml").write_text('[build-system]\nrequires = []\nbuild-backend = "x"\nbackend-path = ["."]\n')
    (source / "x.py").write_text("import subprocess\nsubprocess.run(['cc'])\n")
    archive = shutil.make_archive(str(tmp_path / "needs_compiler-1.0"), "gztar", tmp_path, "needs-compiler")
    script = (
        "import runpy, sys; from pathlib import Path; setup = runpy.run_path('tools/setup')\n"
        f"setup['pip'].__globals__['LOG'] = Path({str(tmp_path / 'log')!r})\n"
        "setup['pip']('--no-index', '--find-links', sys.argv[1], 'needs-compiler')"
    )

    command = [sys.executable, "-c", script, str(Path(archive).parent)]
    done = subprocess.run(command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=110)

    assert done.returncode != 0
    assert "No matching distribution found for needs-compiler" in done.stderr
    assert not caught.exists(), caught.read_text()


@pytest.mark.setup
@pytest.mark.timeout(1200)
def test_setup_in_clean_copy_without_compilers_and_node_succeeds(
    tmp_path: Path, trapped: tuple[dict[str, str], Path]
) -> None:
    environment, caught = trapped
    copy = tmp_path / "plait"
    kept = shutil.ignore_patterns(
        ".venv", "node_modules", "build", ".git", ".brownie-venv", ".slither-venv", ".halmos-venv", "__pycache__"
    )
    shutil.copytree(ROOT, copy, ignore=kept, symlinks=True)
    try:
        done = run_setup(copy, environment, timeout=1100)
        again = run_setup(copy, environment, timeout=110)
        asked = [copy / ".venv" / "bin" / "plait", "--help"]
        started = subprocess.run(asked, check=False, env=environment, capture_output=True, text=True, timeout=110)
    finally:
        shutil.rmtree(copy)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "setup done in" in done.stdout
    assert again.returncode == 0
    assert "setup 1/" not in again.stdout
    assert started.returncode == 0, started.stderr
    assert not caught.exists(), caught.read_text()


def run_setup(copy: Path, environment: dict[str, str], *, timeout: int) -> subprocess.CompletedProcess[str]:
    """Run tools/setup by the Python that made this environment, as `make setup` does."""
    python = Path(sys.base_prefix) / "bin" / "python{}.{}".format(*sys.version_info[:2])
    command = [python, "tools/setup"]
    return subprocess.run(
        command, check=False, cwd=copy, env=environment, capture_output=True, text=True, timeout=timeout
    )
