"""A task, a model, a machine and candidates as numbers: what the predictor learns from, besides texts.

A matrix has one row a candidate and the columns `NAMES`, in three blocks: facts that all candidates of a cell share,
the roofline of each, and each one's code. Counts and rates are natural logarithms, shares are as they are.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from plait_node.selector.candidates import NONE
from plait_node.selector.facts import Candidate, HardwareFacts, ModelFacts, TaskFacts
from plait_node.selector.rates import Rates
from plait_node.selector.roofline import Roofline, roofline

__all__ = ["CODE", "NAMES", "NUMERIC", "ROOFLINE", "SCHEMA", "features"]

NUMERIC: Final = (
    "batch",
    "prompt_tokens",
    "shared_share",  # of the prompt
    "warm_share",  # of the prompt
    "answer_tokens",
    "repetition",
    "real_weights",  # 1 or 0
    "blocks",
    "hidden",
    "kv_share",  # key heads of all heads
    "width_ratio",  # of the products in between, against hidden
    "vocabulary",
    "parameters",
    "block_parameters",
    "cuda",  # 1 or 0
    "cores",
    "threads",
    "stages",
    "rtt_ms",  # log(1 + milliseconds)
    "ring_ms",  # log(1 + milliseconds) once round
    "link_ns",  # log(1 + nanoseconds a byte), 0 without a limit
    "matmul_gflops",
    "copy_gbytes_s",
    "memory_gbytes",
    "compiler",  # 1 or 0
)
ROOFLINE: Final = (
    "seconds",
    "prefill_s",
    "decode_s",
    "link_s",
    "ttft_s",
    "tpot_s",
    "prefill_share",
    "link_share",
    "prompt_rows",
    "prompt_passes",
    "decode_passes",
    "gain",
    "against_none",  # log of seconds over those of the candidate "none"
)
_WEIGHTS: Final = ("fp32", "bf16", "int8", "int4")
_AMOUNTS: Final = (  # log(1 + amount), 0 where the method is off; int8 and int4 go without saying
    "continuous-batching",
    "prefix-cache",
    "chunked-prefill",
    "compiled",
    "prompt-lookup",
    "draft-model",
    "codec-bf16",
    "codec-int8",
)
CODE: Final = (*(f"weights-{each}" for each in _WEIGHTS), *_AMOUNTS)
NAMES: Final = (*NUMERIC, *(f"roofline-{each}" for each in ROOFLINE), *CODE)
# What a column means can change without its name: then the number does.
SCHEMA: Final = hashlib.sha256("\n".join(("2", *NAMES)).encode()).hexdigest()[:16]

_LEAST_S: Final = 1e-6  # shorter times are this long, so that their logarithms stay near


def features(
    task: TaskFacts,
    model: ModelFacts,
    hardware: HardwareFacts,
    candidates: Sequence[Candidate],
    rates: Rates | None = None,
) -> tuple[NDArray[np.float64], list[Roofline]]:
    """Return the matrix, (candidates, names), and the rooflines by these rates that are part of it."""
    lines = [roofline(task, model, hardware, each, rates) for each in candidates]
    plain = next((line for line, each in zip(lines, candidates, strict=True) if each == NONE), None)
    base = plain or roofline(task, model, hardware, NONE, rates)
    shared = [*_task(task), *_model(model), *_hardware(hardware)]
    rows = [[*shared, *_line(line, base), *_code(each)] for line, each in zip(lines, candidates, strict=True)]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(NAMES)), lines


def _task(task: TaskFacts) -> list[float]:
    prompt = max(1.0, task.prompt_tokens)
    return [
        math.log(max(1, task.batch)),
        math.log(prompt),
        task.shared_tokens / prompt,
        task.warm_tokens / prompt,
        math.log(max(1, task.answer_tokens)),
        task.repetition,
    ]


def _model(model: ModelFacts) -> list[float]:
    return [
        float(model.real_weights),
        math.log(model.blocks),
        math.log(model.hidden),
        model.kv_heads / model.heads,
        math.log(model.intermediate / model.hidden),
        math.log(model.vocabulary),
        math.log(model.parameters),
        math.log(model.block_parameters),
    ]


def _hardware(hardware: HardwareFacts) -> list[float]:
    ring_s = hardware.rtt_s * (hardware.stages + 1) / 2
    return [
        float(hardware.device == "cuda"),
        math.log(hardware.cores),
        math.log(hardware.threads),
        float(hardware.stages),
        math.log1p(1e3 * hardware.rtt_s),
        math.log1p(1e3 * ring_s),
        math.log1p(1e9 / hardware.bytes_s) if hardware.bytes_s else 0.0,
        math.log(hardware.matmul_gflops),
        math.log(hardware.copy_gbytes_s),
        math.log(hardware.memory_gbytes),
        float(hardware.compiler),
    ]


def _line(line: Roofline, base: Roofline) -> list[float]:
    times = (line.seconds, line.prefill_s, line.decode_s, line.link_s, line.ttft_s, line.tpot_s)
    return [
        *(math.log(max(_LEAST_S, each)) for each in times),
        line.prefill_s / line.seconds,
        line.link_s / line.seconds,
        math.log(line.prompt_rows),
        math.log(line.prompt_passes),
        math.log1p(line.decode_passes),
        math.log(line.gain),
        math.log(line.seconds / base.seconds),
    ]


def _code(candidate: Candidate) -> list[float]:
    weights = [float(candidate.weights == each) for each in _WEIGHTS]
    return [*weights, *(math.log1p(candidate.methods.get(each, 0)) for each in _AMOUNTS)]
