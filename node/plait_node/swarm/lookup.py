"""Find a worker's job or receipt in the DHT by its request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plait.protocol.messages import RecordKind
from plait_node.swarm.errors import BadRecordError
from plait_node.swarm.records import Deposit, StoredRecord, check_record, read_deposit, salt

if TYPE_CHECKING:
    from collections.abc import Callable

    from plait.protocol.checks import NodeDirectory
    from plait.protocol.ids import Address, Hash
    from plait.protocol.typed import Domain
    from plait_node.swarm.dht import Dht
    from plait_node.swarm.directory import NodeSource

# Request.deadline lies at most 3,600 s ahead, closesAt 1,800 s after it.
DEPOSIT_LIFE_S = 5_400.0


class Lookup:
    """Reads what workers stored under their requests."""

    def __init__(
        self, *, dht: Dht, nodes: NodeSource, keys: NodeDirectory, domain: Domain, clock: Callable[[], float]
    ) -> None:
        """Read from `dht`, judge by `nodes` and `keys`."""
        self._dht = dht
        self._nodes = nodes
        self._keys = keys
        self._domain = domain
        self._clock = clock

    async def job(self, request: Hash, worker: Address, *, deadline_s: float = 2.0) -> Deposit | None:
        """Return the worker's newest job for a request; None when none was found; raise `BadRecordError`."""
        return await self._find(RecordKind.JOB, request, worker, deadline_s)

    async def receipt(self, request: Hash, worker: Address, *, deadline_s: float = 2.0) -> Deposit | None:
        """Return the worker's receipt for a request; None when none was found; raise `BadRecordError`.

        The record's signature is checked here; the receipt's own is the caller's to check.
        """
        return await self._find(RecordKind.RECEIPT, request, worker, deadline_s)

    async def _find(self, kind: int, request: Hash, worker: Address, deadline_s: float) -> Deposit | None:
        node = await self._nodes.node(worker)
        if node is None:
            raise BadRecordError("not_active", f"0x{worker.hex()} is no registered node")
        value = await self._dht.get(node.dht_key, salt(kind, request), deadline_s=deadline_s)
        if value is None:
            return None
        stored = StoredRecord.unpack(value)
        await check_record(
            stored,
            domain=self._domain,
            keys=self._keys,
            kind=kind,
            topic=request,
            node=worker,
            now=self._clock(),
            life_s=DEPOSIT_LIFE_S,
        )
        return read_deposit(self._domain, kind, stored)
