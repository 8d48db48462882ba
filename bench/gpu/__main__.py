"""What one CUDA device does: exactness, decode against the memory's speed, prefill, a peer, stages over the wire.

Run it as: python -m bench.gpu --out DIR [--only NAME ...] (`make bench-gpu`). Writes DIR/gpu.json after every part.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench.gpu import checks, figure, llama8b, peer, profile
from bench.wire_stages import WireRoute

from plait.protocol.ids import Hash, keccak
from plait_node.engine import EngineError, StageEngine, StepInput, StepOutput

PARTS: Mapping[str, Callable[[dict[str, Any]], Any]]


def name(index: int) -> Hash:
    return keccak(b"job", index.to_bytes(4, "big"))


def machine() -> dict[str, Any]:
    """Return device, versions and the two ceilings: a large copy (bytes read and written) and a large product."""
    device = torch.cuda.get_device_properties(0)
    return {
        "device": device.name,
        "memory_gib": round(device.total_memory / 2**30, 1),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "triton": _version("triton"),
        "transformers": _version("transformers"),
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "copy_gb_s": _copy_gb_s(),
        "matmul_tflop_s": _matmul_tflop_s(),
    }


def _copy_gb_s() -> int:
    big = torch.empty(2 << 30, dtype=torch.uint8, device="cuda")
    other = torch.empty_like(big)
    return round(2 * (2 << 30) / _median_ms(lambda: other.copy_(big), repeats=10) / 1e6)


def _matmul_tflop_s() -> int:
    square = torch.randn(8_192, 8_192, device="cuda", dtype=torch.bfloat16)
    return round(2 * 8_192**3 / _median_ms(lambda: square @ square, repeats=10) / 1e9)


def decode(facts: dict[str, Any]) -> dict[str, Any]:
    """Time decode steps of the whole 8B shape, all of the engine's work included, at several batches and lengths."""
    engine = llama8b.random_engine()
    plain = llama8b.random_engine(compiled=False) if torch.cuda.mem_get_info()[0] > 40 << 30 else None
    found: dict[str, Any] = {}
    for batch, context in ((1, 128), (1, 4_096), (8, 512), (64, 512)):
        ms = _decode_ms(engine, batch, context, steps=32)
        read = llama8b.weight_bytes() + batch * context * llama8b.BLOCKS * 2 * 8 * 128 * 2
        floor = read / facts["machine"]["copy_gb_s"] / 1e6
        found[f"batch {batch}, context {context}"] = {
            "ms": round(ms, 3),
            "tokens_s": round(batch / ms * 1e3, 1),
            "floor_ms": round(floor, 3),
            "share_of_floor": round(floor / ms, 3),
        }
    if plain is not None:
        ms = _decode_ms(plain, 1, 128, steps=16)
        found["batch 1, context 128, without graphs"] = {"ms": round(ms, 3), "tokens_s": round(1e3 / ms, 1)}
    return found


def prefill(facts: dict[str, Any]) -> dict[str, Any]:
    """Time an 8,192-token prompt in chunks of several sizes."""
    engine = llama8b.random_engine()
    found: dict[str, Any] = {}
    flops = llama8b.weight_bytes(head=False) * 8_192 + 4 * llama8b.BLOCKS * 32 * 128 * 8_192**2 / 2
    for chunk in (8_192, 2_048, 512):
        seconds = min(_prefill_s(engine, 8_192, chunk) for _ in range(3))
        found[f"chunks of {chunk}"] = {
            "seconds": round(seconds, 4),
            "tokens_s": round(8_192 / seconds),
            "share_of_matmul": round(flops / seconds / 1e12 / facts["machine"]["matmul_tflop_s"], 3),
        }
    return found


def wire(facts: dict[str, Any]) -> dict[str, Any]:
    """Time one stream over 1, 2 and 4 stage processes on this device, through the node's wire."""
    del facts
    torch.cuda.empty_cache()
    found: dict[str, Any] = {}
    prompt = list(range(100, 164))
    answers: list[list[int]] = []
    for stages in (1, 2, 4):
        cuts = [llama8b.BLOCKS * stage // stages for stage in range(stages + 1)]
        with WireRoute(llama8b.stage, cuts, room=512) as route:
            route.decode(prompt, 8)
            answer, gaps = route.decode(prompt, 96)
        answers.append(answer)
        found[f"{stages} stages"] = {"ms": round(statistics.median(gaps) * 1e3, 3)}
    alone = found["1 stages"]["ms"]
    for stages in (2, 4):
        found[f"{stages} stages"]["added_ms_per_hop"] = round(
            (found[f"{stages} stages"]["ms"] - alone) / (stages - 1), 3
        )
    found["same tokens"] = all(answer == answers[0] for answer in answers)
    return found


def _decode_ms(engine: StageEngine, batch: int, context: int, *, steps: int) -> float:
    jobs = [name(index) for index in range(batch)]
    draw = np.random.default_rng(context)
    for job in jobs:
        engine.open(job, context + steps + 8)
        engine.step_one(job, 0, draw.integers(0, 100_000, context), logits=0)
    tokens = np.zeros(batch, dtype=np.int64)
    times: list[float] = []
    for step in range(steps + 8):
        began = time.perf_counter()
        answers = engine.step(
            [
                StepInput(job=job, start=context + step, rows=tokens[index : index + 1], logits=1, best=True)
                for index, job in enumerate(jobs)
            ]
        )
        times.append(time.perf_counter() - began)
        tokens = np.array([_best(answer) for answer in answers])
    for job in jobs:
        engine.close(job)
    return statistics.median(times[8:]) * 1e3


def _best(answer: StepOutput | EngineError) -> int:
    if isinstance(answer, EngineError):
        raise answer
    if answer.best is None:
        raise TypeError("the best of each row was asked for")
    return int(answer.best[0])


def _prefill_s(engine: StageEngine, length: int, chunk: int) -> float:
    ids = np.random.default_rng(length).integers(0, 100_000, length)
    engine.open(name(0), length)
    torch.cuda.synchronize()
    began = time.perf_counter()
    for start in range(0, length, chunk):
        engine.step_one(name(0), start, ids[start : start + chunk], logits=int(start + chunk >= length), best=True)
    torch.cuda.synchronize()
    took = time.perf_counter() - began
    engine.close(name(0))
    return took


def _median_ms(work: Callable[[], object], *, repeats: int) -> float:
    times: list[float] = []
    for _ in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        work()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


PARTS = {
    "checks": checks.run,
    "profile": profile.run,
    "decode": decode,
    "prefill": prefill,
    "peer": peer.run,
    "figure": figure.run,
    "wire": wire,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for gpu.json")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), help="parts to run")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("bench-gpu: no CUDA device here, nothing was measured")
    facts: dict[str, Any] = {"machine": machine()}
    print(json.dumps(facts["machine"]), flush=True)
    failed = False
    for part in given.only:
        began = time.perf_counter()
        try:
            facts[part] = PARTS[part](facts)
        except Exception as error:  # noqa: BLE001 -- one part's failure must not cost the others on a lent machine
            traceback.print_exc()
            facts[part] = {"error": repr(error)}
            failed = True
        torch.cuda.empty_cache()
        print(part, f"{time.perf_counter() - began:.0f} s", json.dumps(facts[part], indent=1), flush=True)
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "gpu.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    sys.exit(failed)


if __name__ == "__main__":
    main()
