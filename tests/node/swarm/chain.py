"""A registry in memory: the same questions that the chain answers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from plait.protocol.ids import Address, Hash, address
from plait.protocol.typed import Domain, Key
from plait_node.swarm.dht import DhtKey, Peer
from plait_node.swarm.records import NodeFacts

DOMAIN = Domain(chain_id=31_337, channels=address(b"\x11" * 20))
MODEL = Hash(b"\x22" * 32)
PROFILE = Hash(b"\x33" * 32)
NOW = 1_700_000_000.0


@dataclass(slots=True, kw_only=True)
class KeyEntry:
    owner: Address
    valid_from: int = 0
    revoked_at: int = 0


@dataclass(slots=True, kw_only=True)
class Node:
    """One node: registered, staked, with its keys."""

    owner: Address = field(default_factory=lambda: address(os.urandom(20)))
    key: Key = field(default_factory=Key.generate)
    secret: DhtKey = field(default_factory=lambda: DhtKey(os.urandom(32)))

    @property
    def dht_key(self) -> bytes:
        return self.secret.public


@dataclass(slots=True, kw_only=True)
class Chain:
    """Implements `NodeDirectory` and `NodeSource`."""

    registered: list[Node] = field(default_factory=list)
    keys: dict[Address, KeyEntry] = field(default_factory=dict)
    inactive: set[Address] = field(default_factory=set)
    sockets: list[Peer] = field(default_factory=list)

    def add(self, node: Node) -> Node:
        self.registered.append(node)
        self.keys[node.key.address] = KeyEntry(owner=node.owner)
        return node

    async def service_key(self, key: Address, /) -> KeyEntry | None:
        return self.keys.get(key)

    async def active(self, owner: Address, /) -> bool:
        return owner not in self.inactive and any(node.owner == owner for node in self.registered)

    async def stages(self) -> Sequence[Node]:
        return [node for node in self.registered if node.owner not in self.inactive]

    async def node(self, owner: Address, /) -> Node | None:
        return next((node for node in self.registered if node.owner == owner), None)

    async def peers(self) -> Iterable[Peer]:
        return self.sockets


def facts(first: int, last: int, **changes: object) -> NodeFacts:
    values: dict[str, object] = {
        "model": MODEL,
        "first": first,
        "last": last,
        "profile": PROFILE,
        "step_micros": 10_000,
        "free_steps": 4_096,
        "queue": 0,
        "price": 60_000,
        "host": "127.0.0.1",
        "port": 9_000 + first,
        "certificate": Hash(b"\x44" * 32),
    }
    return NodeFacts(**(values | changes))  # type: ignore[arg-type]
