"""Put a gateway together: HTTP face, relays, claims."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from plait.ledger import SharedBook
from plait_node.app.base import Base, background, clock, connected
from plait_node.chain_requests import OpenRequests
from plait_node.config import GatewayConfig
from plait_node.gateway import Gateway, serve

_PATIENCE_S = 10.0  # how long a record may take through the DHT, and the chain may be away


@asynccontextmanager
async def run(base: Base, config: GatewayConfig) -> AsyncGenerator[dict[str, object]]:
    """Face the payers over HTTP, relay answers, claim what was earned."""
    claimer = base.claimer()
    async with connected(base.config, "plait-gateway") as broker:
        gateway = Gateway(
            owner=base.config.owner,
            key=base.key,
            domain=base.domain,
            book=SharedBook(base.journal, base.domain, base.config.owner),
            store=base.home.path / "gateway.sqlite",
            broker=broker,
            directory=base.keys,
            chain=base.reader,
            on_chain=OpenRequests(base.reader),
            lookup=base.lookup(),
            models=base.store.folder,
            notify=claimer.notify,
            patience_s=_PATIENCE_S,
            clock=clock,
            payers=config.payers,
            serves=config.serves,
            ready=base.disk.check,
        )
        claimer.owns = gateway.owns
        base.drain.add(close=gateway.close, busy=lambda: gateway.busy)
        listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        host, port = config.listen.host, config.listen.port

        def ready(port: int) -> None:
            gateway.reached_at(config.url or f"http://{host}:{port}")
            listening.set_result(port)

        async with gateway, background(serve(gateway, host=host, port=port, ready=ready), claimer.run()):
            yield {"url": f"http://{host}:{await listening}"}
