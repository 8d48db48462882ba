"""Choose an acceleration method for each task from a measured history."""

from __future__ import annotations

from plait_node.selector.errors import SelectorError
from plait_node.selector.history import METHODS, History, Measurement, Method
from plait_node.selector.selector import Choice, Prediction, Selector, TaskFeatures

__all__ = [
    "METHODS",
    "Choice",
    "History",
    "Measurement",
    "Method",
    "Prediction",
    "Selector",
    "SelectorError",
    "TaskFeatures",
]
