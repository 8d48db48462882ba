"""What the gateway asks of other parts, as narrow as it needs it: the chain, the DHT."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from plait.ledger import SharedBook
from plait.protocol.checks import NodeDirectory
from plait.protocol.ids import Address, Hash
from plait.protocol.messages import Job, Receipt
from plait.protocol.typed import Domain, Key, Signed
from plait_node.broker import Broker
from plait_node.settlement.till import ChannelFacts


class Head(Protocol):
    """A block, as far as its time is needed."""

    @property
    def timestamp(self) -> int:
        """Unix seconds."""
        ...


class Chain(Protocol):
    """The reading half of the chain that a payee needs."""

    async def channel(self, payer: Address, payee: Address, signer: Address) -> ChannelFacts:
        """Return a channel's slot."""
        ...

    async def block(self) -> Head:
        """Return the newest block."""
        ...

    async def tiers(self, owners: Iterable[Address], /) -> Mapping[Address, int]:
        """Return what `Reputation` says of nodes, 0 to 15, all at one block."""
        ...


class OnChain(Protocol):
    """The contract of on-chain requests."""

    async def named(self, number: int, gateway: Address, request: Hash, /) -> bool:
        """Say whether request `number` is open, asks this gateway, and has this digest."""
        ...


class Found(Protocol):
    """A job or receipt in the DHT, under its worker's key."""

    @property
    def job(self) -> Signed[Job] | None:
        """The job, where it was stored whole."""
        ...

    def covers(self, domain: Domain, signed: Signed[Job] | Signed[Receipt], /) -> bool:
        """Return whether this is the very message that was stored."""
        ...


class Deposits(Protocol):
    """Where workers put their jobs and receipts, each checked to be theirs."""

    async def job(self, request: Hash, worker: Address, /) -> Found | None:
        """Return the worker's newest job for a request."""
        ...

    async def receipt(self, request: Hash, worker: Address, /) -> Found | None:
        """Return the worker's receipt for a request."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """Who this gateway is, and everything it leans on; its parts share it."""

    me: Address
    key: Key
    domain: Domain
    book: SharedBook
    broker: Broker
    directory: NodeDirectory
    chain: Chain
    on_chain: OnChain
    lookup: Deposits
    notify: Callable[[], None]
    clock: Callable[[], float]
    patience_s: float


__all__ = ["Chain", "Deposits", "Found", "Head", "NodeDirectory", "OnChain", "Outside"]
