"""Decode speed: the engine over all blocks, in one process, against transformers' `generate` on the whole model.

Run it as: python bench/decode.py [--out FILE.json]. Rounds alternate, so that a busy machine slows both.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch

from plait.protocol.ids import keccak
from plait_model.gguf import find_embedded_model
from plait_model.manifest_build import build_manifest
from plait_model.reference import load_reference
from plait_node.engine import StageEngine

PROMPT = [1, 4093, 198, 36971, 281, 827, 8545, 1701, 260, 6376, 314, 4461, 30, 2, 198, 1, 520, 9531, 198]
TOKENS = 48
JOB = keccak(b"job")


def by_engine(engine: StageEngine) -> tuple[float, list[int]]:
    """Return tokens a second, prefill left out, and the tokens."""
    engine.close(JOB)
    engine.open(JOB, len(PROMPT) + TOKENS)
    logits = engine.step(JOB, 0, np.array(PROMPT, dtype=np.int64)).logits
    answer: list[int] = []
    began = time.perf_counter()
    while logits is not None and len(answer) < TOKENS:
        answer.append(int(logits.argmax()))
        logits = engine.step(JOB, len(PROMPT) + len(answer) - 1, np.array(answer[-1:], dtype=np.int64)).logits
    return TOKENS / (time.perf_counter() - began), answer


def by_generate(model: torch.nn.Module) -> tuple[float, list[int]]:
    """Return tokens a second, prefill left out as the time of one token alone, and the tokens."""
    ids = torch.tensor([PROMPT])
    options = {"attention_mask": torch.ones_like(ids), "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    began = time.perf_counter()
    model.generate(ids, max_new_tokens=1, **options)
    first = time.perf_counter() - began
    began = time.perf_counter()
    answer = model.generate(ids, max_new_tokens=TOKENS + 1, **options)[0, len(PROMPT) :].tolist()
    return TOKENS / (time.perf_counter() - began - first), answer[:TOKENS]


def main() -> None:
    """Measure both in turn and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    path = find_embedded_model("smollm2-135m")
    built = build_manifest(path)
    engine = StageEngine(path, built.manifest, first=0, last=built.manifest.blocks, kv_steps=256, tensors=built.tensors)
    model = load_reference(path, built.manifest)
    rates: dict[str, list[float]] = {"engine": [], "generate": []}
    for _ in range(given.repeats):
        ours, our_tokens = by_engine(engine)
        theirs, their_tokens = by_generate(model)
        if our_tokens != their_tokens:
            sys.exit("engine and generate disagree")
        rates["engine"].append(ours)
        rates["generate"].append(theirs)
    medians = {name: round(statistics.median(values), 2) for name, values in rates.items()}
    result = {**medians, "ratio": round(medians["engine"] / medians["generate"], 2), "unit": "tokens/s", "threads": 1}
    sys.stdout.write(json.dumps(result) + "\n")
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
