"""Rows of the selector's history from a CUDA device, on models with random weights: speculation is not scored there.

Run it as: python -m bench.gpu.history --out DIR on the device, which writes DIR/rows.json after every cell, and
python -m bench.gpu.history --convert rows.json --into FILE.parquet where pyarrow is.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from itertools import groupby
from pathlib import Path
from typing import Final

import torch

from plait_node.selector.bench.design import design
from plait_node.selector.bench.models import open_model
from plait_node.selector.bench.requests import prepare
from plait_node.selector.bench.runner import Runner
from plait_node.selector.bench.settings import hardware_facts
from plait_node.selector.rows import Row, Rows
from plait_node.selector.tasks import KINDS

MODELS: Final = ("llama-300m-random", "mistral-65m-random", "qwen3-24m-random")
SETTINGS: Final = ("gpu", "gpu-2-stages")
SEED: Final = 20_261_126


def measure(out: Path, *, repeats: int, limit_s: float) -> None:
    """Measure cell after cell until all are done or the time is up."""
    began = time.perf_counter()
    rows: list[Row] = []
    out.mkdir(parents=True, exist_ok=True)
    cells = [cell for setting in SETTINGS for cell in design(tasks=KINDS, models=MODELS, settings=[setting])]
    with tempfile.TemporaryDirectory() as folder:
        for (name, setting), group in groupby(cells, key=lambda cell: (cell.model, cell.setting)):
            model = open_model(name, Path(folder))
            runner = Runner(model, hardware_facts(setting, cores=1))
            for number, cell in enumerate(group):
                if time.perf_counter() - began > limit_s:
                    print(f"time is up after {len(rows)} rows", flush=True)
                    return
                rows += runner.measure(prepare(cell, model, seed=SEED), repeats=repeats, seed=number)
                (out / "rows.json").write_text(json.dumps(Rows(rows).to_list()), encoding="utf-8")
                print(f"{time.perf_counter() - began:.0f} s {len(rows)} rows {cell}", flush=True)
            del runner
            torch.cuda.empty_cache()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.history", description=__doc__)
    parser.add_argument("--out", type=Path, help="folder for rows.json")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit", type=float, default=480, help="seconds after which no cell is begun")
    parser.add_argument("--convert", type=Path, help="a rows.json")
    parser.add_argument("--into", type=Path, help="Parquet file to write")
    given = parser.parse_args()
    if given.convert:
        Rows.from_list(json.loads(given.convert.read_text(encoding="utf-8"))).save(given.into)
        return
    if not torch.cuda.is_available():
        sys.exit("bench.gpu.history: no CUDA device here, nothing was measured")
    measure(given.out, repeats=given.repeats, limit_s=given.limit)


if __name__ == "__main__":
    main()
