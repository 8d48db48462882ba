"""Where the client's settings come from: argument, then PLAIT_* environment variable, then default."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from plait.chain.deployments import Deployment
from plait.client.errors import SettingsError
from plait.protocol.errors import MalformedMessageError
from plait.protocol.ids import Address, address
from plait.protocol.typed import Key

DEFAULT_DEPOSIT = 1_000_000
DEFAULT_TIMEOUT_S = 600.0
MOST_TIMEOUT_S = 3_500.0  # a request's deadline lies at most an hour ahead


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything a client needs; amounts in base units."""

    rpc: str
    deployment: Deployment
    key: Key | None
    home: Path
    gateway: Address | None
    max_price: int | None
    deposit: int
    timeout_s: float
    profiles: tuple[str, ...] = ()  # those that a request may run under, the best one first; none: all

    def payer(self) -> Key:
        """Return the wallet's key; raise `SettingsError` when there is none."""
        if self.key is None:
            raise SettingsError("no key to pay with: pass key='0x...' or set PLAIT_KEY")
        return self.key


def settle(
    *,
    rpc: str | None = None,
    deployment: Deployment | Path | str | None = None,
    key: Key | str | None = None,
    home: Path | str | None = None,
    gateway: str | bytes | None = None,
    max_price: int | None = None,
    deposit: int | None = None,
    timeout: float | None = None,
    profiles: Sequence[str] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """Return the settings; raise `SettingsError` for what is missing or malformed."""
    url = rpc or environ.get("PLAIT_RPC")
    if not url or not url.startswith(("http://", "https://")):
        raise SettingsError("no chain to read: pass rpc='http://...' or set PLAIT_RPC to a JSON-RPC URL")
    where = deployment or environ.get("PLAIT_DEPLOYMENT")
    if where is None:
        raise SettingsError(
            "no contracts to talk to: pass deployment='deployments/<chain id>.json' or set it as PLAIT_DEPLOYMENT"
        )
    seconds = DEFAULT_TIMEOUT_S if timeout is None else timeout
    amount = DEFAULT_DEPOSIT if deposit is None else deposit
    named = [name for name in environ.get("PLAIT_PROFILES", "").split(",") if name]
    if not 0 < seconds <= MOST_TIMEOUT_S:
        raise SettingsError(f"timeout lies above 0 and is at most {MOST_TIMEOUT_S:.0f} s")
    if amount < 0 or (max_price is not None and max_price < 0):
        raise SettingsError("deposit and max_price are base units, 0 or more")
    return Settings(
        rpc=url,
        deployment=where if isinstance(where, Deployment) else Deployment.load(where),
        key=_key(key or environ.get("PLAIT_KEY")),
        home=Path(home or environ.get("PLAIT_HOME") or Path.home() / ".plait"),
        gateway=_gateway(gateway),
        max_price=max_price,
        deposit=amount,
        timeout_s=seconds,
        profiles=tuple(named if profiles is None else profiles),
    )


def _key(value: Key | str | None) -> Key | None:
    if value is None or isinstance(value, Key):
        return value
    try:
        return Key.from_hex(value)
    except MalformedMessageError as error:
        raise SettingsError("key (or PLAIT_KEY) is a secret key of 64 hex digits") from error


def _gateway(value: str | bytes | None) -> Address | None:
    try:
        return None if value is None else address(value)
    except MalformedMessageError as error:
        raise SettingsError("gateway is a node's owner address: 0x and 40 hex digits") from error
