"""Know who serves which block: signed records in a DHT, routes."""

from __future__ import annotations

from plait_node.swarm.announcer import Announcer
from plait_node.swarm.dht import Dht, DhtKey, LibtorrentDht, MemoryDht
from plait_node.swarm.directory import Directory, NodeSource, RegisteredNode
from plait_node.swarm.errors import (
    BadRecordError,
    DhtError,
    DhtPortInUseError,
    DhtStoppedError,
    DhtTimeoutError,
    NoRouteError,
    SwarmError,
    ValueTooLargeError,
)
from plait_node.swarm.lookup import Lookup
from plait_node.swarm.records import Deposit, NodeFacts, NodeRecord, StoredRecord, check_record, node_record
from plait_node.swarm.route import Blames, Needs, Route, plan, room_of

__all__ = [
    "Announcer",
    "BadRecordError",
    "Blames",
    "Deposit",
    "Dht",
    "DhtError",
    "DhtKey",
    "DhtPortInUseError",
    "DhtStoppedError",
    "DhtTimeoutError",
    "Directory",
    "LibtorrentDht",
    "Lookup",
    "MemoryDht",
    "Needs",
    "NoRouteError",
    "NodeFacts",
    "NodeRecord",
    "NodeSource",
    "RegisteredNode",
    "Route",
    "StoredRecord",
    "SwarmError",
    "ValueTooLargeError",
    "check_record",
    "node_record",
    "plan",
    "room_of",
]
