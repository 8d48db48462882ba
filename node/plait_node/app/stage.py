"""Put a stage together: engine, links, announcements, claims."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial

from plait.protocol.ids import Hash
from plait.protocol.manifest import Manifest, Profile
from plait_node.app.base import Base, background
from plait_node.chain_requests import OpenRequests
from plait_node.config import StageConfig
from plait_node.engine import Lane, StageEngine
from plait_node.engine.errors import DeviceError
from plait_node.errors import ConfigError
from plait_node.stage import StageConfig as RoleConfig
from plait_node.stage import StageRole
from plait_node.swarm import NodeFacts
from plait_node.wire import Dialer, LinkServer, PeerIdentity

log = logging.getLogger(__name__)


@asynccontextmanager
async def run(base: Base, config: StageConfig) -> AsyncGenerator[dict[str, object]]:
    """Serve a range of blocks for as long as the block lasts."""
    engine = await asyncio.to_thread(_engine, base, config)
    profile = _profile(engine.manifest, config).profile_id
    certificate = base.home.certificate()
    identity = PeerIdentity(owner=base.config.owner, key=base.key, certificate=certificate, domain=base.domain)
    claimer = base.claimer()
    role = StageRole(
        RoleConfig(
            owner=base.config.owner,
            profile=profile,
            price=config.price,
            credit_windows=config.credit_windows,
            decode_rows=config.batch_rows,
            pass_s=config.step_seconds,
        ),
        engine,
        key=base.key,
        sign=partial(base.guard.sign, base.key),
        domain=base.domain,
        directory=base.keys,
        channels=base.reader,
        payees=base.payees(),
        dialer=Dialer(identity=identity, directory=base.keys),
        on_chain=OpenRequests(base.reader),
        on_payment=claimer.notify,
    )
    server = LinkServer(identity, base.keys, role.serve)
    port = await server.start(config.listen.host, config.listen.port)
    facts = _announced(role, config, profile=profile, port=port, certificate=certificate.fingerprint)
    try:
        async with background(role.run(), base.announcer().run(facts), claimer.run()):
            yield {"listen": f"{config.listen.host}:{port}"}
    finally:
        await role.stop()
        await server.stop()
        for path in await asyncio.to_thread(role.facts.write_evidence, base.home.path / "evidence"):
            log.warning("evidence written file=%s", path)


def _engine(base: Base, config: StageConfig) -> StageEngine:
    stored = base.store.open(config.model)
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
    """Return the profile that weights of this type are served, and judged, under; raise `ConfigError`."""
    found = next((profile for profile in manifest.profiles if profile.weights == config.weights), None)
    if found is None:
        served = ", ".join(f"{profile.name} ({profile.weights})" for profile in manifest.profiles)
        raise ConfigError(
            f'weights = "{config.weights}": no profile of this model judges answers as those of such weights; set '
            f"weights in [stage] to those of one of its profiles: {served}"
        )
    return found


def _announced(
    role: StageRole, config: StageConfig, *, profile: Hash, port: int, certificate: Hash
) -> Callable[[], NodeFacts]:
    def facts() -> NodeFacts:
        return NodeFacts(
            model=config.model,
            first=config.first,
            last=config.last,
            profile=profile,
            step_micros=role.facts.step_micros,
            free_steps=role.facts.free_steps,
            queue=role.facts.queue,
            price=config.price,
            host=config.listen.host,
            port=port,
            certificate=certificate,
        )

    return facts
