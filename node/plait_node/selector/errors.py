"""What the selector refuses.

SelectorError
├── HistoryError          the history cannot be read, or holds nothing to choose from
├── UnknownModelError     there is no such model to measure
├── UnknownSettingError   there is no such setting to measure
├── OverBudgetError       no way to run the task costs as little as its budget
├── UnknownTaskError      there is no kind of task of that name
├── NoTextError           a prompt to choose for holds no text
├── HardwareFileError     a file does not hold a machine's facts
├── PinError              what an operator pins is nothing that a worker chooses
└── ArtefactError         a trained predictor cannot be read, or is not what it should be
    └── SchemaError       it was trained on other features
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "ArtefactError",
    "HardwareFileError",
    "HistoryError",
    "NoTextError",
    "OverBudgetError",
    "PinError",
    "SchemaError",
    "SelectorError",
    "UnknownModelError",
    "UnknownSettingError",
    "UnknownTaskError",
]


class SelectorError(Exception):
    """Root of everything that the selector raises."""


class HistoryError(SelectorError):
    """The history cannot be used."""


class OverBudgetError(SelectorError):
    """No way to run the task costs as little as its budget; `cost` and `seconds` are those of the cheapest."""

    def __init__(self, budget: float, *, cost: float, seconds: float) -> None:
        super().__init__(
            f"the cheapest way to answer takes {seconds:.1f} s and costs {cost:.3g}, the budget is {budget:.3g}; "
            "ask for fewer tokens or raise the budget"
        )
        self.budget = budget
        self.cost = cost
        self.seconds = seconds


class UnknownModelError(SelectorError):
    """There is no such model to measure."""


class UnknownSettingError(SelectorError):
    """There is no such setting to measure."""


class UnknownTaskError(SelectorError):
    """There is no kind of task of that name."""

    def __init__(self, kind: str, *, known: Sequence[str]) -> None:
        super().__init__(f"{kind[:32]!r} is no kind of task; give one of {', '.join(known)}")
        self.kind = kind


class NoTextError(SelectorError):
    """A prompt to choose for holds no text."""


class HardwareFileError(SelectorError):
    """A file does not hold a machine's facts."""


class PinError(SelectorError):
    """What an operator pins is nothing that a worker chooses."""


class ArtefactError(SelectorError):
    """The trained predictor cannot be used."""


class SchemaError(ArtefactError):
    """The predictor was trained on other features."""
