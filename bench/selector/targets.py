"""What was promised, and what came out; nothing is rounded before it is compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from bench.selector.cells import REGIMES
from bench.selector.suite import NOT_BASELINES

__all__ = ["best_baseline", "targets"]

TOP1: Final = 0.90
RANDOM_REGRET: Final = 0.03
OUT_REGRET: Final = 0.08
P50_MS, P99_MS = 5.0, 15.0


def best_baseline(selectors: Mapping[str, Any]) -> str:
    """Return the baseline with the least mean regret on a split: found on the held-out cells, which favours it."""
    return min(selectors.keys() - NOT_BASELINES, key=lambda name: (selectors[name]["regret_mean"], name))


def targets(splits: Mapping[str, Any], decision: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """Return for each target its figure, the bound, and whether it is met; splits that were not measured have none."""
    measured = {name: found for name, found in splits.items() if isinstance(found, dict)}
    made: dict[str, dict[str, Any]] = {}
    for regime in REGIMES:
        for name, found in measured.items():
            why = _why(found[regime], found["calibration"])
            made |= {target: {**each, "why": why} for target, each in _of_split(name, regime, found[regime]).items()}
        made |= _over_all(regime, [found[regime]["selectors"] for found in measured.values()])
    shared = f"CPU time {decision['cpu_p50_ms']:.2f} and {decision['cpu_p99_ms']:.2f} ms, load {decision['load']:.1f}"
    made["decision p50, ms"] = {**_below(decision["p50_ms"], P50_MS), "why": shared}
    made["decision p99, ms"] = {**_below(decision["p99_ms"], P99_MS), "why": shared}
    return made


def _why(found: Mapping[str, Any], told: Mapping[str, Any]) -> str:
    """Return what explains a miss: where most was lost, and how good forecasts were there."""
    lost = "; ".join(
        f"{' '.join(map(str, each['cell']))}: {each['chosen']}, not {each['best']} ({each['regret']:.1%})"
        for each in found["worst"][:3]
        if each["regret"] > 0
    )
    return (
        f"most lost in {lost or 'none'}; forecasts off by {told['error_median']:.1%} in the median, "
        f"{told['within']:.0%} of the measured times in their interval, {told['inside']:.0%} of the pairs in range"
    )


def _of_split(name: str, regime: str, found: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    ours, apart = found["selectors"]["ours"], found["ours_against_best"]
    made: dict[str, dict[str, Any]] = {}
    if name == "random":
        made[f"{regime}: top-1, random split"] = {
            "figure": ours["top1"],
            "target": f">= {TOP1}",
            "met": bool(ours["top1"] >= TOP1),
        }
    bound = RANDOM_REGRET if name == "random" else OUT_REGRET
    made[f"{regime}: mean regret, {name}"] = {
        "figure": ours["regret_mean"],
        "target": f"<= {bound}",
        "met": bool(ours["regret_mean"] <= bound),
    }
    made[f"{regime}: regret less that of the best baseline ({apart['baseline']}), {name}"] = {
        "figure": apart["difference"],
        "interval": apart["interval"],
        "target": "95 % interval reaches 0 or below",
        "met": bool(apart["interval"][0] <= 0),
    }
    return made


def _over_all(regime: str, splits: list[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Compare mean regrets over all splits: ours with the baseline that has the least."""
    names = set.intersection(*(set(each) for each in splits))
    over = {name: float(np.mean([each[name]["regret_mean"] for each in splits])) for name in sorted(names)}
    best = min(names - NOT_BASELINES, key=lambda name: (over[name], name))
    return {
        f"{regime}: mean regret over all splits, below that of the best baseline ({best})": {
            "figure": over["ours"],
            "target": f"< {over[best]:.5f}",
            "met": bool(over["ours"] < over[best]),
            "why": "the splits above say where",
        }
    }


def _below(figure: float, bound: float) -> dict[str, Any]:
    return {"figure": figure, "target": f"< {bound:g}", "met": bool(figure < bound)}
