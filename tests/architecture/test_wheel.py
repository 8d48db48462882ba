"""The wheel holds what the node builds on its operator's machine."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = (".cpp", ".h")


def test_wheel_holds_the_sources_of_compiled_decoding(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=200)

    (wheel,) = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())

    node = ROOT / "node"
    written = {path.relative_to(node).as_posix() for path in node.rglob("*") if path.suffix in SOURCES}
    assert len(written) == 2, written
    assert written <= packed, written - packed
