"""What the documents promise exists: verbs, files, commands; and nothing names the machine it was written on."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*/README.md")])
VERB = re.compile(r"(?:^|`)make ([a-z][a-z-]*)", re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")
HERE = re.compile(r"/(?:home|root|Users)/[a-z]\w*/|" + re.escape(str(ROOT)) + r"\b")


def ids(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_document_names_only_verbs_of_the_makefile(document: Path) -> None:
    verbs = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    named = set(VERB.findall(document.read_text()))

    assert named <= verbs, f"no such verb: {sorted(named - verbs)}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_document_links_only_to_files_that_exist(document: Path) -> None:
    missing = [link for link in LINK.findall(document.read_text()) if not (document.parent / link).exists()]

    assert not missing, f"broken links: {missing}"


def test_makefile_helps_with_every_verb_that_readers_use() -> None:
    shown = subprocess.run(["make", "help"], check=True, cwd=ROOT, capture_output=True, text=True, timeout=110).stdout

    wanted = ["setup", "demo", "up", "down", "test", "chain-test", "lint", "types", "fmt", "gen", "docs"]
    wanted += ["slither", "sol-coverage", "symbolic", "brownie", "bench-gas", "fuzz", "soak"]
    wanted += [
        "bench-engine",
        "bench-methods-figure",
        "bench-gpu",
        "bench-selector",
        "train-selector",
        "bench-cost",
        "bench-swarm",
        "bench-live",
        "deep",
        "check",
    ]
    assert [line.split()[0] for line in shown.splitlines() if line.startswith("  ")][1:] == wanted


def test_files_name_no_place_of_the_machine_they_were_written_on() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], check=False, cwd=ROOT, capture_output=True, timeout=110)
    if listed.returncode != 0:
        pytest.skip("not a git checkout: no list of committed files")
    names = [name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]

    found = [name for name in names if HERE.search(text_of(ROOT / name))]

    assert not found, f"absolute paths of a machine in: {found}"


def text_of(path: Path) -> str:
    return path.read_bytes().decode(errors="ignore")
