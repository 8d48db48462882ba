"""The directory of stages over a table in memory, and once over real sessions."""

from __future__ import annotations

import asyncio
import os

from tests.node.swarm.chain import DOMAIN, MODEL, NOW, Chain, Node, facts

from plait.protocol.messages import RecordKind
from plait_node.swarm.announcer import Announcer
from plait_node.swarm.dht import DhtKey, LibtorrentDht, MemoryDht
from plait_node.swarm.directory import Directory
from plait_node.swarm.records import NODE_LIFE_S, salt


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


class Swarm:
    """Three staked stages, their announcers and a directory over one table."""

    def __init__(self) -> None:
        self.clock, self.dht, self.chain = Clock(), MemoryDht(), Chain(sockets=[("127.0.0.1", 4_000)])
        self.nodes = [self.chain.add(Node()) for _ in range(3)]
        self.directory = Directory(dht=self.dht, nodes=self.chain, keys=self.chain, domain=DOMAIN, clock=self.clock)

    def announcer(self, node: Node) -> Announcer:
        return Announcer(
            dht=self.dht, dht_key=node.secret, key=node.key, domain=DOMAIN, node=node.owner, clock=self.clock
        )

    async def announce_all(self) -> None:
        for index, node in enumerate(self.nodes):
            await self.announcer(node).announce(facts(10 * index, 10 * index + 10))

    async def owners(self) -> set[bytes]:
        return {record.owner for record in await self.directory.stages(MODEL)}


async def test_directory_first_call_finds_every_staked_stage() -> None:
    swarm = Swarm()
    await swarm.announce_all()
    found = await swarm.directory.stages(MODEL)
    assert {(r.owner, r.facts.first, r.facts.last) for r in found} == {
        (node.owner, 10 * n, 10 * n + 10) for n, node in enumerate(swarm.nodes)
    }
    assert swarm.dht.peers == {("127.0.0.1", 4_000)}
    assert not swarm.directory.dropped


async def test_directory_unregistered_announcer_is_ignored_and_counted_once() -> None:
    swarm = Swarm()
    await swarm.announce_all()
    await swarm.announcer(Node()).announce(facts(10, 20, port=6_666))
    for _ in range(3):
        await swarm.directory.refresh(MODEL)
    assert await swarm.owners() == {node.owner for node in swarm.nodes}
    assert swarm.directory.dropped == {"unknown_announcer": 1}


async def test_directory_node_that_lost_its_stake_is_dropped_and_counted() -> None:
    swarm = Swarm()
    await swarm.announce_all()
    assert len(await swarm.owners()) == 3
    swarm.chain.inactive.add(swarm.nodes[1].owner)
    await swarm.directory.refresh(MODEL)
    assert await swarm.owners() == {swarm.nodes[0].owner, swarm.nodes[2].owner}
    assert swarm.directory.dropped["not_active"] == 1


async def test_directory_record_expires_without_renewal_and_returns_with_it() -> None:
    swarm = Swarm()
    await swarm.announce_all()
    assert swarm.directory.known(MODEL) == ()  # read by nobody yet
    assert len(await swarm.owners()) == 3
    assert len(swarm.directory.known(MODEL)) == 3
    swarm.clock.now += NODE_LIFE_S + 1
    assert swarm.directory.known(MODEL) == ()
    await swarm.announcer(swarm.nodes[0]).announce(facts(0, 10))
    for _ in range(3):
        await swarm.directory.refresh(MODEL)
    assert await swarm.owners() == {swarm.nodes[0].owner}
    assert swarm.directory.dropped["expired"] == 2  # one for each record, not for each look at it


async def test_directory_lost_answer_keeps_the_record_until_it_expires() -> None:
    swarm = Swarm()
    await swarm.announce_all()
    await swarm.directory.refresh(MODEL)
    del swarm.dht.shelf[(swarm.nodes[2].dht_key, salt(RecordKind.NODE, MODEL))]
    await swarm.directory.refresh(MODEL)
    assert len(await swarm.owners()) == 3


async def test_directory_older_sequence_does_not_replace_a_newer() -> None:
    swarm = Swarm()
    name = (swarm.nodes[0].dht_key, salt(RecordKind.NODE, MODEL))
    await swarm.announce_all()
    old = swarm.dht.shelf[name]
    await swarm.announcer(swarm.nodes[0]).announce(facts(0, 10, queue=5))
    await swarm.directory.refresh(MODEL)
    swarm.dht.shelf[name] = old
    await swarm.directory.refresh(MODEL)
    newest = [r for r in await swarm.directory.stages(MODEL) if r.owner == swarm.nodes[0].owner]
    assert [r.facts.queue for r in newest] == [5]
    assert swarm.directory.dropped["stale"] == 1


async def test_directory_garbage_under_a_nodes_key_is_counted() -> None:
    swarm = Swarm()
    await swarm.announce_all()
    swarm.dht.shelf[(swarm.nodes[0].dht_key, salt(RecordKind.NODE, MODEL))] = b"\xff" * 40
    assert await swarm.owners() == {swarm.nodes[1].owner, swarm.nodes[2].owner}
    assert swarm.directory.dropped["malformed"] == 1


async def test_directory_over_real_sessions_sees_a_stage_that_joins_later() -> None:
    chain, clock = Chain(), Clock()
    nodes = [chain.add(Node(secret=DhtKey(os.urandom(32)))) for _ in range(3)]
    tables = [LibtorrentDht() for _ in range(4)]
    try:
        for table in tables:
            await table.start()
        chain.sockets = [("127.0.0.1", table.port) for table in tables]
        for table in tables:
            table.add_peers(await chain.peers())
        await asyncio.gather(*(table.joined() for table in tables))
        directory = Directory(dht=tables[3], nodes=chain, keys=chain, domain=DOMAIN, clock=clock)
        for index in range(3):
            node = nodes[index]
            announcer = Announcer(
                dht=tables[index], dht_key=node.secret, key=node.key, domain=DOMAIN, node=node.owner, clock=clock
            )
            await announcer.announce(facts(10 * index, 10 * index + 10))
            await directory.refresh(MODEL)
            assert len(await directory.stages(MODEL)) == index + 1
        assert not directory.dropped
    finally:
        await asyncio.gather(*(table.stop() for table in tables))
