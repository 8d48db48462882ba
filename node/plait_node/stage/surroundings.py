"""What admission and all jobs of a stage share."""

from __future__ import annotations

from dataclasses import dataclass

from plait.protocol.checks import NodeDirectory
from plait.protocol.manifest import Profile
from plait.protocol.typed import Domain
from plait_node.engine.residents import Engine
from plait_node.engine.scheduler import Scheduler
from plait_node.stage.codecs import profile_of
from plait_node.stage.config import StageConfig
from plait_node.stage.facts import StageFacts
from plait_node.stage.kept import RowBudget
from plait_node.stage.prefix import PrefixStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all jobs of a stage share."""

    config: StageConfig
    engine: Engine  # for what it is; what it does goes through the scheduler
    scheduler: Scheduler
    prefixes: PrefixStore
    domain: Domain
    directory: NodeDirectory
    facts: StageFacts

    @classmethod
    def of(cls, config: StageConfig, engine: Engine, *, domain: Domain, directory: NodeDirectory) -> Surroundings:
        """Return them with a scheduler, caches and row budget of their own."""
        rows = RowBudget.of(engine, config)
        prefixes = PrefixStore.of(engine, config.profile, rows)
        scheduler = Scheduler(engine, decode_rows=config.decode_rows, pass_s=config.pass_s, on_evicted=prefixes.forget)
        return cls(
            config=config,
            engine=engine,
            scheduler=scheduler,
            prefixes=prefixes,
            domain=domain,
            directory=directory,
            facts=StageFacts(scheduler.load, rows, engine.evidence),
        )

    @property
    def profile(self) -> Profile:
        """Return the profile that is served."""
        return profile_of(self.engine.manifest, self.config.profile)
