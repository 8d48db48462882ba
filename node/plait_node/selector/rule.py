"""The rule of a choice, whatever is chosen between: limits first, then the soonest, the default where it is unsure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeVar

from plait_node.selector.errors import OverBudgetError
from plait_node.selector.estimates import Estimate

__all__ = ["OUTSIDE", "Limits", "Option", "pick"]

OUTSIDE: Final = "the task, the model or the machine lies outside what was measured"


class Option(Protocol):
    """One of those that are chosen between."""

    @property
    def title(self) -> str:
        """Return what people call it."""
        ...

    @property
    def estimate(self) -> Estimate:
        """Return what it should take."""
        ...

    @property
    def cost(self) -> float:
        """Return what the machines should cost meanwhile, in the budget's currency."""
        ...

    @property
    def order(self) -> tuple[float, ...]:
        """Return what is compared: the smallest is the best."""
        ...


OptionT = TypeVar("OptionT", bound=Option)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a job may take and cost, and what becomes of one that nothing meets the budget of."""

    seconds: float = math.inf
    budget: float | None = None
    over_budget: Literal["offer", "refuse"] = "offer"

    def timely(self, option: Option) -> bool:
        """Tell whether it should be complete in time."""
        return option.estimate.seconds <= self.seconds

    def affordable(self, option: Option) -> bool:
        """Tell whether it should cost no more than the budget."""
        return self.budget is None or option.cost <= self.budget

    def met_by(self, options: Sequence[OptionT]) -> list[OptionT]:
        """Return those that should keep both."""
        return [each for each in options if self.timely(each) and self.affordable(each)]

    def least_bad(self, options: Sequence[OptionT]) -> tuple[OptionT, str]:
        """Return which of those that do not keep both comes nearest, and why it is taken; raise `OverBudgetError`."""
        timely = [each for each in options if self.timely(each)]
        affordable = [each for each in options if self.affordable(each)]
        if affordable and not timely:
            why = f"nothing is expected within the {self.seconds:.1f} s left: the soonest"
            return min(affordable, key=_order), why
        budget = self.budget or 0.0
        cheapest = min(timely or options, key=lambda each: (each.cost, each.order))
        if self.over_budget == "refuse":
            raise OverBudgetError(budget, cost=cheapest.cost, seconds=cheapest.estimate.seconds)
        return cheapest, f"nothing costs at most the budget of {budget:.3g}: the cheapest, at {cheapest.cost:.3g}"


def pick(
    options: Sequence[OptionT],
    limits: Limits,
    *,
    usual: Callable[[OptionT], OptionT | None],
    least_gain: float,
    outside: str = OUTSIDE,
) -> tuple[OptionT, str]:
    """Return the choice, and why where it is not simply the best; raise `OverBudgetError`.

    `usual` gives the measured default beside the best one, None where there is none. It is taken where the best should
    save less than `least_gain` of its time, or where one of them lies `outside`, said in these words. Their intervals
    say nothing of their order: what both are off by is mostly the same.
    """
    fit = limits.met_by(options)
    if not fit:
        return limits.least_bad(options)
    best = min([each for each in fit if each.estimate.inside] or fit, key=_order)
    default = usual(best)
    if default is None or all(each is not default for each in fit):
        default = best
    if not (best.estimate.inside and default.estimate.inside):
        return default, f"the default, because {outside}"
    gain = 1 - best.estimate.seconds / default.estimate.seconds
    if best is default or gain >= least_gain:
        return best, ""
    return default, f"the default, because {best.title} should save less than {least_gain:.0%} of its time"


def _order(option: Option) -> tuple[float, ...]:
    return option.order
