"""What failed beside everything else gets one more go alone, is named, and fails the run when it fails again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "second_go.py"
TESTS = "def test_good():\n    pass\n\n\ndef test_bad():\n    raise AssertionError\n"


def second_go(folder: Path, names: list[str], *, floor: int = 0) -> tuple[int, str]:
    """Run the tool in a folder where the last run failed by these tests."""
    (folder / "test_it.py").write_text(TESTS)
    (folder / ".coveragerc").write_text(f"[report]\nfail_under = {floor}\n")
    (folder / "covered.py").write_text("import sys\nif len(sys.argv) > 5:\n    print()\n    print()\n")
    subprocess.run([sys.executable, "-m", "coverage", "run", "covered.py"], check=True, cwd=folder)
    cache = folder / ".pytest_cache" / "v" / "cache"
    cache.mkdir(parents=True)
    if names:
        (cache / "lastfailed").write_text(json.dumps(dict.fromkeys(names, True)))
    done = subprocess.run([sys.executable, TOOL], check=False, cwd=folder, capture_output=True, text=True)
    return done.returncode, done.stdout


def test_second_go_of_a_test_that_passes_alone_names_it(tmp_path: Path) -> None:
    code, said = second_go(tmp_path, ["test_it.py::test_good"])
    assert code == 0
    assert "PASSED ALONE ONLY, look into it: test_it.py::test_good" in said


@pytest.mark.parametrize(
    "names",
    [
        ["test_it.py::test_bad", "test_it.py::test_good"],
        ["test_it.py::test_is_gone"],
        [f"test_it.py::test_{number}" for number in range(4)],
        [],
    ],
    ids=["fails again", "not there", "too many", "none"],
)
def test_second_go_that_is_no_accident_fails(tmp_path: Path, names: list[str]) -> None:
    code, said = second_go(tmp_path, names)
    assert code != 0
    assert "PASSED" not in said


def test_second_go_holds_coverage_to_its_floor(tmp_path: Path) -> None:
    code, said = second_go(tmp_path, ["test_it.py::test_good"], floor=90)
    assert code != 0
    assert "PASSED ALONE ONLY" in said  # so it is for nothing else
