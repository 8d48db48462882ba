"""The one place where a node's objects are put together: one module per role, imported by the nodes that have it."""

from __future__ import annotations

import asyncio
import logging
import signal
from contextlib import AsyncExitStack
from importlib import import_module

from plait.protocol.ids import to_hex
from plait_model.errors import ModelError
from plait_node.app.base import opened
from plait_node.config import NodeConfig
from plait_node.errors import StartError
from plait_node.swarm import SwarmError

__all__ = ["serve"]

_log = logging.getLogger(__name__)


def serve(config: NodeConfig) -> None:
    """Run a node's roles until SIGTERM or Ctrl-C; raise a `PlaitError` when it cannot start."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        asyncio.run(_serve(config))
    except (ModelError, SwarmError) as error:  # trees of their own, whose messages say what to do
        raise StartError(str(error)) from error


async def _serve(config: NodeConfig) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with AsyncExitStack() as stack:
        base = await stack.enter_async_context(opened(config))
        facts: dict[str, object] = {}
        for role in config.roles:
            wiring = import_module(f"plait_node.app.{role}")  # torch loads in stages alone
            facts |= await stack.enter_async_context(wiring.run(base, getattr(config, role)))
        base.home.mark_ready({"roles": list(config.roles), **facts})
        stack.callback(base.home.clear_ready)
        _log.info("node ready owner=%s roles=%s", to_hex(config.owner), ",".join(config.roles))
        await stopping.wait()
        _log.info("node stopping")
