"""The one place where a node's objects are put together: one module per role, imported by the nodes that have it."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack, suppress
from importlib import import_module

from plait.protocol.ids import to_hex
from plait_model.errors import ModelError
from plait_node.app.base import background, opened
from plait_node.app.drain import Stopping
from plait_node.app.weights import giving
from plait_node.config import NodeConfig
from plait_node.errors import StartError
from plait_node.home import Home
from plait_node.running import Mark, held
from plait_node.swarm import SwarmError

__all__ = ["serve"]

_log = logging.getLogger(__name__)


def serve(config: NodeConfig) -> None:
    """Run a node's roles until SIGTERM or Ctrl-C, then finish their jobs; raise a `PlaitError` if it cannot start.

    A second signal, or one before the node is ready, ends it at once.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        with suppress(asyncio.CancelledError):
            asyncio.run(_serve(config))
    except (ModelError, SwarmError) as error:  # trees of their own, whose messages say what to do
        raise StartError(str(error)) from error


async def _serve(config: NodeConfig) -> None:
    serving = asyncio.current_task()
    if serving is None:  # unreachable: a coroutine runs in a task
        raise AssertionError
    stopping = Stopping(serving)
    stopping.listen()
    with held(Home(config.home).lock_file) as mark:
        done = await _until_stopped(config, stopping, mark)
        mark.say("ended", jobs_left=not done)


async def _until_stopped(config: NodeConfig, stopping: Stopping, mark: Mark) -> bool:
    """Serve until told to stop, then drain; tell whether no job was left."""
    async with AsyncExitStack() as stack:
        base = await stack.enter_async_context(opened(config))
        await stack.enter_async_context(background(base.metrics.run(base.home.metrics_file)))
        facts: dict[str, object] = {}
        for role in config.roles:
            wiring = import_module(f"plait_node.app.{role}")  # torch loads in stages alone
            facts |= await stack.enter_async_context(wiring.run(base, getattr(config, role)))
        facts |= await stack.enter_async_context(giving(base))
        base.home.mark_ready({"roles": list(config.roles), **facts})
        stack.callback(base.home.clear_ready)
        stopping.ready()
        mark.say("serving")
        _log.info("node ready owner=%s roles=%s", to_hex(config.owner), ",".join(config.roles))
        await stopping.asked()
        mark.say("draining")
        base.home.clear_ready()
        _log.info("node drains limit_s=%g", config.drain_s)
        done = await base.drain.run(config.drain_s)
        _log.info("node stopping jobs_left=%s", "no" if done else "yes")
    return done
