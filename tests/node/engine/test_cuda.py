"""The kernels against torch: by Triton's interpreter where there is Triton, as graphs where there is a device."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from bench.gpu import checks
from tests.model.tiny_families import FAMILIES

from plait_node.engine import Lane

ROOT = Path(__file__).resolve().parents[3]
# The interpreter is chosen where Triton is imported first, so it runs in a process of its own.
CHILD = """
import json, sys
from pathlib import Path
from tempfile import mkdtemp

import torch
from tests.node.engine.family import family

from plait_model.source import open_weights
from plait_node.engine import Lane
from plait_node.engine.cuda.blocks import Step, _facts
from plait_node.engine.decoder_weights import load_decoder
from plait_node.engine.faces import Span
from plait_node.engine.lean import LeanBlocks
from plait_node.engine.room import JobCache

made = family(sys.argv[1])
with open_weights(made.path) as file:
    weights = load_decoder(file, made.built.manifest, first=0, last=made.blocks, lane=Lane(), packed=False)
lean = LeanBlocks(weights, dtype=torch.float32, device="cpu")
found = {}
with torch.inference_mode():
    caches = [JobCache(lean.kv, 64) for _ in range(3)]
    for cache, count in zip(caches, (1, 17, 40)):
        lean.forward(torch.arange(count) % 200, [Span(cache=cache, start=0, count=count)])
        cache.length = count
    spans = [Span(cache=cache, start=cache.length, count=count) for cache, count in zip(caches, (1, 2, 3))]
    # Several rows of several jobs, then one row alone, which has a product of its own.
    for title, rows, spans in (("many", 6, spans), ("one", 1, spans[:1])):
        given = lean.embed(torch.arange(5, 5 + rows))
        expected = lean.run(given, spans)
        kept = [span.cache.rows.clone() for span in spans]
        for way, passed in (("graph", None), ("long", spans)):
            for span in spans:
                span.cache.rows[:, :, :, :, span.start :] = 0
            out = given.clone()
            Step(lean, out, _facts(spans)).run(passed)
            far = (out - expected).abs().max() / expected.abs().max()
            ends = [(span.cache.rows - rows)[..., : span.start + span.count, :] for span, rows in zip(spans, kept)]
            found[f"{title} {way}"] = [float(far), max(float(end.abs().max()) for end in ends)]
print(json.dumps(found))
"""


@pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="no Triton here: it comes with CUDA builds of torch"
)
@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_interpreted_kernels_compute_what_torch_does(name: str) -> None:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(paths)}

    done = subprocess.run(
        [sys.executable, "-c", CHILD, name], env=environment, capture_output=True, text=True, timeout=360, check=False
    )

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == {"many graph", "many long", "one graph", "one long"}
    assert max(far for far, _ in found.values()) < 1e-5, f"of the largest number in the rows: {found}"
    assert max(far for _, far in found.values()) < 1e-4, f"in keys and values: {found}"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("forget", [False, True])
def test_graphs_write_into_nobody_elses_memory(tmp_path: Path, *, forget: bool) -> None:
    assert (checks.foreign_bytes_written(tmp_path, forget=forget) > 0) == forget


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here: graphs are checked by their kernels")
@pytest.mark.parametrize("compiled", [True, False], ids=["graphs", "torch"])
@pytest.mark.parametrize("name", FAMILIES)
def test_device_answers_as_the_cpu_does(tmp_path: Path, name: str, *, compiled: bool) -> None:
    path, built = checks.tiny(tmp_path, name)
    expected, near = checks.answers(path, built, Lane(compiled=False))

    answers, logits = checks.answers(path, built, Lane(device="cuda", compiled=compiled))

    assert answers == expected
    assert abs(logits - near).max() < 1e-3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("name", FAMILIES)
def test_device_in_bf16_stays_near_the_cpu(tmp_path: Path, name: str) -> None:
    path, built = checks.tiny(tmp_path, name)
    _, near = checks.answers(path, built, Lane(compiled=False))

    _, logits = checks.answers(path, built, Lane(device="cuda", weights="bf16"))

    assert abs(logits - near).max() < 0.1 * abs(near).max()
