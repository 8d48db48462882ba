"""Put a gateway together: HTTP face, relays, claims."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from plait.ledger import PayerBook, SharedBook
from plait.protocol.ids import Address
from plait_node.app.base import Base, background, clock, connected
from plait_node.chain_requests import OpenRequests
from plait_node.config import GatewayConfig
from plait_node.gateway import Gateway, Strangers, serve
from plait_node.settlement import Limits, Opener

_PATIENCE_S = 10.0  # how long a record may take through the DHT, and the chain may be away


@asynccontextmanager
async def run(base: Base, config: GatewayConfig) -> AsyncGenerator[dict[str, object]]:
    """Face the payers over HTTP, relay answers, claim what was earned."""
    claimer = base.claimer()
    opener = _opener(base, config, lambda payee: gateway.promised(payee))  # noqa: PLW0108  there is no gateway yet
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
            strangers=_strangers(base, config, opener),
        )
        claimer.owns = gateway.owns
        base.drain.add(close=gateway.close, busy=lambda: gateway.busy)
        listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        host, port = config.listen.host, config.listen.port

        def ready(port: int) -> None:
            gateway.reached_at(config.url or f"http://{host}:{port}")
            listening.set_result(port)

        serving = serve(gateway, host=host, port=port, ready=ready, per_host=config.connections_per_host)
        works = [serving, claimer.run()]
        if opener is not None:
            opener.on_funded = gateway.funded
            works.append(opener.run())
        async with gateway, background(*works):
            yield {"url": f"http://{host}:{await listening}"}


def _opener(base: Base, config: GatewayConfig, promised: Callable[[Address], int]) -> Opener | None:
    """Return what funds the channels to workers of other owners; None where only this owner's are quoted."""
    if not config.channel_deposit:
        return None
    limits = Limits(deposit=config.channel_deposit, most=config.channels_most, share=config.channel_top_up)
    return Opener(base.journal, base.writer, limits, promised=promised)


def _strangers(base: Base, config: GatewayConfig, opener: Opener | None) -> Strangers | None:
    """Return how workers of other owners serve here."""
    if opener is None:
        return None
    book = PayerBook(base.journal, base.domain, base.key)
    return Strangers(book=book, deposits=opener, workers=config.workers, most_share=config.most_share)
