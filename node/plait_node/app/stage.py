"""Put a stage together: engine, links, announcements, claims."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

from plait_node.app.base import Base, background
from plait_node.config import StageConfig
from plait_node.engine import StageEngine
from plait_node.stage import StageConfig as RoleConfig
from plait_node.stage import StageRole
from plait_node.stage.onchain import OpenRequests
from plait_node.swarm import NodeFacts
from plait_node.wire import Dialer, LinkServer, PeerIdentity


@asynccontextmanager
async def run(base: Base, config: StageConfig) -> AsyncGenerator[dict[str, object]]:
    """Serve a range of blocks for as long as the block lasts."""
    stored = base.store.open(config.model)
    engine = await asyncio.to_thread(
        StageEngine,
        stored.weights(),
        stored.manifest,
        first=config.first,
        last=config.last,
        kv_steps=config.kv_steps,
        prefix_steps=config.prefix_steps,
        tensors=stored.tensors,
        threads=config.threads,
    )
    certificate = base.home.certificate()
    identity = PeerIdentity(owner=base.config.owner, key=base.key, certificate=certificate, domain=base.domain)
    profile = stored.manifest.profiles[0].profile_id
    claimer = base.claimer()
    role = StageRole(
        RoleConfig(owner=base.config.owner, profile=profile, price=config.price, credit_windows=config.credit_windows),
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

    def announced() -> NodeFacts:
        facts = role.facts
        return NodeFacts(
            model=config.model,
            first=config.first,
            last=config.last,
            profile=profile,
            step_micros=facts.step_micros,
            free_steps=facts.free_steps,
            queue=facts.queue,
            price=config.price,
            host=config.listen.host,
            port=port,
            certificate=certificate.fingerprint,
        )

    announcer = base.announcer()
    try:
        async with background(role.run(), announcer.run(announced), claimer.run()):
            yield {"listen": f"{config.listen.host}:{port}"}
    finally:
        await role.stop()
        await server.stop()
