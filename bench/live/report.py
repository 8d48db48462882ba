"""What came out: paired ratios by kind of task and over all, what was chosen, and how well it was foreseen.

A ratio is a fixed method's seconds per token over the selector's of the same job: above 1 the selector is faster. Fixed
before anything was measured: of a kind, the median ratio to the fixed method that was fastest there (found in
hindsight, which favours it) must be at least 0.95; a median, because a kind has about 17 jobs and one of them may meet
a busy machine. Over all jobs the geometric mean must be above 1 against each fixed method; a mean, because where the
selector takes the same method as the fixed one, which may be most jobs, a median sees nothing but noise.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
from bench.live.payer import Taken
from bench.live.pins import FIXED, SELECTOR, follows
from numpy.typing import NDArray

__all__ = ["compared", "report", "written"]

PER_KIND: Final = 0.95
_DRAWS: Final = 4_000
_SHOWN: Final = 12  # reasons


def report(taken: Sequence[Taken], fixed: Sequence[str]) -> dict[str, Any]:
    """Return the findings over the jobs that came to their end in every way; `fixed` are names of `FIXED`."""
    jobs = _whole(taken, (SELECTOR, *fixed))
    strayed = [each for job in jobs for each in job.values() if each.way != SELECTOR and not _pinned(each)]
    kinds = {
        kind: _of_kind([job for job in jobs if job[SELECTOR].kind == kind], fixed)
        for kind in dict.fromkeys(job[SELECTOR].kind for job in jobs)
    }
    overall = {way: _against(jobs, way) for way in fixed} if jobs else {}
    own = [job[SELECTOR] for job in jobs]
    return {
        "jobs": len(jobs),
        "kinds": kinds,
        "overall": overall,
        "medians": {way: _medians([job[way] for job in jobs]) for way in (SELECTOR, *fixed)} if jobs else {},
        "chosen": dict(Counter(_named(each) for each in own).most_common()),
        "chosen_by_kind": {
            kind: dict(Counter(_named(each) for each in own if each.kind == kind).most_common()) for kind in kinds
        },
        "reasons": dict(Counter(_why(each) for each in own).most_common(_SHOWN)),
        "predicted": _foreseen(own),
        "same_text": sum(len({each.text for each in job.values()}) == 1 for job in jobs),
        "pins_not_followed": len(strayed),
        "targets": _targets(kinds, overall, strayed=len(strayed)),
    }


def written(found: Mapping[str, Any], taken: Sequence[Taken], path: Path) -> None:
    """Write the findings with every single measurement."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {**found, "rows": [asdict(each) for each in taken]}
    path.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


def compared(fixed: Sequence[float], own: Sequence[float]) -> dict[str, Any]:
    """Return median and geometric mean of paired ratios with the middle 95 % of each under a bootstrap over jobs."""
    logs = np.log(np.array(fixed) / np.array(own))
    drawn = logs[np.random.default_rng(0).integers(len(logs), size=(_DRAWS, len(logs)))]
    return {
        "pairs": len(logs),
        "median": float(np.exp(np.median(logs))),
        "median_interval": _interval(np.median(drawn, axis=1)),
        "geometric_mean": float(np.exp(logs.mean())),
        "interval": _interval(drawn.mean(axis=1)),
    }


def _interval(logs: NDArray[np.float64]) -> list[float]:
    return [float(each) for each in np.exp(np.percentile(logs, [2.5, 97.5]))]


def _whole(taken: Sequence[Taken], ways: Sequence[str]) -> list[dict[str, Taken]]:
    """Return the jobs that were run every way, each by way."""
    jobs: dict[int, dict[str, Taken]] = {}
    for each in taken:
        jobs.setdefault(each.job, {})[each.way] = each
    return [job for job in jobs.values() if set(ways) <= set(job)]


def _of_kind(jobs: Sequence[Mapping[str, Taken]], fixed: Sequence[str]) -> dict[str, Any]:
    """Return the comparison with the fixed method that took the least time a token over these jobs."""
    logs = {way: float(np.mean([np.log(job[way].per_token_s) for job in jobs])) for way in fixed}
    best = min(fixed, key=lambda way: logs[way])
    return {"best_fixed": best, **_against(jobs, best)}


def _against(jobs: Sequence[Mapping[str, Taken]], way: str) -> dict[str, Any]:
    first = [np.log(job[way].ttft_s / job[SELECTOR].ttft_s) for job in jobs]
    made = compared([job[way].per_token_s for job in jobs], [job[SELECTOR].per_token_s for job in jobs])
    return {**made, "ttft_geometric_mean": float(np.exp(np.mean(first)))}


def _medians(taken: Sequence[Taken]) -> dict[str, float]:
    return {
        "per_token_s": median(each.per_token_s for each in taken),
        "ttft_s": median(each.ttft_s for each in taken),
        "seconds": median(each.seconds for each in taken),
    }


def _foreseen(own: Sequence[Taken]) -> dict[str, Any]:
    """Return the selector's word against the payer's clock, on which quote, gateway and checks count as well."""
    pairs = [(each, each.expected_s) for each in own if each.expected_s]
    if not pairs:
        return {"jobs": 0}
    off = np.array([each.seconds / expected for each, expected in pairs if expected])
    bounded = [each for each, _ in pairs if "total_low_s" in each.predicted and each.tokens == each.max_tokens]
    within = [each.predicted["total_low_s"] <= each.seconds <= each.predicted["total_high_s"] for each in bounded]
    return {
        "jobs": len(pairs),
        "actual_over_predicted": float(np.median(off)),
        "middle_half": [float(each) for each in np.percentile(off, [25, 75])],
        "within_interval": sum(within) / len(within) if within else None,
    }


def _targets(kinds: Mapping[str, Any], overall: Mapping[str, Any], *, strayed: int) -> dict[str, Any]:
    """Return each target with its figures; where a pin was not followed nothing was compared with it."""
    of_kinds = {kind: each["median"] for kind, each in kinds.items()}
    means = {way: each["geometric_mean"] for way, each in overall.items()}
    valid = bool(overall) and not strayed
    return {
        "per_kind": {
            "target": PER_KIND,
            "figures": of_kinds,
            "met": valid and all(each >= PER_KIND for each in of_kinds.values()),
        },
        "overall": {
            "target": "better than each",
            "figures": means,
            "met": valid and all(each > 1 for each in means.values()),
            "sure": valid and all(each["interval"][0] > 1 for each in overall.values()),
        },
    }


def _pinned(taken: Taken) -> bool:
    return follows(FIXED[taken.way].combination, taken.method, taken.amounts)


def _named(taken: Taken) -> str:
    amounts = ", ".join(f"{name} {amount}" for name, amount in taken.amounts.items())
    return f"{taken.method} ({amounts})" if amounts else taken.method


def _why(taken: Taken) -> str:
    """Return the part of a reason that is not about this job's own figures."""
    parts = taken.reason.split("; ")
    return parts[-1] if len(parts) > 1 and not parts[-1][:1].isdigit() else "the best that was foreseen"


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is told at the end."""
    for kind, each in found["kinds"].items():
        low, high = each["median_interval"]
        yield (
            f"{kind:<15} {each['pairs']:>3} jobs: {each['median']:.3f} ({low:.3f} to {high:.3f}) "
            f"of the best fixed method's speed, {each['best_fixed']}"
        )
    for way, each in found["overall"].items():
        low, high = each["interval"]
        yield f"over all, against {way:<24} {each['geometric_mean']:.3f} ({low:.3f} to {high:.3f})"
    for name, each in found["targets"].items():
        yield f"{'met   ' if each['met'] else 'MISSED'} {name}: {each['target']}"
    if found["pins_not_followed"]:
        yield f"{found['pins_not_followed']} jobs did not run as pinned: nothing was compared with them"
