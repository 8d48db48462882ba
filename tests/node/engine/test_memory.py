"""A stage's memory: its imports, its own tensors in fp32, and little else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from plait_node.models import prepare

CHILD = """
import json, sys
from pathlib import Path
import numpy as np, psutil
from plait_node.engine import StageEngine
from plait_node.models import ModelStore
imports = psutil.Process().memory_info().rss
model = ModelStore(Path(sys.argv[1])).models()[0]
first, last = int(sys.argv[2]), int(sys.argv[3])
engine = StageEngine(model.weights(), model.manifest, first=first, last=last, kv_steps=4096, tensors=model.tensors)
engine.open(bytes(32), 1024)
rows = np.ones(512, dtype=np.int64) if first == 0 else np.ones((512, model.manifest.hidden), dtype=np.float32)
engine.step(bytes(32), 0, rows)
# ru_maxrss would carry the peak of the process that started this one; VmHWM is this program's own
held = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
peak = int(held["VmHWM"].split()[0]) * 1024
print(json.dumps({"imports": imports, "now": psutil.Process().memory_info().rss, "peak": peak}))
"""
BLOCK = 4 * (2 * 576 * 576 + 2 * 576 * 192 + 3 * 576 * 1_536 + 2 * 576)
EMBEDDING = 4 * 49_152 * 576
LEAST = 200_000_000


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare("smollm2-135m", tmp_path_factory.mktemp("models")).folder.parent


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("first", "last", "tensors"),
    [(10, 20, 10 * BLOCK), (20, 30, 10 * BLOCK + EMBEDDING)],
    ids=["middle", "last"],
)
def test_memory_of_a_stage_is_its_imports_its_tensors_and_a_little(
    models: Path, first: int, last: int, tensors: int
) -> None:
    command = [sys.executable, "-c", CHILD, str(models), str(first), str(last)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=220)
    measured = json.loads(done.stdout)

    assert measured["now"] - measured["imports"] <= tensors + LEAST
    assert measured["peak"] - measured["imports"] <= tensors + LEAST, measured
