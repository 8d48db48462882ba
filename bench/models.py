"""The models that benches run, on our engine."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from plait_model.gguf import EMBEDDED_MODELS, find_embedded_model
from plait_model.manifest_build import BuiltModel, build_manifest
from plait_node.engine import Lane, StageEngine
from plait_node.engine.lane import WeightType
from plait_node.engine.native import NativeBlocks

__all__ = ["NAMES", "built", "gguf", "smollm2_engine", "whole_engine"]

NAMES = ("smollm2-135m", "gemma3-270m")


@cache
def gguf(name: str) -> Path:
    """Return the file of an embedded model."""
    return find_embedded_model(name)


@cache
def built(name: str) -> BuiltModel:
    """Return its manifest."""
    return build_manifest(gguf(name), name=name, chat_template=EMBEDDED_MODELS[name].chat_template)


def whole_engine(
    name: str,
    weights: WeightType,
    *,
    threads: int,
    kv_steps: int,
    compiled: bool = True,
    kind: type[StageEngine] = StageEngine,
) -> StageEngine:
    """Return an engine over all blocks, its compiled code built."""
    model = built(name)
    engine = kind(
        gguf(name),
        model.manifest,
        first=0,
        last=model.manifest.blocks,
        kv_steps=kv_steps,
        tensors=model.tensors,
        lane=Lane(weights=weights, threads=threads, compiled=compiled),
    )
    if isinstance(engine.blocks, NativeBlocks):
        engine.blocks.wait()
    return engine


def smollm2_engine(weights: WeightType, *, threads: int, kv_steps: int) -> StageEngine:
    """Return SmolLM2 135M, whole."""
    return whole_engine("smollm2-135m", weights, threads=threads, kv_steps=kv_steps)
