"""What a choice rests on: what is asked, of which model, on which machine, and the candidates to run it by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from plait_node.engine.lane import WeightType

__all__ = ["Candidate", "CellKey", "HardwareFacts", "ModelFacts", "TaskFacts"]

CellKey = tuple[str, str, str, int]  # task kind, model, hardware, batch


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFacts:
    """Requests that arrive together; token counts are means over them."""

    kind: str  # "chat", "summarise" ...; "" where nobody said
    batch: int  # requests at once
    prompt_tokens: float
    shared_tokens: int  # leading tokens that all requests have in common
    warm_tokens: int  # of these, how many an earlier request has computed already
    answer_tokens: int
    repetition: float  # share of the prompt's tokens that end a run of three seen before in the same prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """A model's shape."""

    name: str
    family: str  # the architecture's name, "llama"
    real_weights: bool  # False: drawn at random, so that what it answers means nothing
    blocks: int
    hidden: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int
    parameters: int  # all, the embedding once
    block_parameters: int  # those of all blocks: what each row is multiplied with, besides the head


@dataclass(frozen=True, slots=True, kw_only=True)
class HardwareFacts:
    """A machine and how a route is laid over it."""

    name: str  # of the setting, "wan-2-stages"
    device: Literal["cpu", "cuda"]
    chip: str
    cores: int
    threads: int  # that one stage computes with
    stages: int
    rtt_s: float  # there and back between two neighbours of the ring driver, stages, driver
    bytes_s: float  # what a link carries a second; 0: no limit
    matmul_gflops: float  # measured, fp32, with `threads`
    copy_gbytes_s: float  # measured: bytes read and written, with `threads`
    memory_gbytes: float
    compiler: bool  # a C++ compiler is there (CPU), or graphs and fused kernels (CUDA)
    price_per_hour: float  # of the whole machine, in the budget's currency


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One way to run: weights' type and methods with their amounts."""

    name: str
    weights: WeightType
    methods: Mapping[str, int] = field(hash=False)

    @property
    def exact(self) -> bool:
        """Return whether it promises the tokens of an undisturbed fp32 run."""
        return self.weights == "fp32" and not any(name.startswith("codec-") for name in self.methods)
