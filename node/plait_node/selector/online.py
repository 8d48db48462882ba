"""What a node learns while it serves: how far predictions are off here, and whether that changes."""

from __future__ import annotations

import json
import logging
import math
from collections import OrderedDict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self, cast

__all__ = ["Corrections"]

VERSION: Final = 1
_MOST: Final = 256  # candidates remembered
_BOUND: Final = math.log(8.0)  # no factor is larger than 8 or smaller than 1/8
_PRIOR: Final = 4.0  # observations that "nothing is off" counts for, and the node's mean against a candidate's own
_MEMORY: Final = 50.0  # an observation loses its weight after about as many later ones
# Page-Hinkley over residuals in standard deviations: one drift in about a thousand undisturbed jobs, and a shift by
# two deviations is seen after about seven.
_SLACK: Final = 0.3
_ALARM: Final = 12.0
_WARM_UP: Final = 20
_CLIP: Final = 4.0  # one stray job alone is no drift
_LEAST_DEVIATION: Final = 0.05

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Mean:
    """A running mean that forgets slowly."""

    count: float = 0.0
    value: float = 0.0

    def add(self, value: float) -> None:
        self.count = min(self.count + 1.0, _MEMORY)
        self.value += (value - self.value) / self.count

    def towards(self, prior: float) -> float:
        """Return the mean, drawn to `prior` as long as little was seen."""
        return (self.count * self.value + _PRIOR * prior) / (self.count + _PRIOR)


@dataclass(slots=True)
class _Drift:
    """Page-Hinkley in both directions: tells when residuals leave the mean that they had."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    above: float = 0.0
    below: float = 0.0
    found: bool = False

    def add(self, residual: float) -> None:
        if self.count >= _WARM_UP:
            deviation = max(_LEAST_DEVIATION, math.sqrt(self.squares / self.count))
            off = min(_CLIP, max(-_CLIP, (residual - self.mean) / deviation))
            self.above = max(0.0, self.above + off - _SLACK)
            self.below = max(0.0, self.below - off - _SLACK)
            self.found = self.found or max(self.above, self.below) > _ALARM
        self.count += 1
        step = residual - self.mean
        self.mean += step / self.count
        self.squares += step * (residual - self.mean)


class Corrections:
    """Factors on predicted seconds, per candidate, drawn to one that all candidates of this node share."""

    def __init__(self) -> None:
        self._shared = _Mean()
        self._own: OrderedDict[str, _Mean] = OrderedDict()
        self._drift = _Drift()

    def __len__(self) -> int:
        """Return how many candidates have a factor of their own."""
        return len(self._own)

    @property
    def drifted(self) -> bool:
        """Tell whether predictions are off by another amount than before, since `settle` was called last."""
        return self._drift.found

    @property
    def shared(self) -> float:
        """Return the factor of a candidate that was never run here."""
        return math.exp(_bounded(self._shared.towards(0.0)))

    def add(self, candidate: str, predicted_s: float, actual_s: float) -> None:
        """Learn from a job; `predicted_s` is the prediction before any factor. Times of 0 or less teach nothing."""
        if not (0.0 < predicted_s < math.inf and 0.0 < actual_s < math.inf):
            return
        residual = math.log(actual_s) - math.log(predicted_s)
        self._shared.add(residual)
        self._own.setdefault(candidate, _Mean()).add(residual)
        self._own.move_to_end(candidate)
        if len(self._own) > _MOST:
            self._own.popitem(last=False)
        self._drift.add(residual)

    def factor(self, candidate: str) -> float:
        """Return what a prediction for a candidate is to be multiplied with, from 1/8 to 8."""
        own = self._own.get(candidate, _Mean())
        return math.exp(_bounded(own.towards(self._shared.towards(0.0))))

    def settle(self) -> None:
        """Look for drift anew, from here on."""
        self._drift = _Drift()

    def save(self, path: Path) -> None:
        """Write JSON in one move; raise `OSError`."""
        value = {
            "version": VERSION,
            "shared": asdict(self._shared),
            "own": {name: asdict(mean) for name, mean in self._own.items()},
            "drift": asdict(self._drift),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(value), encoding="utf-8")
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote; without a file there are no corrections, and with a damaged one neither, aloud."""
        made = cls()
        if not path.exists():
            return made
        try:
            made._read(cast("dict[str, Any]", json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            _log.warning("corrections start anew file=%s error=%s", path, error)
            return cls()
        return made

    def _read(self, value: dict[str, Any]) -> None:
        if value["version"] != VERSION:
            raise ValueError(f"version {value['version']} is not {VERSION}")
        self._shared = _mean(value["shared"])
        own = list(cast("dict[str, Any]", value["own"]).items())[-_MOST:]
        self._own = OrderedDict((name, _mean(each)) for name, each in own)
        drift = cast("dict[str, Any]", value["drift"])
        numbers = {name: _finite(drift[name]) for name in ("mean", "squares", "above", "below")}
        self._drift = _Drift(count=int(drift["count"]), found=bool(drift["found"]), **numbers)
        if self._drift.count < 0 or self._drift.squares < 0:
            raise ValueError("a count or a sum of squares is negative")


def _mean(value: dict[str, Any]) -> _Mean:
    made = _Mean(count=_finite(value["count"]), value=_finite(value["value"]))
    if not 0.0 <= made.count <= _MEMORY:
        raise ValueError(f"a count of {made.count}")
    return made


def _finite(value: object) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no number")
    return float(value)


def _bounded(value: float) -> float:
    return min(_BOUND, max(-_BOUND, value))
