"""What an operator sets, read once from a TOML file and frozen.

A node is one process with one or more roles. Paths in the file are relative to the file. Order of precedence:
`PLAIT_NODE_<FIELD>` in the environment, then the file, then the default.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from plait.protocol.ids import Address, Hash, address, hash32
from plait_node.errors import ConfigError
from plait_node.policy import Guests

Role = Literal["gateway", "worker", "stage"]
AddressField = Annotated[Address, BeforeValidator(address)]
HashField = Annotated[Hash, BeforeValidator(hash32)]
_OVERRIDABLE = ("rpc", "broker", "deployment", "home")


class Socket(BaseModel):
    """A host and a port; port 0 lets the system choose."""

    model_config = ConfigDict(frozen=True)

    host: str
    port: int = Field(ge=0, le=65_535)

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        if isinstance(value, str):
            host, separator, port = value.rpartition(":")
            if not separator or not port.isdigit():
                raise ValueError(f"{value!r} is not host:port; write for example 127.0.0.1:9001")
            return {"host": host, "port": int(port)}
        return value


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BrokerConfig(_Section):
    """Where the broker is, and how this node gets in. `broker = "nats://host:port"` says the first alone."""

    url: str = Field(min_length=1, description="nats:// or tls:// and host:port; commas separate a cluster's servers")
    ca: Path | None = Field(default=None, description="the authority of the servers' certificates, PEM")
    nkey: Path | None = Field(default=None, description="file with the seed of this node's key")

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        return {"url": value} if isinstance(value, str) else value


class DhtConfig(_Section):
    """Where this node's DHT socket listens (UDP)."""

    listen: Socket


class GiveConfig(_Section):
    """Where other nodes fetch this node's models, over HTTP; name it `weights://host:port` in the endpoint on chain."""

    listen: Socket
    mib: int = Field(default=8, gt=0, description="MiB a second, to all that fetch together")


class MeetingPoint(_Section):
    """A dialable node to which a stage behind NAT keeps a link: `owner@host:port/certificate` in the file."""

    owner: AddressField
    socket: Socket
    certificate: HashField

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        if isinstance(value, str):
            owner, _, rest = value.partition("@")
            socket, separator, certificate = rest.rpartition("/")
            if not separator:
                raise ValueError(f"{value!r} is not owner@host:port/certificate; ready.json of that node has it")
            return {"owner": owner, "socket": socket, "certificate": certificate}
        return value


class _Serving(_Section):
    payers_refused: tuple[AddressField, ...] = Field(default=(), description="payers whose requests are refused")
    payers_allowed: tuple[AddressField, ...] = Field(
        default=(), description="the only payers that are served; none named: everybody who is not refused"
    )

    @property
    def payers(self) -> Guests:
        """Whose requests are served."""
        return Guests(refused=frozenset(self.payers_refused), allowed=frozenset(self.payers_allowed))


class StageConfig(_Serving):
    """Blocks `[first, last)` of a model, or how many of them it has room for, and what serving them costs."""

    model: HashField
    first: int = Field(default=0, ge=0)
    last: int = Field(default=0, ge=0)
    blocks: int = Field(
        default=0,
        ge=0,
        description="in place of first and last: room for so many; the stage takes, and keeps, those which help most",
    )
    listen: Socket
    announce: Socket | None = Field(default=None, description="what others dial, where that is not `listen`")
    reach: Literal["dialable", "via"] = Field(
        default="dialable", description="via: nobody can dial this stage; it dials out, and is called over others"
    )
    via: tuple[MeetingPoint, ...] = Field(
        default=(),
        max_length=3,
        description="reach via: the nodes over which it is called; none: stages of its model that can be dialed",
    )
    relay_mib: int = Field(
        default=4, ge=0, description="MiB a second copied for each node that cannot be dialed to another such; 0: none"
    )
    price: int = Field(ge=0, description="base units per 1,000,000 steps x blocks")
    kv_steps: int = Field(default=8_192, gt=0, description="steps of KV room over all jobs")
    prefix_steps: int = Field(default=4_096, ge=0, description="steps kept for prefixes of ended jobs")
    device: Literal["cpu", "cuda"] = Field(
        default="cpu", description="where it computes; CUDA_VISIBLE_DEVICES says which device, where there are several"
    )
    weights: Literal["fp32", "bf16", "int8", "int4"] = Field(
        default="fp32", description="what weights are computed with; must be the profile's"
    )
    profile: str = Field(
        default="",
        description="which of the model's profiles is served, by its name; none: the first one of such weights",
    )
    threads: int = Field(
        default=1,
        ge=0,
        description="compute threads; 0 measures at start which number decodes fastest, one is best on small machines",
    )
    compiled: bool = Field(default=True, description="decode by compiled code where there is a compiler")
    batch_rows: int = Field(default=16, gt=0, description="most rows behind prompts, of all jobs, in one pass")
    step_seconds: float = Field(default=0.25, gt=0, le=10, description="how long a pass with prompt rows is to compute")
    credit_windows: int = Field(default=4, ge=1, description="windows served before they are paid")
    rows_mib: int = Field(
        default=256,
        ge=1,
        description="MiB of memory for rows of all jobs that may be sent again; a job that does not fit is refused",
    )
    worker_jobs: int = Field(default=16, ge=1, description="most jobs of one worker at once")
    workers_refused: tuple[AddressField, ...] = Field(default=(), description="workers whose jobs are refused")
    workers_allowed: tuple[AddressField, ...] = Field(
        default=(), description="the only workers that are served; none named: everybody who is not refused"
    )

    @property
    def workers(self) -> Guests:
        """Whose jobs are served."""
        return Guests(refused=frozenset(self.workers_refused), allowed=frozenset(self.workers_allowed))

    @model_validator(mode="after")
    def _names_its_blocks(self) -> StageConfig:
        if self.blocks and (self.first or self.last):
            raise ValueError("name blocks, or first and last, not both")
        if not self.blocks and not self.first < self.last:
            raise ValueError("first must be below last; or name blocks, how many there is room for, in their place")
        return self


class _Opening(_Section):
    channel_deposit: int = Field(
        default=0,
        ge=0,
        description="base units from the service key's account that a channel to a stage is opened with and topped up "
        "to; 0: never, channels are the owner's and opened by hand",
    )
    channels_most: int = Field(
        default=0, ge=0, description="base units that may lie unclaimed in all channels of this role together"
    )
    channel_top_up: float = Field(
        default=0.25,
        gt=0,
        lt=1,
        description="a channel is topped up when less than this share of channel_deposit is left",
    )

    @model_validator(mode="after")
    def _may_open_a_channel(self) -> Self:
        if self.channels_most < self.channel_deposit:
            raise ValueError("channels_most is below channel_deposit: no channel could be opened; raise it")
        return self


class WorkerConfig(_Serving, _Opening):
    """What the worker takes from its group, and what it asks of a payer."""

    model: HashField
    listen: Socket | None = Field(
        default=None, description="where stages behind NAT open links; without it they are reached over a relay"
    )
    announce: Socket | None = Field(default=None, description="what those stages dial, where that is not `listen`")
    relay_mib: int = Field(
        default=4, ge=0, description="MiB a second copied for each node that cannot be dialed to another such; 0: none"
    )
    input_price: int = Field(ge=0, description="base units per 1,000,000 input tokens")
    output_price: int = Field(ge=0, description="base units per 1,000,000 output tokens")
    share: int = Field(default=1_000_000, ge=0, le=1_000_000, description="millionths of the payer's amount")
    max_input: int = Field(default=2_048, gt=0)
    max_output: int = Field(default=1_024, gt=0)
    credit_windows: int = Field(default=4, ge=1)
    device_class: str = Field(
        default="cpu", pattern=r"^\w{1,32}$", description="first part of the group's class; room and pace are measured"
    )
    parallel_jobs: int = Field(default=2, gt=0)
    job_budget: float = Field(
        default=0.0,
        ge=0,
        description="most that the machines of a job may cost, in the currency of their prices; 0: any",
    )
    over_budget: Literal["offer", "refuse"] = Field(
        default="offer", description="where nothing meets the budget: run the cheapest, or refuse the job"
    )
    max_callback_gas: int = Field(
        default=200_000, ge=0, description="of an on-chain request that is answered; this node pays for the gas"
    )
    gateways_refused: tuple[AddressField, ...] = Field(
        default=(), description="owners of gateways whose jobs are refused"
    )
    gateways_allowed: tuple[AddressField, ...] = Field(
        default=(), description="the only owners of gateways that are served; none named: everybody not refused"
    )

    @property
    def gateways(self) -> Guests:
        """Whose gateways' jobs are taken."""
        return Guests(refused=frozenset(self.gateways_refused), allowed=frozenset(self.gateways_allowed))


class GatewayConfig(_Serving, _Opening):
    """Where payers reach this node, and whose workers serve there beside the owner's own."""

    listen: Socket
    url: str = Field(
        default="",
        pattern=r"^(https?://\S+)?$",
        description="under which payers reach it, one of the endpoint's on chain; by default that of `listen`",
    )
    connections_per_host: int = Field(
        default=256,
        ge=1,
        description="of 2,000 that are open at once; an IPv6 /64 is one host, this machine's own are not counted",
    )
    serves: tuple[HashField, ...] = Field(
        default=(), description="ids of the only models that are quoted; none named: all in the folder `models`"
    )
    channel_deposit: int = Field(
        default=0,
        ge=0,
        description="base units from the service key's account that a channel to a worker of another owner is opened "
        "with and topped up to; 0: only this owner's workers are quoted",
    )
    workers_refused: tuple[AddressField, ...] = Field(default=(), description="other owners whose workers are left out")
    workers_allowed: tuple[AddressField, ...] = Field(
        default=(),
        description="the only other owners whose workers are quoted, together, so that one goes on where another dies: "
        "name those you trust not to take jobs from each other; none named: everybody not refused, one owner a quote",
    )
    most_share: int = Field(
        default=1_000_000,
        ge=0,
        le=1_000_000,
        description="millionths of the payer's amount that a worker of another owner may ask; the rest stays here",
    )

    @property
    def workers(self) -> Guests:
        """Whose workers are quoted, where those of other owners are at all."""
        return Guests(refused=frozenset(self.workers_refused), allowed=frozenset(self.workers_allowed))


class NodeConfig(_Section):
    """One process of one operator."""

    home: Path
    rpc: str
    deployment: Path
    owner: AddressField
    roles: tuple[Role, ...] = Field(min_length=1)
    dht: DhtConfig
    models: Path  # the folder that `plait node publish` wrote
    fetch: tuple[str, ...] = Field(
        default=("chain",),
        description="where a model that is not in `models` is fetched from, in this order: base URLs, and `chain` for "
        "the URL that it was published with and the staked nodes that give weights; none: nowhere",
    )
    give: GiveConfig | None = None
    broker: BrokerConfig | None = None
    claim_at: int = Field(
        default=0, ge=0, description="base units that a channel owes before it is claimed; 0: after each job"
    )
    disk_free_mib: int = Field(
        default=256,
        ge=0,
        description="MiB that stay free on the disk of `home`, for the journals: with less, no new jobs are taken",
    )
    drain_s: float = Field(
        default=30.0, ge=0, description="seconds for the jobs in hand once it is told to stop (SIGTERM, Ctrl-C)"
    )
    stage: StageConfig | None = None
    worker: WorkerConfig | None = None
    gateway: GatewayConfig | None = None

    @field_validator("fetch")
    @classmethod
    def _are_urls(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            if each != "chain" and not each.startswith(("http://", "https://")):
                raise ValueError(f"{each!r} is neither `chain` nor a base URL such as https://host/path")
        return tuple(each.rstrip("/") for each in value)

    @model_validator(mode="after")
    def _sections_match_roles(self) -> NodeConfig:
        for role in self.roles:
            if getattr(self, role) is None:
                raise ValueError(f"role {role!r} needs a section [{role}]")
        if {"gateway", "worker"} <= set(self.roles) and self.gateway is not None and self.gateway.channel_deposit:
            raise ValueError(
                "a gateway that pays workers of other owners runs without a worker beside it: vouchers of one key must "
                "leave in one order; start the worker as a process of its own, or set channel_deposit = 0 in [gateway]"
            )
        if self.broker is None and {"gateway", "worker"} & set(self.roles):
            raise ValueError('roles gateway and worker need broker = "nats://host:port"')
        return self


def load(path: Path) -> NodeConfig:
    """Read a node's TOML file; raise `ConfigError` naming each bad field."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; `plait node init` writes one") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    _override(raw)
    raw.setdefault("home", ".")
    _resolve(raw, ("home", "deployment", "models"), path.parent)
    if isinstance(raw.get("broker"), dict):
        _resolve(raw["broker"], ("ca", "nkey"), path.parent)
    try:
        return NodeConfig.model_validate(raw)
    except ValidationError as error:
        lines = [f"  {'.'.join(str(part) for part in item['loc']) or 'file'}: {item['msg']}" for item in error.errors()]
        raise ConfigError(f"{path}: {len(lines)} field(s) to mend\n" + "\n".join(lines)) from error


def _override(raw: dict[str, Any]) -> None:
    """Let the environment name what it may; of a broker with a section of its own, the address alone."""
    for name in _OVERRIDABLE:
        value = os.environ.get(f"PLAIT_NODE_{name.upper()}")
        if not value:
            continue
        if name == "broker" and isinstance(raw.get(name), dict):
            raw[name]["url"] = value
        else:
            raw[name] = value


def _resolve(section: dict[str, Any], names: tuple[str, ...], folder: Path) -> None:
    for name in names:
        if isinstance(section.get(name), str):
            section[name] = str((folder / section[name]).resolve())
