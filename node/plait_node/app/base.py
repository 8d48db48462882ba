"""What every role stands on: the chain, the journal, the keys, the DHT. Opened together, closed together."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

from plait.chain.deployments import Deployment
from plait.chain.directory import CachedDirectory
from plait.chain.reader import ChainReader
from plait.chain.writer import ChainWriter
from plait.ledger.guard import SigningGuard
from plait.ledger.journal import Journal
from plait.ledger.payee import PayeeBook
from plait.protocol.ids import to_hex
from plait.protocol.typed import Domain, Key
from plait_node.app.drain import Drain
from plait_node.app.metrics import NodeMetrics
from plait_node.broker import BrokerAccess, NatsBroker
from plait_node.chain_nodes import ChainNodes
from plait_node.config import NodeConfig
from plait_node.disk import Disk
from plait_node.errors import ConfigError
from plait_node.home import Home
from plait_node.models import ModelStore
from plait_node.settlement import Claimer
from plait_node.swarm import Announcer, DhtKey, Directory, LibtorrentDht, Lookup

clock = time.time
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """The parts that roles share. Nothing here is of one role alone."""

    config: NodeConfig
    home: Home
    key: Key
    domain: Domain
    reader: ChainReader
    writer: ChainWriter  # the only one of the service key, which pays for gas
    keys: CachedDirectory
    nodes: ChainNodes
    journal: Journal
    guard: SigningGuard
    dht: LibtorrentDht
    disk: Disk
    drain: Drain = field(default_factory=Drain)
    metrics: NodeMetrics = field(default_factory=NodeMetrics)

    @property
    def store(self) -> ModelStore:
        """The folder of published models."""
        return ModelStore(self.config.models)

    def payees(self) -> PayeeBook:
        """Return the book of what this node is paid."""
        return PayeeBook(self.journal, self.domain, self.config.owner)

    def claimer(self) -> Claimer:
        """Return what takes vouchers to the chain."""
        least = self.config.claim_at
        policy = "threshold" if least else "after-each-job"
        return Claimer(self.journal, self.writer, self.config.owner, policy=policy, threshold=least)

    def announcer(self) -> Announcer:
        """Return what puts this node's records into the DHT."""
        return Announcer(
            dht=self.dht,
            dht_key=DhtKey(self.home.dht_seed()),
            key=self.key,
            domain=self.domain,
            node=self.config.owner,
            clock=clock,
        )

    def lookup(self) -> Lookup:
        """Return a reader of jobs and receipts in the DHT."""
        return Lookup(dht=self.dht, nodes=self.nodes, keys=self.keys, domain=self.domain, clock=clock)

    def directory(self) -> Directory:
        """Return a directory of stages over this node's DHT."""
        return Directory(dht=self.dht, nodes=self.nodes, keys=self.keys, domain=self.domain, clock=clock)


@asynccontextmanager
async def opened(config: NodeConfig) -> AsyncGenerator[Base]:
    """Open the parts; raise a `PlaitError` that says what to mend when one cannot be had."""
    home = Home(config.home)
    key = home.service_key()
    async with await ChainReader.connect(config.rpc, Deployment.load(config.deployment)) as reader:
        await _check_key(reader, config, key)
        nodes = ChainNodes(reader)
        with Journal(home.journal_file) as journal:
            journal.bind(reader.deployment.identity)
            listen = config.dht.listen
            dht = LibtorrentDht(host=listen.host, port=listen.port, peers=await nodes.peers())
            await dht.start()
            try:
                yield Base(
                    config=config,
                    home=home,
                    key=key,
                    domain=reader.deployment.domain,
                    reader=reader,
                    writer=ChainWriter(reader, key),
                    keys=CachedDirectory(reader),
                    nodes=nodes,
                    journal=journal,
                    guard=SigningGuard(journal, reader.deployment.domain),
                    dht=dht,
                    disk=Disk(home.path, least=config.disk_free_mib << 20),
                )
            finally:
                await dht.stop()


async def _check_key(reader: ChainReader, config: NodeConfig, key: Key) -> None:
    known = await reader.service_key(key.address)
    if known is None or known.owner != config.owner or known.revoked_at:
        raise ConfigError(
            f"service key {to_hex(key.address)} does not belong to {to_hex(config.owner)} on chain: `plait node stake` "
            "binds it, or mend `owner` in the configuration"
        )
    if not await reader.active(config.owner):
        raise ConfigError(f"{to_hex(config.owner)} is not staked or is jailed: `plait node status` shows its stake")


@asynccontextmanager
async def background(*works: Coroutine[None, None, None]) -> AsyncGenerator[None]:
    """Run coroutines beside the block and cancel them after it; the first that fails ends the block with its error."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_logged(work)) for work in works]
            yield
            for task in tasks:
                task.cancel()
    except BaseExceptionGroup as errors:
        raise _first(errors) from None


async def _logged(work: Coroutine[None, None, None]) -> None:
    try:
        await work
    except Exception as error:
        _log.error("background work failed work=%s error=%r", work, error)
        raise


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return error


@asynccontextmanager
async def connected(config: NodeConfig, name: str) -> AsyncGenerator[NatsBroker]:
    """Connect to the broker for as long as the block lasts."""
    where = config.broker
    if where is None:  # unreachable: who asks has a role that needs one, and the configuration was checked for it
        raise ConfigError('this role needs broker = "nats://host:port"')
    access = BrokerAccess(ca=where.ca, nkey=where.nkey)
    broker = await NatsBroker.connect(where.url, name=name, access=access)
    try:
        yield broker
    finally:
        await broker.close()
