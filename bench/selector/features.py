"""Numbers that describe a cell and a candidate, for the baselines that read numbers; no outcome goes in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log10
from typing import Final

import numpy as np
from bench.selector.cells import Cell, Question
from numpy.typing import NDArray

from plait_node.selector.facts import Candidate

__all__ = ["Floats", "Scaler", "candidate_features", "cell_features", "pairs", "relative", "stacked", "targets"]

Floats = NDArray[np.float64]
_BITS: Final = {"fp32": 32.0, "bf16": 16.0, "int8": 8.0, "int4": 4.0}
_METHODS: Final = (
    "continuous-batching",
    "prefix-cache",
    "chunked-prefill",
    "compiled",
    "prompt-lookup",
    "draft-model",
    "codec-bf16",
    "codec-int8",
)


def cell_features(question: Question) -> Floats:
    """Return the 24 meta-features of a cell; sizes and rates are decimal logarithms."""
    task, model, hardware = question.task, question.model, question.hardware
    values = [
        log10(task.batch),
        log10(1 + task.prompt_tokens),
        task.shared_tokens / max(1.0, task.prompt_tokens),
        task.warm_tokens / max(1.0, task.prompt_tokens),
        log10(1 + task.answer_tokens),
        task.repetition,
        float(model.real_weights),
        log10(model.parameters),
        log10(model.block_parameters),
        log10(model.vocabulary),
        log10(model.hidden),
        model.intermediate / model.hidden,
        float(model.blocks),
        model.kv_heads / model.heads,
        float(hardware.device == "cuda"),
        float(hardware.cores),
        float(hardware.threads),
        float(hardware.stages),
        hardware.rtt_s,
        1e6 / hardware.bytes_s if hardware.bytes_s else 0.0,
        log10(hardware.matmul_gflops),
        log10(hardware.copy_gbytes_s),
        log10(hardware.memory_gbytes),
        float(hardware.compiler),
    ]
    return np.array(values)


def candidate_features(candidate: Candidate) -> Floats:
    """Return the bits of a weight and each method's amount, 0 where it is off: 9 values."""
    amounts = [float(candidate.methods.get(name, 0)) for name in _METHODS]
    return np.array([_BITS[candidate.weights], *amounts])


def stacked(questions: Sequence[Question]) -> Floats:
    """Return [cells, 24]."""
    return np.stack([cell_features(each) for each in questions])


def pairs(question: Question) -> Floats:
    """Return [candidates, 33]: the cell's features beside each candidate's."""
    cell = cell_features(question)
    return np.stack([np.concatenate([cell, candidate_features(each)]) for each in question.candidates])


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaler:
    """Means and spreads of training features; what does not vary there is divided by 1."""

    mean: Floats
    spread: Floats

    @classmethod
    def fit(cls, values: Floats) -> Scaler:
        """Read [rows, features] of the training side."""
        spread = values.std(axis=0)
        return cls(mean=values.mean(axis=0), spread=np.where(spread > 0, spread, 1.0))

    def apply(self, values: Floats) -> Floats:
        """Return the values at mean 0 and spread 1."""
        return (values - self.mean) / self.spread


def targets(cells: Sequence[Cell]) -> Floats:
    """Return the log of seconds over those of the cell's default, one a (cell, candidate) as `pairs` stacks them."""
    return np.concatenate([relative(cell) for cell in cells])


def relative(cell: Cell) -> Floats:
    """Return the log of each candidate's seconds over those of the cell's default; below 0 is faster."""
    seconds = np.array([cell.timings[each.name].seconds for each in cell.question.candidates])
    return np.log(seconds / cell.timings[cell.default].seconds)
