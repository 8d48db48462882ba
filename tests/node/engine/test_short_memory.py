"""A process whose address space is limited: memory that is short fails the rows at hand, and the process lives on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from plait_node.engine.native import find_compiler

SETUP = """
import json, mmap, resource, sys, time
from dataclasses import replace
import numpy as np
from tests.node.engine.small import BLOCKS, model
from plait_node.engine import Lane, StageEngine, StepInput
from plait_node.engine.errors import NoMemoryError
from plait_node.engine.passes import Piece, run_pass

class Rows:
    whole, step, job = True, 0, bytes(32)
    def __init__(self, at, count):
        self.at, self.count = at, count
    def given(self, first, last):
        return StepInput(job=self.job, start=self.at, rows=np.full(self.count, 5, dtype=np.int64), logits=1)
    def made(self, given, output):
        return output.rows

def computed(at, count):
    piece = Piece(work=Rows(at, count), first=0, last=count)
    run_pass(engine, [piece])
    return piece

def limit(more):
    if more is None:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        return
    while True:  # a thread that began or ended meanwhile gives much address space back: then it is less than was read
        pages = int(open("/proc/self/statm").read().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more, resource.RLIM_INFINITY))
        time.sleep(0.1)
        try:
            mmap.mmap(-1, more + (1 << 20)).close()
        except OSError:
            return

compiled = sys.argv[1] == "compiled"
built = model().built
manifest = replace(built.manifest, context=1 << 17)
lane = Lane(threads=2, compiled=compiled)
blocks = StageEngine(
    model().path, built.manifest, first=0, last=BLOCKS, kv_steps=64, tensors=built.tensors, lane=lane
).blocks
if compiled:
    assert blocks.wait()
engine = StageEngine.over(blocks, manifest, first=0, last=BLOCKS, kv_steps=1 << 17, lane=lane)
engine.open(bytes(32), 1 << 17)
assert computed(0, 32).error is None  # threads are there, and what every pass of so many rows needs
cache = engine._room.job(bytes(32))
cache.rows.zero_()
cache.inputs.add(np.zeros(60_000 - 32, dtype=np.int64))
cache.length = 60_000
"""
SCORES = """
limit(2 << 20)
short = computed(60_000, 32)
held = cache.length
limit(None)
again = computed(60_000, 32)
assert again.error is None, (short.error, held, again.error)
engine.rollback(bytes(32), 60_000)
if compiled:
    with blocks.by_torch():
        plain = computed(60_000, 32)
    assert np.allclose(again.made, plain.made, atol=1e-4)
print(json.dumps({"short": type(short.error).__name__, "held": held, "again": again.error is None}))
"""


def said_by(script: str, how: str) -> dict[str, Any]:
    """Run a script in a process of its own, in which large pieces of memory are always asked of the system."""
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-c", SETUP + script, how]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=110, env=environment)
    assert done.returncode == 0, done.stderr[-2_000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.timeout(120)
@pytest.mark.parametrize("how", ["compiled", "torch"])
def test_pass_that_gets_no_memory_on_its_way_fails_alone_and_the_process_goes_on(how: str) -> None:
    if how == "compiled" and find_compiler() is None:
        pytest.skip("no C++ compiler")
    assert said_by(SCORES, how) == {"short": "NoMemoryError", "held": 60_000, "again": True}
