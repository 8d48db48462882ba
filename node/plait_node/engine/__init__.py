"""Run a stage's blocks: `StageEngine`, what goes in and out, and what it raises."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plait_node.engine.errors import EngineError
    from plait_node.engine.faces import Rows, StepInput, StepOutput
    from plait_node.engine.lane import Lane
    from plait_node.engine.stage_engine import StageEngine

__all__ = ["EngineError", "Lane", "Rows", "StageEngine", "StepInput", "StepOutput"]


def __getattr__(name: str) -> object:
    """Load a module when a name of it is asked for: only `StageEngine` needs torch, and no worker does."""
    match name:
        case "EngineError":
            module = "errors"
        case "Lane":
            module = "lane"
        case "Rows" | "StepInput" | "StepOutput":
            module = "faces"
        case "StageEngine":
            module = "stage_engine"
        case _:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{module}"), name)
