"""What the selector refuses.

SelectorError
├── HistoryError          the history cannot be read, or holds nothing to choose from
├── NoMethodError         nothing that is allowed can serve the task
└── PipelineError         a process of the measured pipeline failed or went silent
"""

from __future__ import annotations

__all__ = ["HistoryError", "NoMethodError", "PipelineError", "SelectorError"]


class SelectorError(Exception):
    """Root of everything that the selector raises."""


class HistoryError(SelectorError):
    """The history cannot be used."""


class NoMethodError(SelectorError):
    """No allowed method fits the task."""


class PipelineError(SelectorError):
    """The measured pipeline failed."""
