"""Run a stage's blocks: `StageEngine` and what it raises."""

from __future__ import annotations

from plait_node.engine.errors import EngineError
from plait_node.engine.stage_engine import StageEngine, StepOutput

__all__ = ["EngineError", "StageEngine", "StepOutput"]
