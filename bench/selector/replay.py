"""Learning online, replayed: a held-out part's cells come in random order, and each choice reveals its own outcome.

Predictions are those of the selector that never saw the part. After each cell the time of the chosen candidate, and of
no other, corrects later predictions (`plait_node.selector.online.Corrections`); without learning nothing does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from bench.selector.cells import REGIMES, Cell, Regime

from plait_node.selector.online import Corrections

__all__ = ["Held", "replay", "replayed"]

_ORDERS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One held-out cell: the part it belongs to, and predicted seconds per candidate."""

    part: str
    cell: Cell
    predicted: Mapping[str, float]


def replay(held: Sequence[Held], *, orders: int = _ORDERS) -> dict[str, Any]:
    """Return mean regret with and without learning, over whole parts and over their second halves, per regime."""
    found: dict[str, Any] = {}
    for regime in REGIMES:
        for learns in (False, True):
            lost = [part for order in range(orders) for part in _parts(held, regime, order, learns=learns)]
            found.setdefault(regime, {})["on" if learns else "off"] = {
                "regret_mean": float(np.mean([each for part in lost for each in part])) if lost else None,
                "second_half": float(np.mean([each for part in lost for each in part[len(part) // 2 :]]))
                if lost
                else None,
            }
    return found


def _parts(held: Sequence[Held], regime: Regime, order: int, *, learns: bool) -> list[list[float]]:
    random = np.random.default_rng(order)
    found: list[list[float]] = []
    for part in dict.fromkeys(each.part for each in held):
        members = [each for each in held if each.part == part]
        shuffled = [members[index] for index in random.permutation(len(members))]
        lost = replayed(shuffled, regime, Corrections() if learns else None)
        found += [lost] if lost else []
    return found


def replayed(held: Sequence[Held], regime: Regime, corrections: Corrections | None) -> list[float]:
    """Return the regret of each cell in the order given."""
    lost: list[float] = []
    for each in held:
        cell = each.cell.allowed(regime)
        if cell is None:
            continue
        factors = {name: 1.0 if corrections is None else corrections.factor(name) for name in cell.timings}
        chosen = min(cell.timings, key=lambda name: each.predicted[name] * factors[name])
        seconds = cell.timings[chosen].seconds
        if corrections is not None:
            corrections.add(chosen, each.predicted[chosen], seconds)
        lost.append(seconds / cell.timings[cell.ranked[0]].seconds - 1)
    return lost
