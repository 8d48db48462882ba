"""One running configuration of a stage: what is chosen once, when it starts, and shared by all jobs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Lane", "WeightType"]

WeightType = Literal["fp32", "bf16", "int8", "int4"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """What a stage computes with."""

    weights: WeightType = "fp32"
    device: str = "cpu"  # or "cuda", "cuda:1"
    threads: int = 1  # 0: as many as prove fastest when the stage starts
    compiled: bool = True  # decode by compiled code, once it is there and where there is a compiler
