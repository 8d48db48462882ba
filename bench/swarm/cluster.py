"""The leader of a three-server broker killed under a whole network: how soon its gateway takes jobs again.

The cluster of deploy/nats with TLS and a key a role, and the local network over it. A call comes every half second,
whatever became of those before; ten seconds on, the server that leads the stream of jobs gets SIGKILL, and it starts
again later. Times are the payers', over HTTP: from the kill to the first job that was taken of a call made after it.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Generator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from bench.swarm.callers import Callers, opened_callers, told
from bench.swarm.crowd import CrowdNetwork
from bench.swarm.figure import Bar, Found, Part, Setting
from bench.swarm.tally import Tally
from tests.node.broker.cluster import Cluster

from plait.protocol.ids import Address, Hash, hash32
from plait_node.broker.subjects import JOBS
from plait_node.home import Home
from plait_node.localnet import Child
from plait_node.selector.bench.settings import hardware_facts

__all__ = ["PART"]

_PAYERS, _EVERY_S, _TOKENS = 8, 0.5, 16
_KILL_AT_S, _BACK_AT_S, _SECONDS = 10.0, 30.0, 45.0
_STOP_S: Final = 20.0


@dataclass(kw_only=True)
class ClusterNetwork(CrowdNetwork):
    """A local network whose broker is a cluster; the single server that it starts as well stays idle."""

    cluster: Cluster | None = field(default=None)

    def start_node(self, name: str) -> Child | None:
        """Start a node; gateway and worker with a key for the cluster, which the first of them starts."""
        if name in ("worker", "gateway"):
            config = Home(self.folder / "nodes" / name).path / "node.toml"
            lines = config.read_text(encoding="utf-8").splitlines()
            if "[broker]" not in lines:
                kept = [line for line in lines if not line.startswith("broker = ")]
                place = kept.index("[dht]")
                kept[place:place] = self._section(name)
                config.write_text("\n".join(kept) + "\n", encoding="utf-8")
        return super().start_node(name)

    def _section(self, name: str) -> list[str]:
        self.cluster = self.cluster or self._started()
        access = self.cluster.worker_access(0) if name == "worker" else self.cluster.seed("gateway")
        values = {"url": self.cluster.url, "ca": str(access.ca), "nkey": str(access.nkey)}
        return ["[broker]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]

    def _started(self) -> Cluster:
        """Start the servers; nothing else runs before they are up."""
        gate, model = self.owners["gate"].key.address, hash32(self._shared.model)
        others = (Address(secrets.token_bytes(20)), Address(secrets.token_bytes(20)))
        cluster = Cluster(
            folder=self.folder / "cluster",
            gateway=gate,
            workers=(gate, *others),
            models=(model, Hash(secrets.token_bytes(32))),
        )
        cluster.start()
        return cluster

    async def stop(self) -> None:
        """End every process."""
        await super().stop()
        if self.cluster is not None:
            await asyncio.to_thread(self.cluster.stop)


async def _cluster(setting: Setting) -> Found:
    network = ClusterNetwork(
        folder=setting.folder / "network",
        hardware=await asyncio.to_thread(hardware_facts, "one-core", cores=2),
        say=lambda text: setting.say(f"    {text}"),
    )
    async with AsyncExitStack() as stack:
        stack.push_async_callback(network.stop)
        await network.start()
        callers = await stack.enter_async_context(opened_callers(network, setting.folder, _PAYERS))
        await callers.warm_up()
        if network.cluster is None:  # unreachable: gateway and worker have started
            raise AssertionError
        return await _measured(setting, callers, network.cluster)


async def _measured(setting: Setting, callers: Callers, cluster: Cluster) -> Found:
    tally, began = Tally(), time.monotonic()
    calling = asyncio.create_task(callers.arrive(_EVERY_S, _SECONDS, _TOKENS, tally))
    try:
        await asyncio.sleep(_KILL_AT_S)
        leader = await cluster.leader(JOBS.name)
        cluster.kill(leader)
        killed = time.monotonic()
        setting.say(f"  {leader} killed, {len(tally.answered)} jobs so far")
        await asyncio.sleep(_BACK_AT_S - _KILL_AT_S)
        with _server(cluster, leader):
            await calling
            accounts = await callers.accounts()
    finally:
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)
    return _found(tally, accounts, leader=leader, killed=killed, took=time.monotonic() - began)


@contextmanager
def _server(cluster: Cluster, name: str) -> Generator[None]:
    """Run a server that was killed again, for as long as the block lasts."""
    process = cluster.restart(name)
    try:
        yield
    finally:
        process.terminate()
        process.wait(_STOP_S)


def _found(tally: Tally, accounts: dict[str, Any], *, leader: str, killed: float, took: float) -> Found:
    taken = [post for post in tally.posts if post.status < 300]
    again = [post.ended - killed for post in taken if post.began > killed]
    gaps = [after.ended - before.ended for before, after in pairwise(sorted(taken, key=lambda post: post.ended))]
    return Found(
        ratios={
            "gateway_publishing_again_s": min(again, default=_SECONDS),
            "gateway_refused_wrongly": float(len(tally.broken) + len(tally.early)),
            "gateway_jobs_lost": float(sum(tally.failed.values())),
            "gateway_paid_wrongly": float(len(accounts["wrong"]) + accounts["answers_twice"]),
        },
        details={
            "killed": leader,
            "longest_gap_s": round(max(gaps, default=0.0), 2),
            **told(tally, took),
            "accounts": accounts,
        },
    )


PART: Final = Part(
    name="cluster",
    bars={
        "gateway_publishing_again_s": Bar(bound=8, at_most=True),
        "gateway_refused_wrongly": Bar(bound=0, at_most=True),
        "gateway_jobs_lost": Bar(bound=0, at_most=True),
        "gateway_paid_wrongly": Bar(bound=0, at_most=True),
    },
    measure=_cluster,
)
