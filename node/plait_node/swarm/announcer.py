"""Sign this node's records and put them into the DHT."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from plait.protocol.ids import keccak
from plait.protocol.messages import Job, Receipt, Record, RecordKind
from plait_node.swarm.dht import VALUE_LIMIT
from plait_node.swarm.directory import block_topics
from plait_node.swarm.records import (
    NODE_LIFE_S,
    NodeFacts,
    NodeRecord,
    StoredRecord,
    deposit_body,
    node_body,
    node_record,
    salt,
    sign_record,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from plait.protocol.ids import Address, Hash
    from plait.protocol.typed import Domain, Key, Signed
    from plait_node.swarm.dht import Dht, DhtKey

ANNOUNCE_S = 15.0
# Tag and length before a body of up to 16 KiB, and the growth of the enclosing lengths.
_BODY_HEAD = 4

_log = logging.getLogger(__name__)


class Announcer:
    """Puts records for one node, under rising sequence numbers."""

    def __init__(
        self,
        *,
        dht: Dht,
        dht_key: DhtKey,
        key: Key,
        domain: Domain,
        node: Address,
        clock: Callable[[], float],
    ) -> None:
        """Announce for `node` with its service key and its DHT key."""
        self._dht = dht
        self._dht_key = dht_key
        self._key = key
        self._domain = domain
        self._node = node
        self._clock = clock
        self._sequence = 0

    async def announce(self, facts: NodeFacts) -> NodeRecord:
        """Put a node record that lives for `NODE_LIFE_S` seconds, and announce its port, if any, for its blocks."""
        stored = self._sign(RecordKind.NODE, facts.model, int(self._clock()) + NODE_LIFE_S, node_body(facts))
        await self._dht.put(self._dht_key, salt(RecordKind.NODE, facts.model), stored.pack())
        for topic in block_topics(facts.model, facts.first, facts.last) if facts.port else ():
            self._dht.announce(topic, facts.port)
        return node_record(stored)

    async def run(self, facts: Callable[[], NodeFacts]) -> None:
        """Announce what `facts` says every `ANNOUNCE_S` seconds, for ever."""
        while True:
            try:
                await self.announce(facts())
            except Exception as error:  # an announcement that fails must not end the ones after it  # noqa: BLE001
                _log.warning("announcement failed error=%s", error)
            await asyncio.sleep(ANNOUNCE_S)

    async def deposit(self, signed: Signed[Job] | Signed[Receipt], *, deadline_s: float = 3.0) -> None:
        """Put a job or a receipt under its request, until its `closes_at`; too large a one as digest and signature."""
        message = signed.message
        kind = RecordKind.JOB if isinstance(message, Job) else RecordKind.RECEIPT
        head = len(self._sign(kind, message.request, message.closes_at, b"").pack()) + _BODY_HEAD
        body = deposit_body(self._domain, signed, room=VALUE_LIMIT - head)
        stored = self._sign(kind, message.request, message.closes_at, body)
        await self._dht.put(self._dht_key, salt(kind, message.request), stored.pack(), deadline_s=deadline_s)

    def _sign(self, kind: int, topic: Hash, expires: int, body: bytes) -> StoredRecord:
        # Milliseconds keep the sequence rising over restarts without a file.
        self._sequence = max(self._sequence + 1, int(self._clock() * 1_000))
        record = Record(
            kind=kind, topic=topic, node=self._node, sequence=self._sequence, expires=expires, body=keccak(body)
        )
        return sign_record(self._key, self._domain, record, body)
