"""Serve a range of a model's blocks to workers and neighbouring stages."""

from __future__ import annotations

from plait_node.stage.config import StageConfig
from plait_node.stage.errors import StageError
from plait_node.stage.facts import StageFacts
from plait_node.stage.role import StageRole

__all__ = ["StageConfig", "StageError", "StageFacts", "StageRole"]
