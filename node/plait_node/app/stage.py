"""Put a stage together: engine, links, announcements, claims."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from plait.ledger import DebtBook
from plait.protocol.ids import Hash
from plait.protocol.manifest import Manifest, Profile
from plait_node.app.base import Base, background
from plait_node.app.door import Door, points_of
from plait_node.app.metrics import gauge, histogram
from plait_node.app.place import placed
from plait_node.app.weights import fetch_blocks, load_of, opened_model
from plait_node.chain_requests import OpenRequests
from plait_node.config import StageConfig
from plait_node.engine import Lane, StageEngine
from plait_node.engine.errors import DeviceError
from plait_node.errors import ConfigError
from plait_node.models import StoredModel
from plait_node.stage import StageConfig as RoleConfig
from plait_node.stage import StageRole
from plait_node.swarm import NodeFacts

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from plait_node.stage.facts import StageFacts

_MEET_S = 15.0

log = logging.getLogger(__name__)


@asynccontextmanager
async def run(base: Base, config: StageConfig) -> AsyncGenerator[dict[str, object]]:
    """Serve a range of blocks for as long as the block lasts."""
    stored = await opened_model(base, config.model)
    config = await _placed(base, config, stored)
    await fetch_blocks(base, stored, first=config.first, last=config.last)
    engine = await asyncio.to_thread(_engine, stored, config)
    profile = _profile(engine.manifest, config).profile_id
    door = Door(base, relay_mib=config.relay_mib)
    claimer = base.claimer()
    role = StageRole(
        _role_config(base, config, profile),
        engine,
        key=base.key,
        sign=partial(base.guard.sign, base.key),
        domain=base.domain,
        directory=base.keys,
        channels=base.reader,
        payees=base.payees(),
        debts=DebtBook(base.journal, "worker"),
        dialer=door.meeting,
        on_chain=OpenRequests(base.reader),
        on_payment=claimer.notify,
        ready=base.disk.check,
    )
    base.metrics.add(partial(_numbers, role.facts, time.monotonic()))
    facts = _announced(role, config, profile=profile, door=door)
    async with door.open(role.serve, config.listen, announce=config.announce, hidden=config.reach == "via"):
        try:
            base.drain.add(close=partial(_close, base, role, facts), busy=lambda: role.busy)
            announcing = _announcing(base, config, door, facts)
            async with background(role.run(), _keeping(base, config, door), announcing, claimer.run()):
                yield door.facts()
        finally:
            await role.stop()
            for path in await asyncio.to_thread(role.facts.write_evidence, base.home.path / "evidence"):
                log.warning("evidence written file=%s", path)


def _role_config(base: Base, config: StageConfig, profile: Hash) -> RoleConfig:
    return RoleConfig(
        owner=base.config.owner,
        profile=profile,
        price=config.price,
        credit_windows=config.credit_windows,
        worker_jobs=config.worker_jobs,
        payers=config.payers,
        workers=config.workers,
        decode_rows=config.batch_rows,
        pass_s=config.step_seconds,
        rows_bytes=config.rows_mib << 20,
    )


def _numbers(facts: StageFacts, since: float) -> Iterator[Metric]:
    yield gauge("plait_stage_open_jobs", "Jobs that are open.", facts.queue)
    yield gauge("plait_stage_free_steps", "Steps of room that a new job could have.", facts.free_steps)
    yield gauge("plait_stage_rows_bytes", "Memory reserved for rows that may be sent again.", facts.rows.used)
    yield gauge("plait_stage_rows_cached_bytes", "Memory of such rows that makes place for jobs.", facts.rows.cached)
    yield gauge("plait_stage_rows_limit_bytes", "Memory that there is for both: rows_mib.", facts.rows.most)
    yield gauge("plait_stage_serving_seconds", "For how long it has served.", time.monotonic() - since)
    yield histogram("plait_stage_pass_seconds", "Seconds that a pass was computed.", facts.load.pass_seconds)
    yield histogram("plait_stage_pass_rows", "Rows of a pass.", facts.load.pass_rows)


async def _close(base: Base, role: StageRole, facts: Callable[[], NodeFacts]) -> None:
    """Open no more jobs and announce a stage without room, for the minute that a record lives at most."""
    role.close()
    await base.announcer().announce(facts())


async def _placed(base: Base, config: StageConfig, stored: StoredModel) -> StageConfig:
    """Return the configuration with the blocks to serve, chosen where it does not name them."""
    if not config.blocks:
        return config
    profile = _profile(stored.manifest, config).profile_id
    return await placed(
        config,
        base.directory(),
        base.home.path / "blocks.json",
        owner=base.config.owner,
        blocks=stored.manifest.blocks,
        profile=profile,
        load=await asyncio.to_thread(load_of, stored),
    )


async def _keeping(base: Base, config: StageConfig, door: Door) -> None:
    """Keep links to meeting points where nobody can dial this stage."""
    if config.reach == "via":
        directory = base.directory()
        async with background(directory.run([config.model])):
            await door.meeting.keep(points_of(config, directory))


async def _announcing(base: Base, config: StageConfig, door: Door, facts: Callable[[], NodeFacts]) -> None:
    """Announce the stage; one that nobody can dial waits a while for its first meeting point."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_MEET_S):
            while config.reach == "via" and not door.meeting.kept:  # noqa: ASYNC110 -- looked at rarely, at start alone
                await asyncio.sleep(0.2)
    await base.announcer().run(facts)


def _engine(stored: StoredModel, config: StageConfig) -> StageEngine:
    _profile(stored.manifest, config)
    try:
        return StageEngine(
            stored.weights(),
            stored.manifest,
            first=config.first,
            last=config.last,
            kv_steps=config.kv_steps,
            prefix_steps=config.prefix_steps,
            tensors=stored.tensors,
            lane=Lane(device=config.device, weights=config.weights, threads=config.threads, compiled=config.compiled),
        )
    except DeviceError as error:
        raise ConfigError(f"[stage] {error}") from error


def _profile(manifest: Manifest, config: StageConfig) -> Profile:
    """Return the profile that blocks are served, and judged, under; raise `ConfigError`."""
    named = [each for each in manifest.profiles if config.profile in ("", each.name)]
    if not named:
        raise ConfigError(
            f'profile = "{config.profile}": the model was not published with it; set profile in [stage] to one of '
            f"{', '.join(each.name for each in manifest.profiles)}"
        )
    found = next((profile for profile in named if profile.weights == config.weights), None)
    if found is None:
        served = ", ".join(f"{profile.name} ({profile.weights})" for profile in named)
        raise ConfigError(
            f'weights = "{config.weights}": no profile of this model judges answers as those of such weights; set '
            f"weights in [stage] to those of one of its profiles: {served}"
        )
    return found


def _announced(role: StageRole, config: StageConfig, *, profile: Hash, door: Door) -> Callable[[], NodeFacts]:
    def facts() -> NodeFacts:
        at = door.at
        return NodeFacts(
            model=config.model,
            first=config.first,
            last=config.last,
            profile=profile,
            step_micros=role.facts.step_micros,
            free_steps=0 if role.closed else role.facts.free_steps,
            queue=role.facts.queue,
            price=config.price,
            host=at.host if at is not None else "",
            port=at.port if at is not None else 0,
            certificate=door.identity.certificate.fingerprint,
            via=() if at is not None else door.meeting.kept,
        )

    return facts
