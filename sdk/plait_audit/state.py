"""What the logs say the contracts hold: every balance, channel, stake and request, rebuilt from events alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from plait.protocol.ids import Address, Hash

TOKEN = "Token"  # noqa: S105 a contract, no password
HOLDERS = ("Channels", "NodeRegistry", "Requests")  # the contracts that keep tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where in the chain a fact stands; `index` is the log's index in its block."""

    block: int
    tx: Hash
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that does not add up, and the log to look at; no place when no log ever touched the thing."""

    check: str
    text: str
    place: Place | None = None


@dataclass(slots=True, kw_only=True)
class Channel:
    """A channel slot; amounts in base units, `exit_at` in Unix seconds."""

    payer: Address
    payee: Address
    signer: Address
    deposit: int = 0
    claimed: int = 0
    exit_at: int = 0
    jobs: int = 0
    root: bytes = bytes(32)
    place: Place


@dataclass(slots=True, kw_only=True)
class Account:
    """A payee's account as `Channels` stores it; amounts in base units."""

    place: Place
    previous: int = 0
    current: int = 0
    epoch: int = 0
    earned: int = 0
    fee: int = 0
    rows: int = 0
    released: int = 0
    forfeited: int = 0
    burned: int = 0
    released_now: int = 0
    release_epoch: int = 0
    unaccrued: int = 0  # claimed or credited, not yet named by an Accrued event

    @property
    def held(self) -> int:
        """Base units the contract owes for this account: unreleased money and fees not burned yet."""
        return self.earned - self.released - self.forfeited - self.burned


@dataclass(slots=True, kw_only=True)
class ServiceKey:
    """A key's one owner for ever."""

    owner: Address
    valid_from: int
    revoked_at: int
    place: Place


@dataclass(slots=True, kw_only=True)
class Node:
    """A registered node; amounts in base units, times in Unix seconds."""

    place: Place
    roles: int
    endpoint: str
    dht_key: bytes
    stake: int = 0
    unbonding: int = 0
    unbonded_at: int = 0
    jailed_until: int = 0
    verdicts: int = 0


@dataclass(slots=True, kw_only=True)
class Model:
    """A published model."""

    place: Place
    publisher: Address
    blocks: int
    profiles: tuple[bytes, ...]
    uri: str
    calibrations: dict[bytes, list[bytes]] = field(default_factory=dict[bytes, list[bytes]])


@dataclass(slots=True, kw_only=True)
class Request:
    """An on-chain request; `params` as emitted: `fee` in base units, times in Unix seconds."""

    place: Place
    digest: bytes
    params: Mapping[str, Any]
    status: Literal["open", "fulfilled", "cancelled", "refunded"] = "open"
    public: bool = False  # its prompt was published
    callback_failed: bool = False

    @property
    def fee(self) -> int:
        """Base units in escrow while the request is open."""
        return self.params["fee"]


@dataclass(slots=True, kw_only=True)
class State:
    """Everything rebuilt so far, and what did not fit while rebuilding."""

    epoch_length: int
    fee_bps: int
    unbonding_delay: int
    holders: frozenset[Address]  # whose tokens are counted: others may hold some from before the deployment
    channels: dict[Hash, Channel] = field(default_factory=dict[Hash, Channel])
    accounts: dict[Address, Account] = field(default_factory=dict[Address, Account])
    nodes: dict[Address, Node] = field(default_factory=dict[Address, Node])
    keys: dict[Address, ServiceKey] = field(default_factory=dict[Address, ServiceKey])
    models: dict[Hash, Model] = field(default_factory=dict[Hash, Model])
    requests: dict[int, Request] = field(default_factory=dict[int, Request])
    balances: dict[Address, int] = field(default_factory=dict[Address, int])
    findings: list[Finding] = field(default_factory=list[Finding])
