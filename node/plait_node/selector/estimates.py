"""What a predictor is asked, and what becomes of its word: scaled, corrected, compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from plait_node.selector.facts import Candidate, HardwareFacts, ModelFacts, TaskFacts

__all__ = ["Estimate", "Predicted", "Predicts"]


class Predicted(Protocol):
    """What a predictor says of one candidate, in seconds; an interval, and whether it was measured thereabouts."""

    @property
    def candidate(self) -> Candidate:
        """Return what it is said of."""
        ...

    @property
    def seconds(self) -> float:
        """Return the time until the last token."""
        ...

    @property
    def seconds_low(self) -> float:
        """Return the interval's lower end."""
        ...

    @property
    def seconds_high(self) -> float:
        """Return the interval's upper end."""
        ...

    @property
    def ttft_s(self) -> float:
        """Return the time until the first token."""
        ...

    @property
    def tpot_s(self) -> float:
        """Return the time of each further token."""
        ...

    @property
    def inside(self) -> bool:
        """Tell whether it was asked for what lies inside the measured range."""
        ...


class Predicts(Protocol):
    """The part of a predictor that a choice needs."""

    def predict(
        self, task: TaskFacts, model: ModelFacts, hardware: HardwareFacts, candidates: Sequence[Candidate], /
    ) -> Sequence[Predicted]:
        """Return one forecast for each candidate, in their order; raise `SelectorError`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Expected seconds: in all with an interval, until the first token, and for each further one."""

    seconds: float
    low: float
    high: float
    ttft_s: float
    tpot_s: float
    inside: bool

    @classmethod
    def of(cls, forecast: Predicted) -> Estimate:
        """Take a predictor's word."""
        return cls(
            seconds=forecast.seconds,
            low=forecast.seconds_low,
            high=forecast.seconds_high,
            ttft_s=forecast.ttft_s,
            tpot_s=forecast.tpot_s,
            inside=forecast.inside,
        )

    def times(self, factor: float) -> Estimate:
        """Return the same with every time multiplied."""
        return replace(
            self,
            seconds=self.seconds * factor,
            low=self.low * factor,
            high=self.high * factor,
            ttft_s=self.ttft_s * factor,
            tpot_s=self.tpot_s * factor,
        )

    def seconds_of(self, tokens: int, *, asked: int) -> float:
        """Return the time until the last of so many tokens, where `seconds` is that of the tokens asked for."""
        whole = self.ttft_s + (asked - 1) * self.tpot_s
        return self.seconds * (self.ttft_s + (tokens - 1) * self.tpot_s) / whole if whole > 0 else self.seconds

    def cost(self, price_per_hour: float) -> float:
        """Return what machines of this price, all together, cost for so long, in the price's currency."""
        return self.seconds * price_per_hour / 3_600
