"""How fast the engine is: against what users run today, and each method against itself off.

Run it as: python -m bench.engine [--out FILE] [--model NAME ...] [--repeats N] (`make bench-engine`). Writes
build/bench/engine.json: `ratios` (above 1 is ours better; SmolLM2's by their names, Gemma's after `gemma3-270m/`),
`targets`, and every figure behind them. Peers that are not installed are named with the command that installs them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch
from bench import methods_off_on, models
from bench.ours import PlaitPeer
from bench.peers import Peer, PeerMissingError, Result, Workload, interleaved
from bench.peers.face import BATCH, DECODE, PREFILL, PREFIX_BURST, PREFIX_SEQUENCE
from bench.peers.llama_server import LlamaServerPeer, bf16
from bench.peers.models import folder
from bench.peers.transformers_generate import TransformersPeer
from bench.peers.vllm import VllmPeer

from plait_node.engine.probe import chip

TARGETS: Final[Mapping[str, float]] = {
    "decode_vs_generate": 2.0,
    "decode_compiled_vs_generate": 3.0,
    "batch8_vs_generate": 2.0,
    "prefill_vs_generate": 1.0,
    "decode_share_of_floor": 0.35,
    "decode_vs_vllm": 1.2,
    "batch8_vs_vllm": 1.2,
    "prefill_vs_vllm": 1.0,
    "prefix_burst_vs_vllm": 1.0,
    **methods_off_on.TARGETS,
}
_PLAN: Final[Sequence[tuple[Workload, tuple[str, ...]]]] = (
    (DECODE, ("ours", "packed", "fp32", "int8", "int4", "generate", "generate fp32", "vllm", "llama", "llama 4 bit")),
    (BATCH, ("ours", "packed", "fp32", "generate", "generate fp32", "vllm")),
    (PREFILL, ("ours", "packed", "fp32", "generate", "generate fp32", "vllm")),
    (PREFIX_BURST, ("ours", "vllm")),
    (PREFIX_SEQUENCE, ("ours", "vllm")),
)
# name of the ratio: workload, ours, theirs
_PAIRS: Final[Mapping[str, tuple[str, str, str]]] = {
    "decode_vs_generate": ("decode", "packed", "generate"),
    "decode_compiled_vs_generate": ("decode", "ours", "generate"),
    "batch8_vs_generate": ("batch-8", "ours", "generate"),
    "prefill_vs_generate": ("prefill-512", "ours", "generate"),
    "decode_fp32_vs_generate": ("decode", "fp32", "generate fp32"),
    "batch8_fp32_vs_generate": ("batch-8", "fp32", "generate fp32"),
    "prefill_fp32_vs_generate": ("prefill-512", "fp32", "generate fp32"),
    "decode_vs_vllm": ("decode", "ours", "vllm"),
    "batch8_vs_vllm": ("batch-8", "ours", "vllm"),
    "prefill_vs_vllm": ("prefill-512", "ours", "vllm"),
    "prefix_burst_vs_vllm": ("prefix-burst", "ours", "vllm"),
    "prefix_sequence_vs_vllm": ("prefix-sequence", "ours", "vllm"),
    "decode_vs_llama_bf16": ("decode", "ours", "llama"),
    "decode_int4_vs_llama_4bit": ("decode", "int4", "llama 4 bit"),
}


def peers_of(model: str, threads: int) -> dict[str, Peer]:
    """Return every peer of one model, not started."""
    gguf = models.gguf(model)
    wide, exact = folder(model, gguf), folder(model, gguf, dtype="float32")
    return {
        "ours": PlaitPeer(model, "bf16", threads=threads),
        "packed": PlaitPeer(model, "bf16", threads=threads, compiled=False),
        "fp32": PlaitPeer(model, "fp32", threads=threads),
        "int8": PlaitPeer(model, "int8", threads=threads),
        "int4": PlaitPeer(model, "int4", threads=threads),
        "generate": TransformersPeer(wide, model=model, threads=threads),
        "generate fp32": TransformersPeer(exact, model=model, dtype="float32", threads=threads),
        "vllm": VllmPeer(wide, model=model, threads=threads),
        "llama 4 bit": LlamaServerPeer(gguf, model=model, weights="4 bit, as in the GGUF", threads=threads),
    }


def against_peers(model: str, *, threads: int, repeats: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the ratios of one model, and the figures behind them."""
    missing: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        started: dict[str, Peer] = {}
        wanted = peers_of(model, threads)
        with contextlib.suppress(PeerMissingError):
            wanted["llama"] = LlamaServerPeer(
                bf16(models.gguf(model), name=model),
                model=model,
                weights="bf16, dequantised from GGUF",
                threads=threads,
            )
        for name, peer in wanted.items():
            try:
                started[name] = stack.enter_context(peer)
            except PeerMissingError as error:
                missing[name] = str(error)
                print(f"{model}: {error}", file=sys.stderr)
        table: dict[str, dict[str, Result]] = {}
        for workload, names in _PLAN:
            here = {name: started[name] for name in names if name in started}
            results = interleaved(list(here.values()), workloads=[workload], repeats=repeats)
            table[workload.name] = dict(zip(here, results, strict=True))
            _say(model, workload, table[workload.name])
        ours = started["ours"]
        floor, share = _floor(ours), _committing(ours)
    ratios = {name: _ratio(table[work], left, right) for name, (work, left, right) in _PAIRS.items()}
    step_s = 1 / table["decode"]["ours"].median
    ratios["decode_share_of_floor"] = round(floor / step_s, 3)
    figures = {
        "workloads": {work: {name: asdict(result) for name, result in row.items()} for work, row in table.items()},
        "read_weights_once_s": floor,
        "hashes_and_leaves_share": share,
        "missing": missing,
    }
    return {name: ratio for name, ratio in ratios.items() if ratio is not None}, figures


def _ratio(row: Mapping[str, Result], left: str, right: str) -> float | None:
    if left not in row or right not in row:
        return None
    ours, theirs = row[left], row[right]
    ratio = theirs.median / ours.median if ours.unit == "s" else ours.median / theirs.median
    return round(ratio, 3)


def _floor(peer: Peer) -> float:
    """Return the seconds of reading all weights that a decode step reads once, the best of several."""
    engine = getattr(peer, "_engine", None)
    weights = engine.blocks.weights
    matrices = [getattr(block, part) for block in weights.blocks for part in ("qkv", "out", "gate_up", "down")]
    tensors = [matrix.weight.view(-1).view(torch.float32) for matrix in [*matrices, weights.head]]
    times: list[float] = []
    for _ in range(9):
        began = time.perf_counter()
        for tensor in tensors:
            tensor.sum()
        times.append(time.perf_counter() - began)
    return min(times)


def _committing(peer: Peer) -> float:
    """Return the share of hashes and leaves in the time of one more decode and one more prefill."""
    if not isinstance(peer, PlaitPeer):
        raise TypeError("only our own peer commits")
    shares: list[float] = []
    for work in (peer.decode, peer.prefill):
        before, began = peer.committing_s, time.perf_counter()
        work(99)
        shares.append((peer.committing_s - before) / (time.perf_counter() - began))
    return round(max(shares), 4)


def _say(model: str, workload: Workload, row: Mapping[str, Result]) -> None:
    shown = ", ".join(f"{name} {result.median:.4g}" for name, result in row.items())
    print(f"{model} {workload.name} ({workload.unit}): {shown}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.engine", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/bench/engine.json"))
    parser.add_argument("--model", nargs="+", choices=models.NAMES, default=list(models.NAMES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", choices=("peers", "methods"), help="half of it; the other half of the file stays")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    found: dict[str, Any] = {"ratios": {}}
    if given.only and given.out.is_file():
        found = json.loads(given.out.read_text(encoding="utf-8"))
    found.update(machine=_machine(given.threads), targets=dict(TARGETS))
    for model in given.model if given.only != "methods" else ():
        ratios, figures = against_peers(model, threads=given.threads, repeats=given.repeats)
        prefix = "" if model == models.NAMES[0] else f"{model}/"
        found["ratios"].update({f"{prefix}{name}": ratio for name, ratio in ratios.items()})
        found[model] = figures
        _write(found, given.out)
    if given.only != "peers":
        ratios, figures = methods_off_on.run(threads=given.threads, repeats=given.repeats)
        found["ratios"].update(ratios)
        found["methods"] = figures
    _write(found, given.out)
    for name, ratio in found["ratios"].items():
        target = TARGETS.get(name.rpartition("/")[2])
        verdict = "" if target is None else f"  (target {target}{'' if ratio >= target else ': BELOW'})"
        print(f"{name:48} {ratio:8.3f}{verdict}")


def _machine(threads: int) -> dict[str, Any]:
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    flags = next((line.split(":", 1)[1].split() for line in info.splitlines() if line.startswith("flags")), [])
    wanted = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile", "amx_bf16", "amx_int8")
    return {
        "cpu": chip("cpu"),
        "cores": os.cpu_count() or 1,
        "torch": version("torch"),
        "transformers": version("transformers"),
        "ended": time.strftime("%Y-%m-%d", time.gmtime()),
        "threads": threads,
        "flags": [flag for flag in wanted if flag in flags],
        "amx": "amx_tile" in flags,
        "load_at_start": os.getloadavg()[0],
        "clock": "wall",
        "link": "none: one process",
        "medians_of": "interleaved repeats",
    }


def _write(found: Mapping[str, Any], out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({**found, "load_at_end": os.getloadavg()[0]}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
