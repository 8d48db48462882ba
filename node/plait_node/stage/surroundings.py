"""What admission and all jobs of a stage share."""

from __future__ import annotations

from dataclasses import dataclass

from plait.protocol.checks import NodeDirectory
from plait.protocol.typed import Domain
from plait_node.stage.config import Engine, StageConfig
from plait_node.stage.engine_thread import EngineThread
from plait_node.stage.facts import StageFacts
from plait_node.stage.prefix import PrefixStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all jobs of a stage share."""

    config: StageConfig
    engine: Engine
    thread: EngineThread
    prefixes: PrefixStore
    domain: Domain
    directory: NodeDirectory
    facts: StageFacts
