"""Who serves which blocks: candidates from the chain, records from the DHT, nothing believed unchecked."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from plait.protocol.messages import RecordKind
from plait_node.swarm.errors import BadRecordError
from plait_node.swarm.records import NodeRecord, StoredRecord, check_record, node_record, salt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from plait.protocol.checks import NodeDirectory
    from plait.protocol.ids import Address, Hash
    from plait.protocol.typed import Domain
    from plait_node.swarm.dht import Dht, Peer

REFRESH_S = 15.0
_BLOCKS_A_TOPIC = 8
_AT_ONCE = 64
_MAX_STRANGERS = 10_000

_log = logging.getLogger(__name__)


class RegisteredNode(Protocol):
    """What `NodeRegistry` keeps of a node, as far as the swarm needs it."""

    @property
    def owner(self) -> Address:
        """The node's id."""
        ...

    @property
    def dht_key(self) -> bytes:
        """Ed25519 public key under which its records lie."""
        ...


class NodeSource(Protocol):
    """Where candidates and bootstrap peers come from."""

    async def stages(self) -> Sequence[RegisteredNode]:
        """Return the registered nodes with role stage."""
        ...

    async def node(self, owner: Address, /) -> RegisteredNode | None:
        """Return one registered node."""
        ...

    async def peers(self) -> Iterable[Peer]:
        """Return the DHT sockets that registered nodes name."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    records: dict[Address, NodeRecord]
    read_at: float


def block_topics(model: Hash, first: int, last: int) -> list[bytes]:
    """Return the 20-byte topics under which a server of blocks `[first, last)` announces its port."""
    groups = range(first // _BLOCKS_A_TOPIC, (last - 1) // _BLOCKS_A_TOPIC + 1)
    # SHA-1 is what BEP 5 names topics with; nothing rests on its strength.
    return [hashlib.sha1(model + group.to_bytes(2, "big"), usedforsecurity=False).digest() for group in groups]


class Directory:
    """The stages of the models it was asked about, read again every `REFRESH_S` seconds."""

    def __init__(
        self, *, dht: Dht, nodes: NodeSource, keys: NodeDirectory, domain: Domain, clock: Callable[[], float]
    ) -> None:
        """Read from `dht`, judge by `nodes` and `keys`."""
        self._dht = dht
        self._nodes = nodes
        self._keys = keys
        self._domain = domain
        self._clock = clock
        self._models: dict[Hash, _Known] = {}
        self._candidates: dict[Address, RegisteredNode] = {}
        self._strangers: set[Peer] = set()
        self._refused: dict[Address, str] = {}
        self._locks: dict[Hash, asyncio.Lock] = {}
        self.dropped: Counter[str] = Counter()

    async def stages(self, model: Hash) -> tuple[NodeRecord, ...]:
        """Return the live records of a model; only a call that would find none waits for the table."""
        known = self._models.get(model)
        if known is None or not self._live(known):
            known = await self.refresh(model)
        return self._live(known)

    def known(self, model: Hash) -> tuple[NodeRecord, ...]:
        """Return the live records as they were read last; none before the first time."""
        known = self._models.get(model)
        return self._live(known) if known is not None else ()

    def counted(self) -> Counter[str]:
        """Return what was dropped so far, by reason: records here, answers of the table's peers below."""
        return self.dropped + self._dht.dropped

    async def refresh(self, model: Hash) -> _Known:
        """Read the table again; calls that come meanwhile share the result."""
        asked_at = self._clock()
        async with self._locks.setdefault(model, asyncio.Lock()):
            known = self._models.get(model)
            if known is not None and known.read_at > asked_at:
                return known
            self._dht.add_peers(await self._nodes.peers())
            # A node that lost its stake leaves the chain's list, not the table: it is asked, refused and counted.
            self._candidates |= {node.owner: node for node in await self._nodes.stages()}
            gate = asyncio.Semaphore(_AT_ONCE)
            candidates = list(self._candidates.values())
            answers = await asyncio.gather(*(self._read(node, model, gate) for node in candidates))
            records = dict(known.records) if known is not None else {}
            for node, answer in zip(candidates, answers, strict=True):
                self._take(records, node.owner, answer)
            await self._count_strangers(model, records)
            self._models[model] = _Known(records=records, read_at=self._clock())
            return self._models[model]

    async def run(self, models: Iterable[Hash] = ()) -> None:
        """Refresh for ever; an error of chain or table is logged and tried again."""
        wanted = set(models)
        while True:
            for model in wanted | set(self._models):
                try:
                    await self.refresh(model)
                except Exception as error:  # noqa: BLE001  the loop must outlive an RPC outage of any kind
                    _log.warning("directory refresh failed model=0x%s error=%s", model.hex(), error)
            await asyncio.sleep(REFRESH_S)

    def _live(self, known: _Known) -> tuple[NodeRecord, ...]:
        now = self._clock()
        return tuple(record for record in known.records.values() if record.expires > now)

    async def _read(
        self, node: RegisteredNode, model: Hash, gate: asyncio.Semaphore
    ) -> NodeRecord | BadRecordError | None:
        async with gate:
            value = await self._dht.get(node.dht_key, salt(RecordKind.NODE, model))
        if value is None:
            return None
        try:
            stored = StoredRecord.unpack(value)
            await check_record(
                stored,
                domain=self._domain,
                keys=self._keys,
                kind=RecordKind.NODE,
                topic=model,
                node=node.owner,
                now=self._clock(),
            )
            return node_record(stored)
        except BadRecordError as error:
            return error

    def _take(
        self, records: dict[Address, NodeRecord], owner: Address, answer: NodeRecord | BadRecordError | None
    ) -> None:
        """Merge one answer. A record not found this time stays until it expires: one lost packet hides nobody."""
        known = records.get(owner)
        if isinstance(answer, BadRecordError):
            self._drop(owner, answer)
            records.pop(owner, None)
        elif answer is None:
            if known is not None and known.expires <= self._clock():
                del records[owner]
        elif known is not None and answer.sequence < known.sequence:
            self.dropped["stale"] += 1
        else:
            records[owner] = answer

    def _drop(self, owner: Address, error: BadRecordError) -> None:
        """Count a refused record once, however often the table still shows it."""
        if self._refused.get(owner) == str(error):
            return
        self._refused[owner] = str(error)
        self.dropped[error.reason] += 1
        _log.warning("record refused node=0x%s reason=%s detail=%s", owner.hex(), error.reason, error)

    async def _count_strangers(self, model: Hash, records: dict[Address, NodeRecord]) -> None:
        """Count ports announced for the model's blocks that no accepted record names; each once."""
        last = max((record.facts.last for record in records.values()), default=1)
        announced = await asyncio.gather(*(self._dht.providers(topic) for topic in block_topics(model, 0, last)))
        ports = {record.facts.port for record in records.values()}
        strangers = {peer for peers in announced for peer in peers if peer[1] not in ports} - self._strangers
        for host, port in strangers:
            self.dropped["unknown_announcer"] += 1
            _log.warning("announcer ignored reason=unknown_announcer host=%s port=%d", host, port)
        if len(self._strangers) < _MAX_STRANGERS:
            self._strangers |= strangers
