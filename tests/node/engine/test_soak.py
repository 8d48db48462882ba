"""Memory does not grow with jobs: the short form of `make soak`, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("more", [(), ("--torch",)], ids=["compiled", "torch"])
def test_memory_does_not_grow_over_800_jobs(more: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "bench.soak", "--jobs", "800", "--mark", "300", *more]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["fates"].keys() >= {"answered", "rolled back", "cancelled", "closed early", "with cached windows"}
