"""Know who serves which block: signed records in a DHT, routes."""

from __future__ import annotations

from plait_node.swarm.announcer import Announcer
from plait_node.swarm.completion import Known, Needs
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
from plait_node.swarm.mending import mend
from plait_node.swarm.placement import Bottleneck, Placement, bottleneck, choose_blocks
from plait_node.swarm.records import Deposit, NodeFacts, NodeRecord, StoredRecord, check_record, node_record
from plait_node.swarm.route import Blames, Route, plan, room_of
from plait_node.swarm.speeds import SpeedBook

__all__ = [
    "Announcer",
    "BadRecordError",
    "Blames",
    "Bottleneck",
    "Deposit",
    "Dht",
    "DhtError",
    "DhtKey",
    "DhtPortInUseError",
    "DhtStoppedError",
    "DhtTimeoutError",
    "Directory",
    "Known",
    "LibtorrentDht",
    "Lookup",
    "MemoryDht",
    "Needs",
    "NoRouteError",
    "NodeFacts",
    "NodeRecord",
    "NodeSource",
    "Placement",
    "RegisteredNode",
    "Route",
    "SpeedBook",
    "StoredRecord",
    "SwarmError",
    "ValueTooLargeError",
    "bottleneck",
    "check_record",
    "choose_blocks",
    "mend",
    "node_record",
    "plan",
    "room_of",
]
