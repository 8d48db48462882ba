"""What a machine's unit of work really takes, against what was measured of it: the roofline's rates, and their fit.

By hand where nothing was measured; else by least squares of logarithms, in which rare large errors count less, pulled
a little towards the values by hand: what no row tells stays as it was. Times with guesses are left out: how many
are right is no property of a machine. Of a draft it is the mean over all that were measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from statistics import fmean
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from plait_node.selector.facts import Candidate
from plait_node.selector.rows import Row

__all__ = ["BY_HAND", "LANES", "NAMES", "Rates", "fit_rates", "lane"]

LANES: Final = ("fp32-plain", "fp32", "bf16", "int8", "int4")  # plain: by torch, without compiled code
_PER_LANE: Final = ("read", "product", "head")
_SHARED: Final = ("attention", "start", "start-plain", "row")
NAMES: Final = (*(f"{word}-{each}" for word in _PER_LANE for each in LANES), *_SHARED)
_PULL: Final = 0.3  # what the value by hand counts for, as a share of a row's weight
_WEIGHTS: Final = (1.0, 0.5)  # of the time until the last token, and until the first
_COMMON: Final = 0.1  # larger errors of a logarithm count less and less
_MOST: Final = 2.5  # logarithm of what a rate may be off by hand
_SPECULATIVE: Final = frozenset({"prompt-lookup", "draft-model"})
# A large product of 16-bit numbers against the measured one of fp32: a CPU that has them, and a GPU's tensor cores.
_SPEED: Final = {
    "cpu": {"fp32-plain": 0.9, "fp32": 0.9, "bf16": 1.7, "int8": 1.7, "int4": 1.5},
    "cuda": {"fp32-plain": 0.9, "fp32": 0.9, "bf16": 10.0, "int8": 8.0, "int4": 8.0},
}
_FIXED: Final = {  # seconds to start a block's work, and to hash a row and hand it on
    "cpu": {"start": 4e-5, "start-plain": 3.5e-4, "row": 3e-5},
    "cuda": {"start": 6e-5, "start-plain": 3e-4, "row": 1e-4},
}

Vector = NDArray[np.float64]
Line = Callable[[Row, "Rates"], tuple[float, float]]  # seconds until the last token and until the first


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Seconds a unit, by `NAMES`.

    Read and head: of reading weights, in parts of what the measured bandwidth says; product and attention: in parts of
    what the measured fp32 rate says; start: of a block, row: of a row.
    """

    values: Mapping[str, float] = field(hash=False)
    draft_right: float = 0.85  # how likely a draft's next token is right, where those before it were


def lane(candidate: Candidate) -> str:
    """Return which of `LANES` a candidate computes by."""
    plain = candidate.weights == "fp32" and "compiled" not in candidate.methods
    return "fp32-plain" if plain else candidate.weights


def _by_hand(device: str) -> Rates:
    speed = _SPEED[device]
    values = {f"{word}-{each}": 1.0 for word in ("read", "head") for each in LANES}
    values |= {f"product-{each}": 1 / speed[each] for each in LANES}
    return Rates(values={**values, "attention": 1 / 0.9, **_FIXED[device]})


BY_HAND: Final[Mapping[str, Rates]] = {device: _by_hand(device) for device in _SPEED}


def fit_rates(rows: Sequence[Row], line: Line) -> dict[str, Rates]:
    """Return each device's rates; `line` is the roofline of a row under given rates, which it is linear in."""
    found = dict(BY_HAND)
    for device in BY_HAND:
        own = [row for row in rows if row.hardware.device == device and not _SPECULATIVE & set(row.candidate.methods)]
        if own:
            found[device] = _fitted(own, BY_HAND[device], line)
        drafts = [
            row.outcome.accepted
            for row in rows
            if row.hardware.device == device and row.outcome.accepted >= 0 and "draft-model" in row.candidate.methods
        ]
        if drafts:
            found[device] = replace(found[device], draft_right=min(0.99, fmean(drafts)))
    return found


def _fitted(rows: Sequence[Row], by_hand: Rates, line: Line) -> Rates:
    zero = dict.fromkeys(NAMES, 0.0)
    fixed = np.array([line(row, Rates(values=zero)) for row in rows])  # what the links take
    parts = np.array(
        [[line(row, Rates(values={**zero, name: by_hand.values[name]})) for name in NAMES] for row in rows]
    )
    parts -= fixed[:, None]
    took = np.array([(row.outcome.seconds, row.outcome.ttft_s) for row in rows])
    logs = np.log(took)

    def ahead(shares: Vector) -> tuple[Vector, Vector]:
        """Return the expected times, (rows, 2), and what each rate has of them."""
        own = parts * np.exp(shares)[None, :, None]
        return fixed + own.sum(axis=1), own

    def off(shares: Vector) -> Vector:
        errors = (np.log(ahead(shares)[0]) - logs) * _WEIGHTS
        return np.concatenate([errors.T.ravel(), _PULL * shares])

    def slopes(shares: Vector) -> Vector:
        times, own = ahead(shares)
        moved = own / times[:, None] * _WEIGHTS
        return np.concatenate([moved[..., 0], moved[..., 1], _PULL * np.eye(len(NAMES))])

    optimize: Any = import_module("scipy.optimize")  # loads where something is fitted only
    found = optimize.least_squares(off, np.zeros(len(NAMES)), jac=slopes, loss="soft_l1", f_scale=_COMMON)
    shares = np.exp(np.clip(found.x, -_MOST, _MOST))
    return Rates(values={name: by_hand.values[name] * float(share) for name, share in zip(NAMES, shares, strict=True)})
