"""Choose route and methods for each job, from a measured history and from what this node sees itself."""

from __future__ import annotations

from plait_node.selector.combinations import CHUNKED_PREFILL, PREFIX_CACHE, PROMPT_LOOKUP
from plait_node.selector.errors import OverBudgetError, SelectorError
from plait_node.selector.experience import Ran
from plait_node.selector.live import LiveSelector, Refit, Trained
from plait_node.selector.observe import Way, model_facts, task_facts
from plait_node.selector.policy import Asked, Choice, Options, Policy, Trial

__all__ = [
    "CHUNKED_PREFILL",
    "PREFIX_CACHE",
    "PROMPT_LOOKUP",
    "Asked",
    "Choice",
    "LiveSelector",
    "Options",
    "OverBudgetError",
    "Policy",
    "Ran",
    "Refit",
    "SelectorError",
    "Trained",
    "Trial",
    "Way",
    "model_facts",
    "task_facts",
]
