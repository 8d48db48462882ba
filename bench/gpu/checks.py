"""Every family on the device against the same family on the CPU, before anything is timed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from tests.model.tiny_families import FAMILIES, write_family

from plait.protocol.ids import Hash, keccak
from plait_model.manifest_build import BuiltModel, build_manifest
from plait_node.engine import Lane, StageEngine, StepInput, StepOutput

# The last one is longer than a graph takes rows; it comes in two pieces.
PROMPTS = ([7], [1, 40, 33], list(range(20, 37)), [5, 9, 77] * 110)
PIECE = 200
ANSWER = 20


def run(facts: dict[str, Any]) -> dict[str, Any]:
    """Answer greedily in fp32 on both, by graphs and by torch; return how many tokens differ, and bf16's distance."""
    del facts
    found: dict[str, Any] = {}
    for family in FAMILIES:
        with TemporaryDirectory() as folder:
            path, built = tiny(Path(folder), family)
            truth, truth_logits = answers(path, built, Lane(compiled=False))
            for title, lane in {
                "graphs": Lane(device="cuda"),
                "torch": Lane(device="cuda", compiled=False),
                "bf16": Lane(device="cuda", weights="bf16"),
            }.items():
                ours, logits = answers(path, built, lane)
                differ = sum(
                    a != b for our, their in zip(ours, truth, strict=True) for a, b in zip(our, their, strict=True)
                )
                far = float(np.abs(logits - truth_logits).max())
                found[f"{family} {title}"] = {"tokens_differ": differ, "first_logits_differ": round(far, 6)}
    return found


def foreign_bytes_written(folder: Path, *, forget: bool = False) -> int:
    """Return how many bytes of others' memory replayed graphs change; `forget` drops what must keep them from it."""
    path, built = tiny(folder, "llama")
    last = built.manifest.blocks
    engine = StageEngine(path, built.manifest, first=0, last=last, kv_steps=1_024, lane=Lane(device="cuda"))
    engine.open(name(0), 64)
    engine.step_one(name(0), 0, np.array([7]))
    if forget:
        graphs = vars(engine.blocks)["_graphs"]
        graphs.update({size: replace(made, step=None) for size, made in graphs.items()})
    # As many blocks of each size as fill what the allocator has free.
    others = [
        torch.full((size,), 7, dtype=torch.uint8, device="cuda") for size in (512, 1_024, 2_048) for _ in range(512)
    ]
    for step in range(1, 8):
        engine.step_one(name(0), step, np.array([7 + step]))
    return sum(int((other != 7).sum()) for other in others)


def name(index: int) -> Hash:
    return keccak(bytes([index]))


def tiny(folder: Path, family: str) -> tuple[Path, BuiltModel]:
    """Write a tiny model with room for the longest prompt."""
    path = write_family(folder, family, changed={"max_position_embeddings": 1_024})
    return path, build_manifest(path)


def answers(path: Path, built: BuiltModel, lane: Lane) -> tuple[list[list[int]], np.ndarray]:
    """Return greedy answers of a mixed batch, and the logits of each prompt's last row."""
    engine = StageEngine(
        path, built.manifest, first=0, last=built.manifest.blocks, kv_steps=1_024, tensors=built.tensors, lane=lane
    )
    rows = [list(prompt) for prompt in PROMPTS]
    for index, prompt in enumerate(PROMPTS):
        engine.open(name(index), len(prompt) + ANSWER)
    engine.step_one(name(3), 0, np.array(rows[3][:PIECE]), logits=0)
    at, kept = [0, 0, 0, PIECE], np.zeros(0)
    for step in range(ANSWER):
        inputs = [
            StepInput(job=name(index), start=at[index], rows=np.array(ids[at[index] :]), logits=1)
            for index, ids in enumerate(rows)
        ]
        at = [len(ids) for ids in rows]
        outputs = [output for output in engine.step(inputs) if isinstance(output, StepOutput)]
        logits = np.concatenate([output.logits for output in outputs if output.logits is not None])
        for ids, row in zip(rows, logits, strict=True):
            ids.append(int(row.argmax()))
        if step == 0:
            kept = logits
    return [ids[len(prompt) :] for ids, prompt in zip(rows, PROMPTS, strict=True)], kept
