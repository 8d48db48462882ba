"""Who takes part in a measured swarm: keys and owners by number, a directory of all, channels that are funded.

Nothing is on a chain: what a chain would say is here, the same in every process, so that no process has to be told.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Final

from plait.protocol.ids import Address, keccak
from plait.protocol.typed import Domain, Key
from plait_node.wire import Certificate, PeerIdentity, make_certificate

__all__ = ["DEPOSIT", "DOMAIN", "WORKER", "Everyone", "Funded", "Slot", "identity", "key", "owner"]

DOMAIN: Final = Domain(chain_id=31_337, channels=Address(bytes(20)))
DEPOSIT: Final = 10**15  # base units in every channel
WORKER: Final = 0  # the worker's number; stages have 1, 2, ...
_COUNT: Final = 64


@cache
def key(number: int) -> Key:
    """Return the service key of a party."""
    return Key.from_bytes(keccak(b"key", bytes([number])))


def owner(number: int) -> Address:
    """Return the owner for whom key `number` speaks."""
    return Address(keccak(b"owner", bytes([number]))[:20])


def identity(number: int, certificate: Certificate | None = None) -> PeerIdentity:
    """Return who a party is on a link, with a fresh certificate if none is given."""
    return PeerIdentity(
        owner=owner(number), key=key(number), certificate=certificate or make_certificate(), domain=DOMAIN
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    owner: Address
    valid_from: int = 0
    revoked_at: int = 0


@cache
def _owners() -> dict[Address, _Known]:
    return {key(number).address: _Known(owner=owner(number)) for number in range(_COUNT)}


class Everyone:
    """A directory in which key number n speaks for owner number n, and all are staked."""

    async def service_key(self, address: Address, /) -> _Known | None:
        """Return whom a key speaks for."""
        return _owners().get(address)

    async def active(self, owner: Address, /) -> bool:
        """Tell whether this is one of the parties."""
        return any(known.owner == owner for known in _owners().values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """What a chain keeps of a channel."""

    deposit: int = DEPOSIT
    claimed: int = 0
    exit_at: int = 0


@dataclass(slots=True)
class Funded:
    """Channels between all, each with a deposit that no bench uses up."""

    slot: Slot = field(default_factory=Slot)

    async def channel(self, payer: Address, payee: Address, signer: Address, /) -> Slot:
        """Return the channel."""
        del payer, payee, signer
        return self.slot
