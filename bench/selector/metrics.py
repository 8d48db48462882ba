"""How well the choices of one selector did, over [seeds, cells].

Ties: a choice counts as right if it is slower than the best by no more than the greater of the two candidates' measured
noise, and at most 3 %. Raw figures count without ties. Regret is the chosen seconds over the best's, less 1. An
interval is the middle 95 % of a bootstrap that draws cells and seeds anew, with all choices of a drawn cell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
from bench.selector.cells import MOST_NOISE, Cell
from bench.selector.features import Floats
from bench.selector.slo import meets
from numpy.typing import NDArray

from plait_node.selector.candidates import NONE

__all__ = ["DRAWS", "FIGURES", "Scores", "macro_f1", "paired", "score", "summary", "tied"]

DRAWS: Final = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What was scored; arrays are [seeds, cells] if not said otherwise."""

    regret: Floats
    raw: NDArray[np.bool_]  # the best itself was chosen
    right: NDArray[np.bool_]  # the best, or one that is tied with it
    truth: NDArray[np.int64]  # the best candidate's number
    chosen: NDArray[np.int64]
    gain_default: Floats  # log of the default's seconds over the chosen's
    gain_none: Floats  # the same over no acceleration; NaN where that was not measured
    hit: Floats  # 1 where the deadlines are met, 0 where not, NaN where no candidate could
    cost: Floats  # money: seconds at the machine's price
    cost_default: Floats

    def take(self, keep: NDArray[np.bool_]) -> Scores:
        """Return the scores of the cells that `keep` [cells] marks."""
        return Scores(**{each.name: getattr(self, each.name)[:, keep] for each in fields(self)})

    def drawn(self, seeds: NDArray[np.int64], cells: NDArray[np.int64]) -> Scores:
        """Return the scores of these seeds and cells, which may repeat."""
        block = np.ix_(seeds, cells)
        return Scores(**{each.name: getattr(self, each.name)[block] for each in fields(self)})


def score(cells: Sequence[Cell], chosen: Sequence[Sequence[str]]) -> Scores:
    """Score the names chosen by each seed for each of the cells, which hold the allowed candidates only."""
    names = sorted({name for cell in cells for name in cell.timings})
    columns: dict[str, list[list[Any]]] = {each.name: [] for each in fields(Scores)}
    for picks in chosen:
        rows = [_one(cell, name, names) for cell, name in zip(cells, picks, strict=True)]
        for column, values in columns.items():
            values.append([row[column] for row in rows])
    return Scores(**{column: np.array(values) for column, values in columns.items()})


def tied(cell: Cell, name: str) -> bool:
    """Return whether a candidate is the best or tied with it."""
    best, chosen = cell.timings[cell.ranked[0]], cell.timings[name]
    return chosen.seconds / best.seconds - 1 <= min(MOST_NOISE, max(best.noise, chosen.noise))


def _one(cell: Cell, name: str, names: Sequence[str]) -> Mapping[str, Any]:
    best, chosen = cell.timings[cell.ranked[0]], cell.timings[name]
    default, none = cell.timings[cell.default], cell.timings.get(NONE.name)
    per_second = cell.question.hardware.price_per_hour / 3_600
    reachable = any(meets(cell, each) for each in cell.timings)
    return {
        "regret": chosen.seconds / best.seconds - 1,
        "raw": chosen.seconds == best.seconds,
        "right": tied(cell, name),
        "truth": names.index(cell.ranked[0]),
        "chosen": names.index(name),
        "gain_default": np.log(default.seconds / chosen.seconds),
        "gain_none": np.log(none.seconds / chosen.seconds) if none else np.nan,
        "hit": float(meets(cell, name)) if reachable else np.nan,
        "cost": chosen.seconds * per_second,
        "cost_default": default.seconds * per_second,
    }


def macro_f1(truth: NDArray[np.int64], chosen: NDArray[np.int64]) -> float:
    """Return the mean F1 over all labels that are the best or chosen somewhere."""
    truth, chosen = truth.ravel(), chosen.ravel()
    size = int(max(truth.max(), chosen.max())) + 1
    both = np.bincount(truth[truth == chosen], minlength=size)
    seen = np.bincount(truth, minlength=size) + np.bincount(chosen, minlength=size)
    return float(np.mean(2 * both[seen > 0] / seen[seen > 0]))


# A tied choice takes the best one's label; otherwise F1 would punish what top-1 forgives.
FIGURES: Final[Mapping[str, Callable[[Scores], float]]] = {
    "top1": lambda of: float(of.right.mean()),
    "top1_raw": lambda of: float(of.raw.mean()),
    "macro_f1": lambda of: macro_f1(of.truth, np.where(of.right, of.truth, of.chosen)),
    "macro_f1_raw": lambda of: macro_f1(of.truth, of.chosen),
    "regret_mean": lambda of: float(of.regret.mean()),
    "regret_p95": lambda of: float(np.quantile(of.regret, 0.95)),
    "gain_over_default": lambda of: float(np.exp(of.gain_default.mean())),
    "gain_over_none": lambda of: float(np.exp(_mean(of.gain_none))),
    "slo_hit": lambda of: _mean(of.hit),
    "cost_ratio": lambda of: float(of.cost.sum() / of.cost_default.sum()),
    "cost_mean": lambda of: float(of.cost.mean()),
}


def _mean(values: Floats) -> float:
    """Return the mean of what is known, NaN of nothing."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def summary(scores: Scores, keep: NDArray[np.bool_], *, draws: int = DRAWS) -> dict[str, Any]:
    """Return every figure with its interval over the cells that `keep` [cells] marks; raw ones of all cells beside."""
    kept = scores.take(keep) if keep.any() else scores
    found: dict[str, Any] = {name: figure(kept) for name, figure in FIGURES.items()}
    found["slo_reachable"] = float((~np.isnan(kept.hit)).mean())
    found["all_cells"] = {name: FIGURES[name](scores) for name in ("top1_raw", "regret_mean", "gain_over_default")}
    samples = [kept.drawn(*each) for each in _draws(kept.regret.shape, draws)]
    found["interval"] = {
        name: _middle([figure(sample) for sample in samples]) if draws else None for name, figure in FIGURES.items()
    }
    return found


def paired(ours: Floats, other: Floats, *, draws: int = DRAWS) -> dict[str, Any]:
    """Return the mean of ours less the other's over [seeds, cells], with its interval; below 0 ours is better."""
    apart = ours - other
    samples = [float(apart[np.ix_(*each)].mean()) for each in _draws(apart.shape, draws)]
    return {"difference": float(apart.mean()), "interval": _middle(samples)}


def _middle(samples: Sequence[float]) -> list[float]:
    known = [each for each in samples if not np.isnan(each)]
    return [float(each) for each in np.quantile(known, (0.025, 0.975))] if known else [float("nan")] * 2


def _draws(shape: tuple[int, ...], draws: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield seeds and cells drawn with replacement, the same ones at each call."""
    random = np.random.default_rng(0)
    for _ in range(draws):
        yield random.integers(0, shape[0], shape[0]), random.integers(0, shape[1], shape[1])
