"""A tiny model of each family, engines of it for any lane, and their greedy answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from tests.folders import session_folder
from tests.model.tiny_families import write_family

from plait.protocol.ids import keccak
from plait_model.manifest_build import BuiltModel, build_manifest
from plait_node.engine import Lane, StageEngine

JOB = keccak(b"job")
PROMPT = list(range(20, 37))


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    path: Path
    built: BuiltModel

    @property
    def blocks(self) -> int:
        return self.built.manifest.blocks

    def engine(self, lane: Lane, *, first: int = 0, kv_steps: int = 256) -> StageEngine:
        return StageEngine(
            self.path,
            self.built.manifest,
            first=first,
            last=self.blocks,
            kv_steps=kv_steps,
            tensors=self.built.tensors,
            lane=lane,
        )


@cache
def family(name: str) -> Family:
    path = write_family(session_folder(), name)
    return Family(path=path, built=build_manifest(path))


def greedy(engine: StageEngine, prompt: Sequence[int] = PROMPT, count: int = 8) -> list[int]:
    """Answer one prompt and close the job."""
    engine.open(JOB, len(prompt) + count)
    ids, at = list(prompt), 0
    for _ in range(count):
        best = engine.step_one(JOB, at, np.array(ids[at:]), best=True).best
        assert best is not None
        at = len(ids)
        ids.append(int(best[0]))
    engine.close(JOB)
    return ids[len(prompt) :]
