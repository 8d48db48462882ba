"""Who a node is on a link, whom it blames, and how patient it is."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from plait.protocol.ids import Address, to_hex
from plait.protocol.typed import Domain, Key
from plait_node.wire.certificate import Certificate

log = logging.getLogger(__name__)

MAX_FRAME_BYTES = 8 << 20
VERSIONS = (1, 1)  # the least and the greatest version this node speaks


class KeyFacts(Protocol):
    """What the chain says of a service key; times in Unix seconds."""

    @property
    def owner(self) -> Address:
        """Return the node that the key speaks for."""
        ...

    @property
    def valid_from(self) -> int:
        """Return when its signatures begin to count."""
        ...

    @property
    def revoked_at(self) -> int:
        """Return when they ceased to, 0 while they count."""
        ...


class Directory(Protocol):
    """The part of `NodeDirectory` that a handshake asks."""

    async def service_key(self, address: Address, /) -> KeyFacts | None:
        """Return what the chain says of a key, None when it is nobody's."""
        ...

    async def active(self, owner: Address, /) -> bool:
        """Tell whether a node is staked and not jailed."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerIdentity:
    """This node: its owner, the service key that speaks for it, its certificate."""

    owner: Address
    key: Key
    certificate: Certificate
    domain: Domain
    versions: tuple[int, int] = VERSIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Deadlines and bounds of a link, in seconds and bytes."""

    heartbeat_s: float = 0.25
    missed_heartbeats: int = 6  # silence of so many beats, 1.5 to 1.75 s, ends a link
    send_s: float = 5.0
    handshake_s: float = 8.0
    close_s: float = 1.0
    outbox_bytes: int = 32 << 20
    inbox_bytes: int = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Blame:
    """What a peer did. `owner` is None while nobody has proven to be it; then only `where` is known."""

    owner: Address | None
    where: str
    reason: str
    lost: bool = False  # the peer vanished rather than misbehaved


OnBlame = Callable[[Blame], None]


def log_blame(blame: Blame) -> None:
    """Write a blame to the log, one line."""
    owner = to_hex(blame.owner) if blame.owner is not None else "unproven"
    log.warning("peer blamed owner=%s where=%s lost=%s reason=%s", owner, blame.where, blame.lost, blame.reason)
