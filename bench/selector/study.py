"""The whole comparison on one history: splits, ablation, replay, trying, decision time; returns what is reported."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from bench.selector.ablation import ablation, variants
from bench.selector.calibration import calibration, pairs_of
from bench.selector.cells import REGIMES, Cell, Regime, cells_of
from bench.selector.decision_time import decision_time
from bench.selector.evaluate import Run, allowed_cells, evaluate
from bench.selector.metrics import DRAWS, paired, score, summary
from bench.selector.ours import Forecasts, Ours, cautious
from bench.selector.replay import Held, replay
from bench.selector.splits import SPLITS
from bench.selector.streamline import streamline
from bench.selector.suite import makers
from bench.selector.targets import best_baseline, targets

from plait_node.selector.embeddings import Embeddings
from plait_node.selector.predictor import Options
from plait_node.selector.rows import Rows

__all__ = ["Study", "study"]

_WORST: Final = 8  # choices that cost most, shown per split
_REPLAYED: Final = ("leave-one-model-out", "leave-one-setting-out")


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """`found` is what is written as JSON; the rest is for plots."""

    found: dict[str, Any]
    cells: Sequence[Cell]
    forecasts: Mapping[str, list[tuple[float, float, float, float, bool]]]  # by split, see `calibration.pairs_of`


def study(
    rows: Rows,
    *,
    embeddings: Embeddings | None,
    other: Embeddings | None = None,
    options: Options | None = None,
    seeds: int = 3,
    parts: bool = True,
    draws: int = DRAWS,
) -> Study:
    """Compare all selectors; `parts` also leaves parts of ours out, which takes half as long again.

    `other` are vectors by the other encoder; `options` are those of our predictor; `draws` are the bootstrap's.
    """
    cells = cells_of(rows)
    encoder = None if embeddings is None else embeddings.name
    found: dict[str, Any] = {**_counts(rows, cells), "seeds": seeds, "encoder": encoder}
    splits: dict[str, Any] = {}
    pairs: dict[str, list[tuple[float, float, float, float, bool]]] = {}
    for name, split in SPLITS.items():
        sys.stderr.write(f"{name}\n")
        forecasts = Forecasts()
        runs = evaluate(makers(cells, embeddings, options), cells, split, seeds=seeds, asked=forecasts.asked)
        if not runs:
            splits[name] = "not measured: the history has one of these only"
            continue
        runs = {**runs, "ours, cautious": cautious(forecasts, cells)}
        splits[name] = {"folds": len(split(cells, 0)), **{each: _regime(runs, cells, each, draws) for each in REGIMES}}
        splits[name]["calibration"] = calibration(forecasts, cells)
        splits[name]["fit_s"] = {each: run.fit_s / seeds for each, run in runs.items() if run.fit_s}
        pairs[name] = pairs_of(forecasts, cells)
        if parts:
            splits[name]["ablation"] = ablation(cells, split, runs["ours"], variants(embeddings, other))
        if name in _REPLAYED:
            splits[name]["online"] = replay(_held(forecasts, cells))
    found["splits"] = splits
    ours = Ours(embeddings, options)
    ours.fit(cells, 0)
    found["decision"] = decision_time(ours, cells)
    found["streamline"] = {each: _trying(splits, cells, each) for each in REGIMES}
    found["targets"] = targets(splits, found["decision"])
    return Study(found=found, cells=cells, forecasts=pairs)


def _counts(rows: Rows, cells: Sequence[Cell]) -> dict[str, Any]:
    allowed = {regime: allowed_cells(cells, regime) for regime in REGIMES}
    return {
        "rows": len(rows),
        "cells": len(cells),
        "dropped": {regime: sum(cell.noisy for cell in each) for regime, each in allowed.items()},
        "random_weight_share": float(np.mean([not row.model.real_weights for row in rows])),
        "models": sorted({cell.question.model.name for cell in cells}),
        "tasks": sorted({cell.question.task.kind for cell in cells}),
        "settings": sorted({cell.question.hardware.name for cell in cells}),
        "chips": sorted({cell.question.hardware.chip for cell in cells}),
        "candidates_mean": float(np.mean([len(cell.timings) for cell in cells])),
        "best": {regime: dict(Counter(cell.ranked[0] for cell in each)) for regime, each in allowed.items()},
    }


def _regime(runs: Mapping[str, Run], cells: Sequence[Cell], regime: Regime, draws: int) -> dict[str, Any]:
    """Return every selector's figures in one regime, ours against the best baseline, and where ours lost most."""
    allowed = allowed_cells(cells, regime)
    keep = np.array([not cell.noisy for cell in allowed])
    scores = {name: score(allowed, run.chosen[regime]) for name, run in runs.items()}
    selectors = {name: summary(each, keep, draws=draws) for name, each in scores.items()}
    for name, each in scores.items():
        real = np.array([cell.question.model.real_weights for cell in allowed]) & keep
        selectors[name]["regret_mean_real_weights"] = float(each.take(real).regret.mean()) if real.any() else None
    best = best_baseline(selectors)
    ours = scores["ours"].take(keep)
    return {
        "selectors": selectors,
        "ours_against_best": {"baseline": best, **paired(ours.regret, scores[best].take(keep).regret, draws=draws)},
        "worst": _worst(allowed, runs["ours"].chosen[regime][0]),
    }


def _worst(cells: Sequence[Cell], chosen: Sequence[str]) -> list[dict[str, Any]]:
    """Return the choices of seed 0 that cost most, noisy cells included."""
    lost = [
        {
            "cell": list(cell.key),
            "chosen": name,
            "best": cell.ranked[0],
            "regret": cell.timings[name].seconds / cell.timings[cell.ranked[0]].seconds - 1,
            "noise": max(cell.timings[each].noise for each in (name, cell.ranked[0])),
        }
        for cell, name in zip(cells, chosen, strict=True)
    ]
    return sorted(lost, key=lambda each: -each["regret"])[:_WORST]


def _held(forecasts: Forecasts, cells: Sequence[Cell]) -> list[Held]:
    return [
        Held(
            part=forecasts.parts[cell.key],
            cell=cell,
            predicted={name: each.seconds for name, each in forecasts.by_seed[0][cell.key].items()},
        )
        for cell in cells
    ]


def _trying(splits: Mapping[str, Any], cells: Sequence[Cell], regime: Regime) -> dict[str, Any]:
    """Compare trying with our choice on the random split."""
    kept = [cell for cell in allowed_cells(cells, regime) if not cell.noisy] or allowed_cells(cells, regime)
    return streamline(kept, splits["random"][regime]["selectors"]["ours"]["regret_mean"])
