"""One running configuration of a stage: what is chosen once, when it starts, and shared by all jobs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Device", "Lane", "WeightType"]

WeightType = Literal["fp32", "bf16", "int8", "int4"]
Device = Literal["cpu", "cuda"]  # which CUDA device, where there are several, is CUDA_VISIBLE_DEVICES' to say


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """What a stage computes with."""

    weights: WeightType = "fp32"
    device: Device = "cpu"
    threads: int = 1  # 0: as many as prove fastest when the stage starts
    compiled: bool = True  # decode by compiled code, once it is there and where there is a compiler
